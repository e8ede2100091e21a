"""The model first: what its own code can't do is found before anything is exported.

The eager model runs alone on samples of its signature: at the examples, the smallest,
odd and the largest sizes, with the first and the last of the integers that it takes,
twice on the same inputs, and in double precision. What fails is reported as the model's
or its signature's, with the key that is wrong.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.dtypes import SIGNATURE_DTYPES
from checkpoint_release.core.errors import ModelError, first_few
from checkpoint_release.core.signature import Arrays, TensorSpec, resolve_shape
from checkpoint_release.runtimes.model_alone import (
    ForwardError,
    ModelAlone,
    Outputs,
    Sizes,
    example_sizes,
    odd_sizes,
    sizes_text,
    smallest_sizes,
)
from checkpoint_release.runtimes.model_diagnosis import explain, wrong_high
from checkpoint_release.runtimes.model_watch import (
    Watch,
    changed,
    state_of,
    training_modules,
)
from checkpoint_release.runtimes.precision import double_precision, widen

_LISTED = 3  # names in a message
_GROWTH = 4  # from one tried size to the next, on the way to the largest
_PATIENCE = 2.0  # seconds that a run may have taken for a larger one to be tried
# Relative to the largest output. Two runs of a model that draws nothing may differ by
# rounding, where threads add in another order.
_ROUNDING = 1e-5
_ROUNDING_HALF = 1e-2


@dataclass(frozen=True)
class Behaviour:
    """What was seen of a model that keeps its signature.

    Attributes:
        decisions: lines of its code that turn values of tensors into Python's, such as
            "my_model.py:14"; an `if` there may depend on the data.
        complex_at: lines of its code that compute complex numbers.
        notes: what couldn't be tried, a sentence each.
    """

    decisions: tuple[str, ...]
    complex_at: tuple[str, ...]
    notes: tuple[str, ...]


def check_model(
    model: nn.Module, architecture: Architecture, *, double: bool = True
) -> Behaviour:
    """Run a model alone, on everything that its signature says it takes.

    Args:
        model: in evaluation mode; it is widened to double precision in the end, and may
            keep what its forward keeps, so it is of no use afterwards.
        architecture: of the model.
        double: whether to run it in double precision, too, for which its weights are
            copied.

    Raises:
        ModelError: it draws random numbers, remembers earlier calls, is still in
            training mode, fails, or doesn't keep its signature.
    """
    alone = ModelAlone(model, architecture)
    _refuse_training(alone)
    watch = Watch()
    with _own_random_numbers():
        example, odd = (sizes(alone.signature) for sizes in (example_sizes, odd_sizes))
        with watch:
            _try(alone, example)
        first = _try(alone, odd)
        _require_same(alone, odd, first, watch)
        _try(alone, smallest_sizes(alone.signature))
        _require_same(alone, odd, first, watch)
        _try_indices(alone, example)
        notes = tuple(_try_largest(alone, odd))
        if double:
            _try_double(alone, example)
    return Behaviour(tuple(watch.decisions), tuple(watch.complex_at), notes)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave everybody's random numbers as they are."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


# --------------------------------------------------------------------------------------
# What it gives


def _try(alone: ModelAlone, sizes: Sizes, inputs: Arrays | None = None) -> Outputs:
    """Run the model, and hold its outputs against its signature.

    Args:
        alone: the model.
        sizes: of the inputs.
        inputs: None: samples.

    Raises:
        ModelError: it fails, or gives something else.
    """
    try:
        outputs = alone.run(alone.sample(sizes) if inputs is None else inputs)
    except ForwardError as failure:
        raise explain(alone, sizes, failure) from failure
    for spec, output in zip(alone.signature.outputs, outputs, strict=True):
        _check_dtype(alone, spec, output)
        _check_shape(alone, spec, output, sizes)
    return outputs


def _check_dtype(alone: ModelAlone, spec: TensorSpec, output: Tensor) -> None:
    """An output must have the stated dtype, which must be one that formats have.

    Raises:
        ModelError: it hasn't.
    """
    found = str(output.dtype).removeprefix("torch.")
    if output.is_complex():
        raise alone.error(
            f"output {spec.name!r} is {found}, and no format gives complex numbers:"
            " ONNX has none",
            "return torch.view_as_real(x), whose last axis is the real and the"
            " imaginary part",
        )
    if found not in SIGNATURE_DTYPES:
        raise alone.error(
            f"output {spec.name!r} is {found}, which a signature doesn't have"
            + (": numpy has no such type" if found == "bfloat16" else ""),
            f"return it as one of {', '.join(SIGNATURE_DTYPES)}, such as x.float()",
        )
    if found != spec.dtype:
        raise alone.error(
            f"{alone.key('outputs')}: dtype of {spec.name!r} is {spec.dtype}, and the"
            f" model gives {found}",
            f"state `dtype: {found}` for it",
        )


def _check_shape(
    alone: ModelAlone, spec: TensorSpec, output: Tensor, sizes: Sizes
) -> None:
    """An output must have the stated shape, as far as inputs have its dimensions.

    Raises:
        ModelError: it hasn't.
    """
    names = set(spec.dynamic_axes.values())
    if spec.shape is None or not names <= sizes.keys():
        return
    expected = resolve_shape(spec, sizes)
    if tuple(output.shape) != expected:
        raise alone.error(
            f"{alone.key('outputs')}: shape of {spec.name!r} is {list(spec.shape)}, and"
            f" at {sizes_text(sizes)} the model gives {list(output.shape)}",
            "correct it, or leave the shape of this output out",
        )


# --------------------------------------------------------------------------------------
# The same outputs for the same inputs


def _refuse_training(alone: ModelAlone) -> None:
    """Raise ModelError where layers are still in training mode after eval()."""
    layers = training_modules(alone.model)
    if layers:
        raise _training_error(alone, first_few(layers, _LISTED))


def _training_error(alone: ModelAlone, what: str) -> ModelError:
    """A model that eval() doesn't bring out of training mode."""
    overrides = []
    for module in alone.model.modules():
        kind = type(module)
        for method in ("eval", "train"):
            if getattr(kind, method) is not getattr(nn.Module, method):
                overrides.append(f"{kind.__name__} overrides {method}()")
    why = f"; {overrides[0]}" if overrides else ""
    return alone.error(
        f"the model is in training mode after eval(): {what}{why}",
        "let eval() reach every layer: an override must call super() and return self",
    )


