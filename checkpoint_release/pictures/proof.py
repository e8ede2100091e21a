"""The proof in one picture: how far each output of each format is off, and how far it
may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.artifacts.parity import (
    FormatFigures,
    OutputFigures,
    ParityReport,
)
from checkpoint_release.core.text import printable
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw

MOST_OUTPUTS = 25
"""Of more outputs, those that come closest to their limits are shown."""
WIDTH = 460
_LONGEST_NAME = 40
_BAR = 13  # pixels for each format
_LINEAR_UP_TO = 30  # times the floor; beyond it the axis is logarithmic
_TITLE = "Error against the checkpoint's own model in float64"


@dataclass(frozen=True)
class Unit:
    """What errors are measured in.

    Attributes:
        sign: after a number.
        words: after a sign, in a sentence.
        axis: as an axis has it.
    """

    sign: str
    words: str
    axis: str


FLOORS = Unit("×", "the noise floor", "times the noise floor")
PERCENT = Unit("%", "of the output", "% of the output")


@dataclass(frozen=True)
class Bar:
    """The largest error of one output of one format.

    Attributes:
        output, format: their names.
        error: in multiples of the noise floor, or as a percentage of the output.
        limit: of the error.
    """

    output: str
    format: str
    error: float
    limit: float

    @property
    def share(self) -> float:
        """The error as a share of what is allowed."""
        return self.error / (self.limit or 1.0)


def proof_picture(report: ParityReport) -> Picture:
    """Errors by output and format as bars, each with its limit.

    Formats in reduced precision are held to a share of the output and not to the noise
    floor, so they have a part of the picture of their own.

    Args:
        report: of the parity check, with at least one format that ran.
    """
    in_floors, in_shares = list(_floors(report)), list(_shares(report))
    panels, sentences = [], []
    colours = theme.colours(report.formats)
    for bars, unit in ((in_floors, FLOORS), (in_shares, PERCENT)):
        if bars:
            panels.append(_panel(bars, unit, colours))
            sentences.append(_in_words(bars, unit))
    return draw(
        {
            "title": {"text": _TITLE, "subtitle": _subtitle(report)},
            "vconcat": panels,
            "spacing": 28,
            "resolve": {"scale": {"color": "independent", "yOffset": "independent"}},
        },
        title=_TITLE,
        alt=" ".join(["Largest error of each format.", *sentences]),
    )


def _subtitle(report: ParityReport) -> list[str]:
    """What is drawn, a line each."""
    lines = [
        f"the largest of {report.rule.cases} cases; the noise floor is what eager"
        " float32 itself errs by",
        "red: the limit",
    ]
    outputs = _largest_shares(report.formats)
    if len(outputs) > MOST_OUTPUTS:
        lines.append(
            f"{MOST_OUTPUTS} of {len(outputs)} outputs: those closest to their limits"
        )
    return lines


# ------------------------------------------------------------------------------
# Figures


def _floors(report: ParityReport) -> Iterator[Bar]:
    """The errors that are measured in multiples of the noise floor."""
    for output, format, figures in _figures(report):
        if figures.times_floor is not None:
            yield Bar(output, format, figures.times_floor, figures.limit)


def _shares(report: ParityReport) -> Iterator[Bar]:
    """The errors that are measured as shares of the output, in percent."""
    for output, format, figures in _figures(report):
        if figures.share_of_output is not None:
            share, limit = figures.share_of_output, figures.limit
            yield Bar(output, format, 100 * share, 100 * limit)


def _figures(report: ParityReport) -> Iterator[tuple[str, str, OutputFigures]]:
    """Output, format and figures, of the outputs that are shown."""
    shown = _shown(report.formats)
    for output in shown:
        for format, figures in report.formats.items():
            if output in figures.outputs:
                yield output, format, figures.outputs[output]


def _shown(formats: Mapping[str, FormatFigures]) -> list[str]:
    """The names of the outputs to draw, in the model's order."""
    shares = _largest_shares(formats)
    closest = sorted(shares, key=lambda name: shares[name], reverse=True)
    return [name for name in shares if name in closest[:MOST_OUTPUTS]]


def _largest_shares(formats: Mapping[str, FormatFigures]) -> dict[str, float]:
    """Output → its error as a share of its limit, in the format where that is most."""
    shares: dict[str, float] = {}
    for figures in formats.values():
        for name, output in figures.outputs.items():
            shares[name] = max(shares.get(name, 0.0), output.share_of_limit)
    return shares


def _in_words(bars: Sequence[Bar], unit: Unit) -> str:
    """The bars as a sentence: of each format the output that is furthest off."""
    worst: dict[str, Bar] = {}
    for bar in bars:
        if bar.format not in worst or bar.share > worst[bar.format].share:
            worst[bar.format] = bar
    parts = []
    for format, bar in worst.items():
        output = printable(bar.output, _LONGEST_NAME)
        parts.append(f"{format} {bar.error:.2g}{unit.sign} {unit.words} in {output}")
    limits = sorted({bar.limit for bar in bars})
    allowed = f"{limits[0]:g}{unit.sign}"
    if len(limits) > 1:
        allowed += f" to {limits[-1]:g}{unit.sign}"
    return f"{', '.join(parts)}; the limit is {allowed}."


