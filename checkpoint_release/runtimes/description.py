"""A model's inputs and outputs as a text for people."""

from __future__ import annotations

from checkpoint_release.core.signature import Dimension, Signature, TensorSpec
from checkpoint_release.core.text import printable


def describe(signature: Signature) -> str:
    """A model's signature as a text for people.

    Args:
        signature: of an opened model.

    Returns:
        Sections with the inputs, outputs and dynamic dimensions, one a line, in
        columns; a section without rows is left out. Names that the file's author chose
        are escaped where they have no visible form.
    """
    inputs = [_tensor_row(spec) for spec in signature.inputs]
    outputs = [_tensor_row(spec) for spec in signature.outputs]
    dimensions = [_dimension_row(each) for each in signature.dimensions.values()]
    lines = [
        *_section("inputs", inputs),
        *_section("outputs", outputs),
        *_section("dimensions", dimensions),
    ]
    return "\n".join(lines)


def _tensor_row(spec: TensorSpec) -> list[str]:
    """The cells of an input or output.

    Returns:
        Name, dtype, shape, range of values, description; "" for what is unknown.
    """
    shape = ""
    if spec.shape is not None:
        shape = f"[{', '.join(map(str, spec.shape))}]"
    return [spec.name, spec.dtype, shape, spec.range_text, spec.description]


def _dimension_row(dimension: Dimension) -> list[str]:
    """Name, bounds and example."""
    return [dimension.name, dimension.bounds, f"for example {dimension.example}"]


def _section(title: str, rows: list[list[str]]) -> list[str]:
    """A titled section, in columns that are as wide as their longest cell.

    Args:
        title: its first line.
        rows: cells, as many in each row.

    Returns:
        Its lines; none where there are no rows.
    """
    if not rows:
        return []
    visible = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*visible, strict=True)]
    lines = [title]
    for row in visible:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines
