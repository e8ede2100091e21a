"""What a model gives: names, dtypes, and sizes as what follows from the inputs'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from torch import Tensor

from checkpoint_release.core.signature import Dimension, TensorSpec, resolve_size
from checkpoint_release.core.size_expressions import size_text
from checkpoint_release.drafting.trials import Outputs, Sizes, Specs, Trials


def output_specs(
    trials: Trials, specs: Specs, dimensions: Mapping[str, Dimension]
) -> tuple[TensorSpec, ...]:
    """The outputs, in order.

    Each dimension is varied by itself, and what an axis grows by is its factor. A shape
    that the smallest sizes, or larger ones, give otherwise isn't stated.

    Args:
        trials: of the model.
        specs: of its inputs.
        dimensions: of these.
    """
    example = {name: each.example for name, each in dimensions.items()}
    first = trials.outputs(specs, example) or {}
    varied = {
        name: trials.outputs(specs, example | {name: _neighbour(dimension)})
        for name, dimension in dimensions.items()
    }
    smallest = {name: each.minimum for name, each in dimensions.items()}
    larger = {name: _farther(each) for name, each in dimensions.items()}
    checked = [(sizes, trials.outputs(specs, sizes)) for sizes in (smallest, larger)]

    taken = {spec.name for spec in specs}
    found = []
    for number, (place, tensor) in enumerate(first.items()):
        name = _name(place, number, len(first), taken)
        shape = _shape(place, tensor, varied, dimensions)
        if shape is not None and not _holds(place, shape, checked):
            shape = None
        dtype = str(tensor.dtype).removeprefix("torch.")
        found.append(TensorSpec(name, dtype, shape))
    return tuple(found)


def _neighbour(dimension: Dimension) -> int:
    """The next size, or the one before where the example is the largest."""
    size = dimension.example + dimension.multiple
    return size if dimension.allows(size) else dimension.example - dimension.multiple


def _farther(dimension: Dimension) -> int:
    """A larger size, if there is one."""
    return dimension.nearest(dimension.example + 3 * dimension.multiple)


def _shape(
    place: str,
    tensor: Tensor,
    varied: Mapping[str, Outputs | None],
    dimensions: Mapping[str, Dimension],
) -> tuple[int | str, ...] | None:
    """The shape of an output; None where its sizes follow in no such way.

    Args:
        place: where it stands in what forward returns.
        tensor: it, at the sizes of the examples.
        varied: dimension → what the model gave where that alone was another.
        dimensions: of the inputs.
    """
    growth: dict[str, list[Fraction]] = {}
    for name, outputs in varied.items():
        other = (outputs or {}).get(place)
        if other is None or other.ndim != tensor.ndim:
            return None
        step = _neighbour(dimensions[name]) - dimensions[name].example
        pairs = zip(other.shape, tensor.shape, strict=True)
        growth[name] = [Fraction(new - old, step) for new, old in pairs]
    shape = []
    for axis, size in enumerate(tensor.shape):
        factors = {name: each[axis] for name, each in growth.items() if each[axis]}
        axis_size = _size(size, factors, dimensions)
        if axis_size is None:
            return None
        shape.append(axis_size)
    return tuple(shape)


def _size(
    size: int, factors: Mapping[str, Fraction], dimensions: Mapping[str, Dimension]
) -> int | str | None:
    """A size as what it follows from; None where it can't be written so."""
    if not factors:
        return size
    offset = Fraction(size)
    for name, factor in factors.items():
        if factor < 0:
            return None
        offset -= factor * dimensions[name].example
    return None if offset.denominator > 1 else size_text(factors, int(offset))


def _holds(
    place: str,
    shape: Sequence[int | str],
    checked: Sequence[tuple[Sizes, Outputs | None]],
) -> bool:
    """Whether an output has this shape at other sizes, as far as the model runs there.

    Args:
        place: where it stands in what forward returns.
        shape: as it was found.
        checked: sizes, and what the model gave.
    """
    for sizes, outputs in checked:
        if outputs is None:
            continue
        tensor = outputs.get(place)
        expected = [resolve_size(size, sizes) for size in shape]
        if tensor is None or list(tensor.shape) != expected:
            return False
    return True


def _name(place: str, number: int, count: int, taken: set[str]) -> str:
    """A name for an output: its own, where what forward returns has names."""
    name = place.replace(".", "_") if place.replace(".", "").isidentifier() else ""
    if not name:
        name = "output" if count == 1 else f"output_{number}"
    while name in taken:
        name += "_out"
    taken.add(name)
    return name
