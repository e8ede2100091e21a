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
from checkpoint_release.core.signature import Arrays, TensorSpec, known_shape
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
from checkpoint_release.runtimes.model_repeats import refuse_training, require_same
from checkpoint_release.runtimes.model_watch import Watch
from checkpoint_release.runtimes.precision import double_precision, widen

_FAR = 4  # times an odd size, where a dimension has no maximum
# From one size to the next on the way to the largest; attention takes 4 times the
# memory.
_GROWTH = 2
_PATIENCE = 0.25  # seconds that a run may take for a larger one to be tried


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
    refuse_training(alone)
    watch = Watch()
    with _own_random_numbers():
        example, odd = (sizes(alone.signature) for sizes in (example_sizes, odd_sizes))
        with watch:
            _try(alone, example)
        first = _try(alone, odd)
        require_same(alone, odd, first, watch)
        _try(alone, smallest_sizes(alone.signature))
        require_same(alone, odd, first, watch)
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
    expected = known_shape(spec, sizes)
    if expected is not None and tuple(output.shape) != expected:
        stated = list(spec.shape or ())
        raise alone.error(
            f"{alone.key('outputs')}: shape of {spec.name!r} is {stated}, and"
            f" at {sizes_text(sizes)} the model gives {list(output.shape)}",
            "correct it, or leave the shape of this output out",
        )


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
        largest = dimension.maximum or size * _FAR
        while size < largest and _took_little(alone, smallest | {name: size}):
            size = min(size * _GROWTH, largest)
        if size == largest:
            _took_little(alone, smallest | {name: size})
        elif dimension.maximum:
            yield (
                f"{name} was tried up to {size}, where the model takes long, and not up"
                f" to its maximum, {largest}"
            )


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
