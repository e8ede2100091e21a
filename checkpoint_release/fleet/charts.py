"""Line charts as SVG, without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 42
_COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d")
_DASHES = ("", "6 3", "2 3")
_MOST_MARKS = 80  # on a line; more would hide it

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart of one figure.

    Attributes:
        title: what is shown, with its unit.
        x: what the horizontal axis is.
        lines: name → (x, y) in the order of x.
        limit: of the figure, drawn as a line; None: it has none.
    """

    title: str
    x: str
    lines: Mapping[str, Points]
    limit: float | None = None

    def svg(self) -> str:
        """The chart as an element of a page."""
        points = [point for line in self.lines.values() for point in line]
        xs = [x for x, _ in points]
        ys = [y for _, y in points]
        if self.limit is not None:
            ys.append(self.limit)
        scale = _Scale(_Range.of(xs, zero=False), _Range.of(ys, zero=min(ys) >= 0))
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            f' aria-label="{escape(self.title)}">',
            f'<text class="title" x="{_LEFT}" y="16">{escape(self.title)}</text>',
            *scale.grid(self.x),
        ]
        if self.limit is not None:
            parts.append(_limit(scale, self.limit))
        for place, (name, line) in enumerate(self.lines.items()):
            parts += _line(scale, place, name, line)
        return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True)
class _Range:
    """An axis from low to high, with ticks at round numbers."""

    low: float
    high: float
    step: float

    @classmethod
    def of(cls, values: Sequence[float], *, zero: bool) -> _Range:
        """The range of values; from zero, where that is asked for."""
        low, high = min(values), max(values)
        if zero:
            low = 0.0
        if high <= low:
            high = low + (abs(low) or 1.0)
        rough = (high - low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(each * power for each in (1, 2, 5, 10) if each * power >= rough)
        return cls(math.floor(low / step) * step, math.ceil(high / step) * step, step)

    @property
    def ticks(self) -> list[float]:
        """Values that get a label."""
        count = round((self.high - self.low) / self.step)
        return [self.low + place * self.step for place in range(count + 1)]


@dataclass(frozen=True)
class _Scale:
    """Figures → places in the picture."""

    x: _Range
    y: _Range

    def left(self, value: float) -> float:
        share = (value - self.x.low) / (self.x.high - self.x.low)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def top(self, value: float) -> float:
        share = (value - self.y.low) / (self.y.high - self.y.low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)

    def grid(self, name: str) -> list[str]:
        """Lines and labels of both axes."""
        parts = []
        for tick in self.y.ticks:
            top = self.top(tick)
            parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{top}"'
                f' y2="{top}"/><text class="tick" text-anchor="end" x="{_LEFT - 6}"'
                f' y="{top + 4}">{tick:.4g}</text>'
            )
        for tick in self.x.ticks:
            parts.append(
                f'<text class="tick" text-anchor="middle" x="{self.left(tick)}"'
                f' y="{HEIGHT - _BOTTOM + 16}">{tick:.6g}</text>'
            )
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{(WIDTH + _LEFT) / 2}"'
            f' y="{HEIGHT - 8}">{escape(name)}</text>'
        )
        return parts


def _limit(scale: _Scale, limit: float) -> str:
    top = scale.top(limit)
    return (
        f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{top}"'
        f' y2="{top}"><title>what is allowed: {limit:g}</title></line>'
    )


def colour(place: int) -> str:
    """Of the line at a place."""
    return _COLOURS[place % len(_COLOURS)]


def dashes(place: int) -> str:
    """Of the line at a place, as SVG has them: colours repeat, with other dashes."""
    return _DASHES[place // len(_COLOURS) % len(_DASHES)]


def _line(scale: _Scale, place: int, name: str, line: Points) -> list[str]:
    places = [(scale.left(x), scale.top(y)) for x, y in line]
    joined = " ".join(f"{left},{top}" for left, top in places)
    style = f'stroke="{colour(place)}" stroke-dasharray="{dashes(place)}"'
    parts = [f'<polyline class="line" points="{joined}" {style}/>']
    if len(line) > _MOST_MARKS:
        return parts
    for (x, y), (left, top) in zip(line, places, strict=True):
        parts.append(
            f'<circle cx="{left}" cy="{top}" r="3" fill="{colour(place)}">'
            f"<title>{escape(name)} {x:g}: {y:.6g}</title></circle>"
        )
    return parts


def legend(names: Sequence[str]) -> str:
    """Which line is which."""
    items = []
    for place, name in enumerate(names):
        sample = (
            '<svg viewBox="0 0 26 8" class="sample"><line x1="0" x2="26" y1="4" y2="4"'
            f' stroke="{colour(place)}" stroke-width="2.5"'
            f' stroke-dasharray="{dashes(place)}"/></svg>'
        )
        items.append(f"<span>{sample} {escape(name)}</span>")
    return f'<p class="legend">{" ".join(items)}</p>'