def _require_same(
    alone: ModelAlone, sizes: Sizes, first: Outputs, watch: Watch
) -> None:
    """The model must give again what it gave.

    Args:
        alone: the model.
        sizes: of the samples.
        first: what it gave.
        watch: sees what the model does, where it is looked for a cause.

    Raises:
        ModelError: it gives something else; the message says why.
    """
    again = _try(alone, sizes)
    if not _differ(first, again):
        return
    outputs = _differing(alone, first, again)
    if any(module.training for module in alone.model.modules()):
        raise _training_error(alone, f"the same inputs give other outputs: {outputs}")
    if _is_random(alone, sizes, watch):
        draws = first_few(list(watch.draws), _LISTED)
        by = f"by {draws}" if draws else "outside of torch"
        raise alone.error(
            "the model draws random numbers in forward, so that the same inputs give"
            f" other outputs: {outputs}; they are drawn {by}",
            "draw them in training alone (`if self.training`), or let them come in as"
            " an input",
        )
    before = state_of(alone.model)
    _try(alone, sizes)
    names = changed(before, state_of(alone.model))
    where = f"; it changes {first_few(names, _LISTED)}" if names else ""
    raise alone.error(
        "the model keeps something between calls, so that the same inputs give other"
        f" outputs: {outputs}{where}",
        "let what it keeps come in as an input and go out as an output",
    )


def _is_random(alone: ModelAlone, sizes: Sizes, watch: Watch) -> bool:
    """Whether the outputs follow from the seed of random numbers."""

    def seeded(seed: int) -> Outputs:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        with watch:
            return _try(alone, sizes)

    first, again, other = seeded(0), seeded(0), seeded(1)
    return not _differ(first, again) and _differ(first, other)


def _differ(first: Outputs, second: Outputs) -> bool:
    """Whether outputs differ by more than the order of additions explains."""
    pairs = zip(first, second, strict=True)
    return any(_distance(*pair) > 0 for pair in pairs)


