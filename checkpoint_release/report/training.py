"""Curves of training: from the checkpoint's own facts, or a table beside it."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoint_release.core.text import printable
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw
from checkpoint_release.report.lines import Axis, line_panel

Curve = Sequence[float]
SUFFIX = "-history.csv"
"""Of the table beside a checkpoint: model.pth has model-history.csv."""
_SPLITS = ("train", "val", "valid", "validation", "eval", "test")
_STEPS = ("epoch", "step", "global_step", "iteration", "iter")
_SHORTEST = 3  # points that make a curve
_MOST_CURVES = 24
_MOST_POINTS = 500
_MOST_ROWS = 1_000_000
_DECADES = 1.5  # a larger range has a logarithmic axis


def history_beside(checkpoint: Path) -> Path:
    """Where the table of a checkpoint's training is looked for."""
    return checkpoint.with_name(f"{checkpoint.stem}{SUFFIX}")


def curves_of_facts(training: Mapping[str, Any]) -> dict[str, Curve]:
    """The lists of numbers among the facts, and the columns of lists of records.

    Args:
        training: nested facts, as checkpoint.json holds them.

    Returns:
        Dotted name → values in their order.
    """
    found: dict[str, Curve] = {}
    for name, value in _lists(training):
        if all(map(_is_number, value)):
            found[name] = [float(item) for item in value]
        elif all(isinstance(item, Mapping) for item in value):
            for key in value[0]:
                column = [item.get(key) for item in value]
                if all(map(_is_number, column)):
                    found[f"{name}.{key}"] = [float(item) for item in column]
    return dict(list(found.items())[:_MOST_CURVES])


def _lists(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name and content of the lists that are long enough for a curve."""
    for name, value in values.items():
        if isinstance(value, Mapping) and not prefix.count("."):
            yield from _lists(value, f"{prefix}{name}.")
        elif isinstance(value, list) and len(value) >= _SHORTEST:
            yield f"{prefix}{name}", value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def curves_of_table(path: Path) -> dict[str, Curve]:
    """The columns of a CSV file that hold numbers throughout.

    Args:
        path: of the file.

    Returns:
        Name of the column → values; nothing where there is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [row for row, _ in zip(reader, range(_MOST_ROWS), strict=False)]
    except (OSError, ValueError, csv.Error):
        return {}
    if len(rows) < _SHORTEST or any(len(row) != len(header) for row in rows):
        return {}
    found: dict[str, Curve] = {}
    for name, column in zip(header, zip(*rows, strict=True), strict=True):
        values = _numbers(column)
        if values is not None:
            found[name] = values
    return dict(list(found.items())[:_MOST_CURVES])


def _numbers(cells: Sequence[str]) -> Curve | None:
    """The cells as numbers; None where one isn't a finite number."""
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def training_picture(curves: Mapping[str, Curve]) -> Picture | None:
    """The curves, those of one measure on several data sets together.

    Args:
        curves: name → values. One that counts steps is the axis of those as long.

    Returns:
        None where there is none to draw.
    """
    step = next((name for name in curves if name.lower() in _STEPS), None)
    measures: dict[str, list[dict[str, Any]]] = {}
    for name, values in curves.items():
        if name == step:
            continue
        along = curves[step] if step else []
        if len(along) != len(values):
            along = list(range(len(values)))
        split, measure = _split(name)
        rows = measures.setdefault(measure, [])
        for x, y in _thinned(list(zip(along, values, strict=True))):
            rows.append({"x": x, "y": y, "line": split})
    if not measures:
        return None
    panels = [_panel(name, rows, step) for name, rows in measures.items()]
    spec = {
        "title": {"text": "Training"},
        "concat": panels,
        "columns": 2,
        "spacing": 24,
        "resolve": {"scale": {"color": "independent"}},
    }
    alt = f"Curves of training: {', '.join(map(printable, measures))}."
    return draw(spec, title="Training", alt=alt)


def _split(name: str) -> tuple[str, str]:
    """The data set and the measure that a name states: val_loss is (val, loss)."""
    parent, _, own = name.rpartition(".")
    split, underscore, rest = own.partition("_")
    if underscore and split in _SPLITS:
        measure = f"{parent}.{rest}" if parent else rest
        return split, measure
    return own, name


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so many of the points, and the last."""
    step = -(-len(points) // _MOST_POINTS)
    return [*points[:-1:step], points[-1]]


def _panel(name: str, rows: list[dict[str, Any]], step: str | None) -> dict[str, Any]:
    """A chart of one measure."""
    values = [row["y"] for row in rows]
    lines = list(dict.fromkeys(row["line"] for row in rows))
    scale: dict[str, Any] = {"zero": False}
    ticks: dict[str, Any] = {"labelOverlap": True, "tickCount": 4, "format": "~g"}
    if min(values) > 0 and math.log10(max(values) / min(values)) > _DECADES:
        scale = {"type": "log"}
        ticks["values"] = _decades(min(values), max(values))
    return line_panel(
        name,
        rows,
        Axis("x", step or "entry", options={"labelOverlap": True, "tickCount": 5}),
        Axis("y", scale=scale, options=ticks),
        line="line",
        colours=theme.colours(lines),
        width=290,
        height=130,
        stroke=1.75,
        legend={"orient": "top"} if len(lines) > 1 else None,
    )


def _decades(low: float, high: float) -> list[float]:
    """The powers of ten from the one below to the one above."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**exponent for exponent in range(first, last + 1)]
