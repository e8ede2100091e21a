"""How large each format is, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.text import human_size, printable
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw

WIDTH = 460
HEIGHT = 260
_SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
_LINEAR_UP_TO = 20  # times the smallest; beyond it an axis is logarithmic
_TITLE = "Size against latency"


@dataclass(frozen=True)
class Point:
    """One way to run the model.

    Attributes:
        way: its name.
        size: of its files, in bytes.
        median_ms, p95_ms: of its calls, in milliseconds.
    """

    way: str
    size: int
    median_ms: float
    p95_ms: float


def latency_picture(points: Sequence[Point], about: str) -> Picture:
    """A mark for each way, and from it a line up to its 95th percentile.

    Args:
        points: at least one.
        about: what was measured, and on which machine.
    """
    listed = []
    for point in points:
        listed.append(
            f"{point.way} {human_size(point.size)}, {point.median_ms:g} ms (95 of 100"
            f" calls within {point.p95_ms:g} ms)"
        )
    return draw(
        _spec(points, printable(about)),
        title=_TITLE,
        alt=f"{_TITLE} of {printable(about)}: {'; '.join(listed)}.",
    )


def _spec(points: Sequence[Point], about: str) -> dict[str, Any]:
    rows = []
    for point in points:
        rows.append(
            {
                "way": point.way,
                "megabytes": point.size / 1e6,
                "median": point.median_ms,
                "p95": point.p95_ms,
            }
        )
    ways = [point.way for point in points]
    marks = {
        "field": "way",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ways},
    }
    colours = list(theme.colours(ways).values())
    colour = marks | {"scale": {"domain": ways, "range": colours}}
    shapes = [_SHAPES[number % len(_SHAPES)] for number in range(len(ways))]
    shape = marks | {"scale": {"domain": ways, "range": shapes}}
    return {
        "data": {"values": rows},
        "title": {
            "text": _TITLE,
            "subtitle": [about, "mark: the median; line: up to the 95th percentile"],
        },
        "width": WIDTH,
        "height": HEIGHT,
        "encoding": {
            "x": _axis("megabytes", "megabytes", [each.size / 1e6 for each in points]),
            "color": colour,
        },
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.55},
                "encoding": {
                    "y": _axis("median", "milliseconds", _heights(points)),
                    "y2": {"field": "p95"},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 110, "opacity": 0.9},
                "encoding": {
                    "y": _axis("median", "milliseconds", _heights(points)),
                    "shape": shape,
                },
            },
        ],
    }


def _heights(points: Sequence[Point]) -> list[float]:
    return [value for point in points for value in (point.median_ms, point.p95_ms)]


def _axis(field: str, title: str, values: Sequence[float]) -> dict[str, Any]:
    """An axis that begins at 0, or a logarithmic one where values are far apart."""
    largest, smallest = max(values), min(values)
    scale: dict[str, Any] = {"domain": [0, largest * 1.1 or 1.0], "nice": False}
    if smallest > 0 and largest / smallest > _LINEAR_UP_TO:
        domain = [smallest / 1.5, largest * 1.5]
        scale = {"type": "log", "domain": domain, "nice": False}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": scale,
        "axis": {"tickCount": 6, "domain": False, "ticks": False, "format": "~g"},
    }
