"""What a model gives, seen from two runs: which axes of an output follow which
dimensions of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.errors import ModelError, one_line
from checkpoint_release.core.signature import Dimension, TensorSpec, resolve_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = tuple[int, ...]


def shape_of_runs(
    first: Shape, second: Shape, names: Mapping[tuple[int, int], str]
) -> tuple[int | str, ...] | None:
    """The shape that two runs show; None where an axis changed as no input did.

    Args:
        first, second: what the runs gave.
        names: sizes in the two runs → dimension.
    """
    if len(first) != len(second):
        return None
    shape: list[int | str] = []
    for sizes in zip(first, second, strict=True):
        if sizes[0] != sizes[1] and sizes not in names:
            return None
        shape.append(names.get(sizes, sizes[0]))
    return tuple(shape)


def probed_outputs(
    model: nn.Module,
    inputs: tuple[TensorSpec, ...],
    dimensions: Mapping[str, Dimension],
) -> tuple[TensorSpec, ...]:
    """The outputs of a library's model, by two runs on zeros.

    Args:
        model: in evaluation mode, also on torch's meta device, which computes shapes
            and no values.
        inputs: what it takes; masks change no shape and are left out.
        dimensions: of the inputs.

    Raises:
        ModelError: forward fails, or returns no tensors.
    """
    sizes = [_sizes(dimensions, run) for run in range(2)]
    first, second = (_run(model, inputs, each) for each in sizes)
    if not first or first.keys() != second.keys():
        raise ModelError(
            f"{type(model).__name__} returned {sorted(first)}, and {sorted(second)} for"
            " other sizes",
            "state {model.signature} with a {model.factory} of your own",
            options=["model.signature", "model.factory"],
        )
    names = {(sizes[0][name], sizes[1][name]): name for name in dimensions}
    taken = {spec.name for spec in inputs}
    specs = []
    for place, tensor in first.items():
        shape = shape_of_runs(tuple(tensor.shape), tuple(second[place].shape), names)
        dtype = str(tensor.dtype).removeprefix("torch.")
        name = f"{place}_out" if place in taken else place
        specs.append(TensorSpec(name, dtype, shape))
    return tuple(specs)


def _sizes(dimensions: Mapping[str, Dimension], run: int) -> dict[str, int]:
    """Dimension → size in one of the two runs, within its bounds.

    No two dimensions have the same sizes in both.
    """
    sizes: dict[str, int] = {}
    for number, dimension in enumerate(dimensions.values()):
        step = dimension.multiple
        wanted = dimension.nearest(2 + 7 * number) + (3 + number) * step * run
        largest = wanted if dimension.maximum is None else dimension.maximum
        sizes[dimension.name] = min(wanted, largest - (1 - run) * step)
    return sizes


def _run(
    model: nn.Module, inputs: tuple[TensorSpec, ...], sizes: Mapping[str, int]
) -> dict[str, Tensor]:
    """What forward returned for zeros: name → tensor, nested ones numbered.

    Raises:
        ModelError: forward fails.
    """
    import torch

    device = next(model.parameters()).device
    arguments = {}
    for spec in inputs:
        if "mask" not in spec.name:
            dtype, shape = getattr(torch, spec.dtype), resolve_shape(spec, sizes)
            arguments[spec.name] = torch.zeros(shape, dtype=dtype, device=device)
    try:
        with torch.no_grad():
            returned = model(**arguments)
    except Exception as error:  # whatever a model of the library may raise
        raise ModelError(
            f"{type(model).__name__} fails on inputs of the shapes that its"
            f" configuration states: {type(error).__name__}: {one_line(error, 300)}",
            "correct the configuration, or choose {model.inputs}",
            options=["model.inputs"],
        ) from error
    return dict(_tensors(returned, ""))


def _tensors(value: Any, place: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors in a nest of mappings and sequences, by joined names."""
    import torch

    if isinstance(value, torch.Tensor):
        yield place, value
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _tensors(member, f"{place}_{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, member in enumerate(value):
            yield from _tensors(member, f"{place}_{number}" if place else str(number))
