"""A first draft of a model's signature, by running the model.

forward names its inputs; what they hold is guessed from the model's own layers, and a
guess stands when the model runs on it. Sizes are then varied: an axis that may vary is
a dynamic dimension, one that may not a number.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import (
    Arrays,
    Dimension,
    Signature,
    TensorSpec,
    sample_inputs,
)
from checkpoint_release.models.probing import shape_of_runs
from checkpoint_release.runtimes.eager import build_model, named_leaves
from checkpoint_release.runtimes.model_alone import parameter_sizes

_EXAMPLES = {
    "batch": 3,
    "sequence": 12,
    "channels": 4,
    "depth": 16,
    "height": 64,
    "width": 64,
    "length": 64,
}
_LONG_EXAMPLES = {**_EXAMPLES, "length": 16_384, "sequence": 128, "height": 224}
_SPATIAL = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}
_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_OF_INTEGERS = ("token", "ids", "index", "indices", "label", "step", "action", "class")
_STEPS = (2, 4, 8, 16, 32, 64)
_MOST_TRIES = 3000
_PATIENCE = 60.0  # seconds
_FRAMES = (256, 512, 1024, 2048, 4096)  # samples of a frame of sound
_FAR = 32  # times an example, up to which a maximum is looked for

Sizes = dict[str, int]


def draft_signature(architecture: Architecture) -> Signature:
    """The signature that a model keeps, as far as running it shows.

    What an input means, and which integers make sense, nobody can see: read it.

    Args:
        architecture: names the factory and its arguments; its signature isn't used.

    Raises:
        UntrustedCodeError: the code comes from elsewhere, and nobody trusts it.
        ModelError: the factory fails, or forward runs on no inputs that were guessed.
    """
    empty = replace(architecture, signature=Signature((), (), {}))
    torch.manual_seed(0)
    model = build_model(empty)
    names = _required_inputs(model)
    until = time.monotonic() + _PATIENCE
    for examples in (_EXAMPLES, _LONG_EXAMPLES):
        guess = _first_that_runs(model, names, examples, until)
        if guess is not None:
            return _completed(model, guess, dict(examples), until)
    raise ModelError(
        f"forward of {type(model).__name__} takes {names}, and ran on none of the"
        " inputs that its layers suggest",
        "state {model.signature} by hand",
        options=["model.signature"],
    )


def _required_inputs(model: nn.Module) -> list[str]:
    """The arguments of forward that have no default.

    Raises:
        ModelError: it names none.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    named = [each for each in parameters if each.kind not in (2, 4)]  # no * and **
    names = [each.name for each in named if each.default is each.empty]
    if not names:
        names = [each.name for each in named][:1]
    if not names:
        raise ModelError(
            f"forward of {type(model).__name__} names no inputs",
            "give it named arguments, or state {model.signature} by hand",
            options=["model.signature"],
        )
    return names


# Guesses


def _first_that_runs(
    model: nn.Module, names: Sequence[str], examples: Sizes, until: float
) -> list[TensorSpec] | None:
    """The first combination of guesses on which the model runs.

    One whose outputs have the batch twice comes after all others: two inputs of other
    shapes were broadcast together.
    """
    second_best: list[TensorSpec] | None = None
    kinds = list(_kinds(model))
    choices = []
    for name in names:
        choices.append([replace(kind, name=name) for kind in _ordered(kinds, name)])
    for specs in islice(product(*choices), _MOST_TRIES):
        if time.monotonic() > until:
            break
        outputs = _outputs(model, specs, examples)
        if outputs and not _has_batch_twice(outputs, examples["batch"]):
            return list(specs)
        if outputs and second_best is None:
            second_best = list(specs)
    return second_best


def _has_batch_twice(outputs: Mapping[str, Tensor], batch: int) -> bool:
    return any(list(tensor.shape).count(batch) > 1 for tensor in outputs.values())


def _kinds(model: nn.Module) -> Iterator[TensorSpec]:
    """What inputs of the model's layers look like, nameless, each once."""
    seen: set[TensorSpec] = set()
    for kind in _all_kinds(model):
        if kind not in seen:
            seen.add(kind)
            yield kind


