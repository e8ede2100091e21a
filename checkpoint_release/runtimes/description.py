"""A model's inputs and outputs as a text for people."""

from __future__ import annotations

from checkpoint_release.core.signature import Dimension, Signature, TensorSpec


def describe(signature: Signature) -> str:
    """The inputs, outputs and dynamic dimensions, one a line, in columns."""
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
    """Name, dtype, shape, range of integers, description; "" for what is unknown."""
    shape = f"[{', '.join(map(str, spec.shape))}]" if spec.shape is not None else ""
    values = f"{spec.low} to {spec.high - 1}" if spec.high is not None else ""
    return [spec.name, spec.dtype, shape, values, spec.description]


def _dimension_row(dimension: Dimension) -> list[str]:
    """Name, bounds and example."""
    return [dimension.name, dimension.bounds, f"for example {dimension.example}"]


def _section(title: str, rows: list[list[str]]) -> list[str]:
    """The lines of a titled section, in columns; none where there are no rows.

    Args:
        title: its first line.
        rows: cells, as many in each row.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [title]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"  {'  '.join(cells)}".rstrip())
    return lines
