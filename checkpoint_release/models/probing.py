"""Which axes of an output follow which dimensions of the inputs, seen from two runs."""

from __future__ import annotations

from collections.abc import Mapping

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