def _all_kinds(model: nn.Module) -> Iterator[TensorSpec]:
    tables = [each.num_embeddings for each in _modules(model, nn.Embedding)]
    for high in sorted(tables, reverse=True):
        yield _integers("batch", "sequence", high=high)
    for module in model.modules():
        yield from _of_layer(module)
    for high in sorted(tables, reverse=True):
        yield _integers("batch", high=high)
    for size in parameter_sizes(model):
        yield _floats("batch", size)
        yield _floats("batch", "sequence", size)
    for shape in (("batch", "sequence"), ("batch",), ()):
        yield _floats(*shape)
    yield TensorSpec("", "bool", ("batch", "sequence"))
    yield _integers("batch", "sequence", high=2)
    for size in _FRAMES:
        yield _floats("batch", size)


def _modules(model: nn.Module, kind: type[nn.Module]) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, kind))


def _of_layer(module: Any) -> Iterator[TensorSpec]:
    """What a layer takes."""
    for kind, axes in _CONVOLUTIONS.items():
        if isinstance(module, kind):
            yield _floats("batch", module.in_channels, *_SPATIAL[axes])
            yield _floats("batch", *_SPATIAL[axes])
    if isinstance(module, nn.RNNBase):
        yield _floats(*_order(module), module.input_size)
    if isinstance(module, nn.Linear):
        yield _floats("batch", module.in_features)
        yield _floats("batch", "sequence", module.in_features)
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1:
        yield _floats("batch", *module.normalized_shape)
    if isinstance(module, nn.MultiheadAttention):
        yield _floats(*_order(module), module.embed_dim)


def _order(module: Any) -> tuple[str, str]:
    """The first two axes of what a layer of sequences takes."""
    return ("batch", "sequence") if module.batch_first else ("sequence", "batch")


def _floats(*shape: int | str) -> TensorSpec:
    return TensorSpec("", shape=shape)


def _integers(*shape: int | str, high: int) -> TensorSpec:
    return TensorSpec("", "int64", shape, low=0, high=high)


def _ordered(kinds: Sequence[TensorSpec], name: str) -> list[TensorSpec]:
    """The guesses, those that a name suggests first."""
    lower = name.lower()
    if "mask" in lower:
        return sorted(kinds, key=lambda kind: kind.dtype != "bool" and kind.high != 2)
    if any(part in lower for part in _OF_INTEGERS):
        return sorted(kinds, key=lambda kind: not kind.is_integer)
    return list(kinds)


def _outputs(
    model: nn.Module, specs: Iterable[TensorSpec], sizes: Mapping[str, int]
) -> dict[str, Tensor] | None:
    """What the model returns, by names; None where it fails or returns no tensors.

    It is tried on random values, and with the highest of the integers too.
    """
    signature = Signature(tuple(specs), (), {})
    inputs = sample_inputs(signature, sizes, seed=0)
    highest = {
        spec.name: np.full_like(inputs[spec.name], spec.high - 1)
        for spec in signature.inputs
        if spec.high is not None
    }
    try:
        with torch.no_grad():
            if highest:
                model(**_tensors({**inputs, **highest}))
            return dict(named_leaves(model(**_tensors(inputs))))
    except (Exception, SystemExit):  # the model is anybody's code, and this a guess
        return None


def _tensors(inputs: Arrays) -> dict[str, Tensor]:
    return {name: torch.tensor(array) for name, array in inputs.items()}


# Dimensions


def _completed(
    model: nn.Module, specs: list[TensorSpec], sizes: Sizes, until: float
) -> Signature:
    """The signature of a guess that runs: its dimensions and its outputs."""
    dimensions: dict[str, Dimension] = {}
    named = dict.fromkeys(name for spec in specs for name in spec.dynamic_axes.values())
    for name in named:
        dimension = _dimension(model, specs, sizes, name, until)
        if dimension is None:
            specs = [_fixed(spec, name, sizes[name]) for spec in specs]
        else:
            dimensions[name] = dimension
    outputs = _output_specs(model, specs, sizes, dimensions)
    return Signature(tuple(specs), outputs, dimensions)