def _differing(alone: ModelAlone, first: Outputs, second: Outputs) -> str:
    """The outputs that differ, and by how much, for a message."""
    shown = []
    for spec, *pair in zip(alone.signature.outputs, first, second, strict=True):
        distance = _distance(*pair)
        if distance:
            shown.append(f"{spec.name} by {distance:.2g}")
    return first_few(shown, _LISTED)


def _distance(first: Tensor, second: Tensor) -> float:
    """The largest difference of two outputs; 0 where rounding explains it.

    Infinite where their shapes differ, or one has NaN where the other hasn't.
    """
    if first.shape != second.shape:
        return float("inf")
    if torch.equal(first, second) or not first.numel():
        return 0.0
    wide, again = first.double(), second.double()
    if not torch.equal(wide.isnan(), again.isnan()):
        return float("inf")
    distance = (wide - again).abs().nan_to_num(0.0).max().item()
    if not first.is_floating_point():
        return distance
    half = first.dtype in (torch.float16, torch.bfloat16)
    scale = wide.abs().nan_to_num(0.0).max().item()
    allowed = (_ROUNDING_HALF if half else _ROUNDING) * scale
    return distance if distance > allowed else 0.0


# --------------------------------------------------------------------------------------
# Everything that it takes


def _try_indices(alone: ModelAlone, sizes: Sizes) -> None:
    """Run the model with the last and the first of every input's integers.

    Raises:
        ModelError: it doesn't take one of them.
    """
    for spec in alone.signature.inputs:
        if not spec.is_integer or spec.low is None or spec.high is None:
            continue
        for value in (spec.high - 1, spec.low):
            inputs = alone.sample(sizes)
            inputs[spec.name] = np.full_like(inputs[spec.name], value)
            try:
                alone.run(inputs)
            except ForwardError as failure:
                raise wrong_high(alone, spec, sizes, failure) from failure


def _try_largest(alone: ModelAlone, odd: Sizes) -> Iterator[str]:
    """Run the model at the largest size of every dimension, one after another, the
    others at their smallest.

    Sizes grow on the way, so that a model that is slow or needs much memory isn't run
    where it would take minutes or all of it.

    Args:
        alone: the model.
        odd: sizes that it took.

    Returns:
        A note on each dimension whose largest size wasn't reached.

    Raises:
        ModelError: it doesn't take one of them.
    """
    smallest = smallest_sizes(alone.signature)
    for name, dimension in alone.signature.dimensions.items():
        size = odd[name]
        # without a maximum, one that is far from the example
        largest = dimension.maximum or size * _GROWTH
        while size < largest:
            size = min(size * _GROWTH, largest)
            sizes = smallest | {name: size}
            if not _took_little(alone, sizes):
                if size < largest:
                    yield (
                        f"{name} was tried up to {size}, where the model takes long,"
                        f" and not up to its maximum, {largest}"
                    )
                break


def _took_little(alone: ModelAlone, sizes: Sizes) -> bool:
    """Whether a run took so little time and memory that a larger one can be tried.

    Args:
        alone: the model.
        sizes: to run it at.

    Raises:
        ModelError: it doesn't take them.
    """
    started = time.monotonic()
    try:
        alone.run(alone.sample(sizes))
    except ForwardError as failure:
        if failure.out_of_memory:
            return False
        raise explain(alone, sizes, failure) from failure
    return time.monotonic() - started < _PATIENCE


def _try_double(alone: ModelAlone, sizes: Sizes) -> None:
    """Run the model in double precision, in which graphs are proven.

    Raises:
        ModelError: it doesn't run so.
    """
    widen(alone.model)
    inputs = alone.sample(sizes)
    for name, array in inputs.items():
        if array.dtype.kind == "f":
            inputs[name] = array.astype(np.float64)
    try:
        with double_precision():
            alone.run(inputs)
    except ForwardError as failure:
        raise alone.error(
            f"the model doesn't run in float64, which it is proven in: {failure.cause}",
            "let forward take dtypes from its tensors (x.dtype, torch.zeros_like)"
            " rather than compute in a fixed one",
        ) from failure
