"""The errors by case and output, and along the longest dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.artifacts.error_tables import (
    FLOOR,
    CaseError,
    PositionError,
)
from checkpoint_release.core.text import printable
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw
from checkpoint_release.report.lines import Axis, line_panel

MOST_COLUMNS = 40
"""Of a heat map; of more outputs, those closest to their limits have one."""
MOST_PANELS = 8
_MOST_POINTS = 400


@dataclass(frozen=True)
class Cell:
    """One output of one format in one case.

    Attributes:
        anchor: of the row that has all its figures.
        error: the figures.
        text: the error in multiples of the noise floor, or as a share of the limit.
        heat: the error as a share of the limit, from 0 to 1.
    """

    anchor: str
    error: CaseError
    text: str
    heat: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.error.share_of_limit <= 1


@dataclass(frozen=True)
class HeatMap:
    """The errors of one format.

    Attributes:
        format: its name.
        outputs: the columns.
        rows: case → cells, one for each column; None where there is no figure.
        worst: the cell that comes closest to its limit.
        left_out: how many outputs have no column.
    """

    format: str
    outputs: list[str]
    rows: dict[str, list[Cell | None]]
    worst: Cell
    left_out: int

    @property
    def cells(self) -> list[Cell]:
        """Those with figures, the closest to their limits first."""
        found = [cell for row in self.rows.values() for cell in row if cell]
        return sorted(found, key=_closeness, reverse=True)


def heat_maps(errors: Sequence[CaseError]) -> list[HeatMap]:
    """A heat map for each format, in the order of the table.

    Args:
        errors: the table of errors by case.
    """
    by_format: dict[str, list[CaseError]] = {}
    for error in errors:
        by_format.setdefault(error.format, []).append(error)
    return [
        _heat_map(place, format, rows)
        for place, (format, rows) in enumerate(by_format.items())
    ]


def _heat_map(place: int, format: str, errors: Sequence[CaseError]) -> HeatMap:
    """The heat map of one format.

    Args:
        place: of the format among the formats.
        format: its name.
        errors: its errors, at least one.
    """
    closest: dict[str, float] = {}
    for error in errors:
        share = closest.get(error.output, 0.0)
        closest[error.output] = max(share, error.share_of_limit)
    ranked = sorted(closest, key=lambda name: -closest[name])[:MOST_COLUMNS]
    outputs = [name for name in closest if name in ranked]
    cells = {}
    for number, error in enumerate(errors):
        cells[error.case, error.output] = Cell(
            anchor=f"error-{place}-{number}",
            error=error,
            text=_text(error),
            heat=min(error.share_of_limit, 1.0),
        )
    rows: dict[str, list[Cell | None]] = {}
    for case in dict.fromkeys(error.case for error in errors):
        rows[case] = [cells.get((case, output)) for output in outputs]
    worst = max(cells.values(), key=_closeness)
    return HeatMap(format, outputs, rows, worst, len(closest) - len(outputs))


def _closeness(cell: Cell) -> tuple[float, float]:
    """How close a cell comes to its limit, to sort by."""
    return cell.error.share_of_limit, cell.error.times_floor or 0.0


def _text(error: CaseError) -> str:
    if error.times_floor is None or error.times_floor >= 100:
        return f"{error.share_of_limit:.0%}"
    return f"{error.times_floor:.2g}×"


def along_picture(errors: Sequence[PositionError]) -> Picture | None:
    """Lines of the error along the longest dimension, a panel for each output.

    Args:
        errors: the table of errors by position.

    Returns:
        None for a model without dynamic dimensions.
    """
    outputs = list(dict.fromkeys(error.output for error in errors))
    if not outputs:
        return None
    formats = list(dict.fromkeys(error.format for error in errors))
    lines = [FLOOR, *(name for name in formats if name != FLOOR)]
    dimension = printable(errors[0].dimension)
    panels = []
    shown = outputs[:MOST_PANELS]
    for output in shown:
        of_output = [error for error in errors if error.output == output]
        x_title = f"position along {dimension}" if output == shown[-1] else None
        panels.append(_panel(output, of_output, lines, x_title))
    left_out = ""
    if len(outputs) > MOST_PANELS:
        left_out = f"; {MOST_PANELS} of {len(outputs)} outputs"
    subtitle = f"root mean square at each position, as a share of the output{left_out}"
    spec = {
        "title": {"text": f"Error along {dimension}", "subtitle": subtitle},
        "vconcat": panels,
        "spacing": 14,
    }
    names = ", ".join(map(printable, shown))
    alt = (
        f"Error along {dimension} of {names}, for {', '.join(lines)}; the largest is"
        f" {max(error.relative_error for error in errors):.1e} of the output."
    )
    return draw(spec, title=f"Error along {dimension}", alt=alt)


def _panel(
    output: str,
    errors: Sequence[PositionError],
    lines: Sequence[str],
    x_title: str | None,
) -> dict[str, Any]:
    """The chart of one output."""
    rows = []
    for error in _largest_of_neighbours(errors):
        if error.relative_error > 0:  # the axis is logarithmic
            rows.append(
                {
                    "position": error.position,
                    "error": error.relative_error,
                    "format": error.format,
                }
            )
    others = theme.colours(line for line in lines if line != FLOOR)
    colours = {FLOOR: theme.FAINT_INK} | others
    return line_panel(
        output,
        rows,
        Axis("position", x_title, scale={"nice": False}, options={"tickCount": 8}),
        Axis("error", scale={"type": "log"}, options={"format": ".0e", "tickCount": 3}),
        line="format",
        colours={line: colours[line] for line in lines},
        width=620,
        height=90,
        stroke=1.25,
        beneath=FLOOR,
    )


def _largest_of_neighbours(errors: Sequence[PositionError]) -> list[PositionError]:
    """Of so many neighbouring positions the largest error, so that no peak is lost."""
    longest = max(error.position for error in errors) + 1
    width = -(-longest // _MOST_POINTS)
    largest: dict[tuple[str, int], PositionError] = {}
    for error in errors:
        key = (error.format, error.position // width)
        if key not in largest or error.relative_error > largest[key].relative_error:
            largest[key] = error
    return list(largest.values())