def _dimension(
    model: nn.Module, specs: Sequence[TensorSpec], sizes: Sizes, name: str, until: float
) -> Dimension | None:
    """The sizes that a dimension may have; None where there is only one."""

    def runs(size: int) -> bool:
        return _outputs(model, specs, {**sizes, name: size}) is not None

    example = sizes[name]
    multiple = next((step for step in (1, *_STEPS) if runs(example + step)), None)
    if multiple is None or example % multiple:
        return None
    below = range(multiple, example + 1, multiple)
    minimum = next((size for size in below if runs(size)), example)
    maximum = _largest(runs, example, multiple, until)
    return Dimension(name, minimum, maximum, example, multiple)


def _largest(runs: Any, example: int, multiple: int, until: float) -> int | None:
    """The largest size; None where none was found that fails, or it takes long."""
    works = example
    while works < example * _FAR:
        started = time.monotonic()
        if not runs(works * 2):
            break
        works *= 2
        if started > until or time.monotonic() - started > 1:
            return None
    else:
        return None
    fails = works * 2
    while fails - works > multiple:
        middle = works + (fails - works) // 2 // multiple * multiple
        middle = max(middle, works + multiple)
        if runs(middle):
            works = middle
        else:
            fails = middle
    return works


def _fixed(spec: TensorSpec, name: str, size: int) -> TensorSpec:
    """A spec with a number in the place of a dimension."""
    shape = tuple(size if axis == name else axis for axis in spec.shape or ())
    return replace(spec, shape=shape)


def _output_specs(
    model: nn.Module,
    specs: Sequence[TensorSpec],
    sizes: Sizes,
    dimensions: Mapping[str, Dimension],
) -> tuple[TensorSpec, ...]:
    """The outputs; their shapes by two runs at sizes that tell dimensions apart."""
    first_sizes, second_sizes = dict(sizes), dict(sizes)
    for number, (name, dimension) in enumerate(dimensions.items()):
        step = dimension.multiple
        first_sizes[name] = dimension.nearest(dimension.example + number * step)
        farther = dimension.example + (2 * number + 1) * step
        second_sizes[name] = dimension.nearest(farther)
    names = {}
    for name in dimensions:
        names[(first_sizes[name], second_sizes[name])] = name
    first = _outputs(model, specs, first_sizes) or _outputs(model, specs, sizes) or {}
    second = _outputs(model, specs, second_sizes) or {}
    taken = {spec.name for spec in specs}
    outputs = []
    for number, (place, tensor) in enumerate(first.items()):
        other = second.get(place)
        shape = None
        if other is not None:
            shape = shape_of_runs(tuple(tensor.shape), tuple(other.shape), names)
        dtype = str(tensor.dtype).removeprefix("torch.")
        name = _output_name(place, number, len(first), taken)
        outputs.append(TensorSpec(name, dtype, shape))
    return tuple(outputs)


def _output_name(place: str, number: int, count: int, taken: set[str]) -> str:
    """A name for an output: its own, where what forward returns has names."""
    name = place.replace(".", "_") if place.replace(".", "").isidentifier() else ""
    if not name:
        name = "output" if count == 1 else f"output_{number}"
    while name in taken:
        name += "_out"
    taken.add(name)
    return name


# As YAML


def signature_yaml(signature: Signature) -> str:
    """A signature as params.yaml holds it, a line for each tensor and dimension."""
    value = signature.to_json()
    lines = []
    for key in ("inputs", "outputs"):
        lines.append(f"{key}:")
        for spec in value[key]:
            if spec["dtype"] == "float32":
                del spec["dtype"]
            lines.append(f"  - {_flow(spec)}")
    if value["dimensions"]:
        lines.append("dimensions:")
    for name, bounds in value["dimensions"].items():
        lines.append(f"  {name}: {_flow(bounds)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        items = [f"{key}: {_flow(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None:
        return "null"
    return str(value)