# ------------------------------------------------------------------------------
# The chart


def _panel(
    bars: Sequence[Bar], unit: Unit, colours: Mapping[str, str]
) -> dict[str, Any]:
    """A chart of bars that share a unit.

    Args:
        bars: at least one.
        unit: of the errors and their limits.
        colours: format → its colour.
    """
    formats = list(dict.fromkeys(bar.format for bar in bars))
    return {
        "data": {"values": [_row(bar, unit) for bar in bars]},
        "width": WIDTH,
        "height": {"step": _height(formats), "for": "position"},
        "encoding": {"y": _outputs()},
        "layer": [
            _bars(formats, colours, _axis(bars, unit)),
            _labels(formats),
            _limits(bars, formats),
            *_limit_label(bars, unit),
        ],
    }


def _row(bar: Bar, unit: Unit) -> dict[str, Any]:
    """The datum of a bar."""
    return {
        "output": printable(bar.output),
        "format": bar.format,
        "error": bar.error,
        "limit": bar.limit,
        "label": f"{bar.error:.2g}{unit.sign}",
    }


def _outputs() -> dict[str, Any]:
    return {
        "field": "output",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"domain": False, "ticks": False, "labelPadding": 8},
        "scale": {"paddingInner": 0.2, "paddingOuter": 0.1},
    }


def _lane(formats: Sequence[str]) -> dict[str, Any]:
    """The place of a format within its output."""
    return {"field": "format", "type": "nominal", "sort": list(formats)}


def _axis(bars: Sequence[Bar], unit: Unit) -> dict[str, Any]:
    """The errors' axis: linear where bars can be told apart on it."""
    largest = max(max(bar.error, bar.limit) for bar in bars)
    scale: dict[str, Any] = {"domain": [0, largest * 1.12], "nice": False}
    if largest > _LINEAR_UP_TO:
        scale |= {"type": "symlog"}
    return {
        "field": "error",
        "type": "quantitative",
        "title": f"largest error, {unit.axis}",
        "scale": scale,
        "axis": {"tickCount": 6, "domain": False, "ticks": False},
    }


def _bars(
    formats: Sequence[str], colours: Mapping[str, str], x: Mapping[str, Any]
) -> dict[str, Any]:
    """A bar for each output and format."""
    colour = {
        "field": "format",
        "type": "nominal",
        "title": None,
        "scale": {
            "domain": list(formats),
            "range": [colours[name] for name in formats],
        },
    }
    return {
        "mark": {"type": "bar"},
        "encoding": {"x": x, "yOffset": _lane(formats), "color": colour},
    }


def _labels(formats: Sequence[str]) -> dict[str, Any]:
    """The figures at the ends of the bars."""
    return {
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "middle",
            "dx": 4,
            "fontSize": 10,
            "color": theme.INK,
        },
        "encoding": {
            "x": {"field": "error", "type": "quantitative"},
            "yOffset": _lane(formats),
            "text": {"field": "label"},
        },
    }


def _limits(bars: Sequence[Bar], formats: Sequence[str]) -> dict[str, Any]:
    """Strokes at the limits: one line if all are equal, otherwise one for each bar."""
    encoding: dict[str, Any] = {"x": {"field": "limit", "type": "quantitative"}}
    length = _height(formats)
    if _common_limit(bars) is None:
        encoding["yOffset"] = _lane(formats)
        length = _BAR
    stroke = {"type": "tick", "color": theme.LIMIT, "thickness": 2, "opacity": 1}
    return {"mark": {**stroke, "size": length}, "encoding": encoding}


def _common_limit(bars: Sequence[Bar]) -> float | None:
    """The limit of all bars; None: they differ."""
    limits = {bar.limit for bar in bars}
    return limits.pop() if len(limits) == 1 else None


def _height(formats: Sequence[str]) -> int:
    """Pixels for one output."""
    return _BAR * len(formats) + 8


def _limit_label(bars: Sequence[Bar], unit: Unit) -> list[dict[str, Any]]:
    """A layer that states the limit above its line; none where limits differ."""
    limit = _common_limit(bars)
    if limit is None:
        return []
    text = {
        "type": "text",
        "align": "center",
        "baseline": "bottom",
        "fontSize": 11,
        "fontWeight": "bold",
        "color": theme.LIMIT,
    }
    return [
        {
            "data": {"values": [{"limit": limit}]},
            "mark": {**text, "text": f"limit {limit:g}{unit.sign}"},
            "encoding": {
                "x": {"field": "limit", "type": "quantitative"},
                "y": {"value": -3},
            },
        }
    ]
