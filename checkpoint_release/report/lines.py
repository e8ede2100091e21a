"""A panel of lines, as charts along positions and steps are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from checkpoint_release.core.text import printable

_BARE = {"domain": False, "ticks": False}
_BROAD = {"strokeWidth": 5, "strokeJoin": "round", "opacity": 0.35}


@dataclass(frozen=True)
class Axis:
    """An axis of numbers.

    Attributes:
        column: of the rows.
        title: None: it has none.
        scale: as Vega-Lite has it.
        options: of its labels and ticks, likewise.
    """

    column: str
    title: str | None = None
    scale: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def encoding(self, **options: Any) -> dict[str, Any]:
        """The axis as Vega-Lite has it.

        Args:
            options: further ones.
        """
        return {
            "field": self.column,
            "type": "quantitative",
            "title": self.title,
            "scale": dict(self.scale),
            "axis": {**_BARE, **options, **self.options},
        }


def line_panel(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    x: Axis,
    y: Axis,
    *,
    line: str,
    colours: Mapping[str, str],
    width: int,
    height: int,
    stroke: float,
    beneath: str | None = None,
    **colour: Any,
) -> dict[str, Any]:
    """A chart of lines that share their axes.

    Args:
        name: of what is drawn.
        rows: the points.
        x, y: the axes.
        line: the field that names a point's line.
        colours: line → its colour, in the order of the legend.
        width, height, stroke: in pixels.
        beneath: a line that is broad, and that the others lie on; None: there is none.
        colour: what else Vega-Lite is to do with the colours, such as their legend.
    """
    scale = {"domain": list(colours), "range": list(colours.values())}
    is_beneath = f"datum[{json.dumps(line)}] === {json.dumps(beneath)}"
    others = {
        "transform": [{"filter": f"!({is_beneath})"}],
        "mark": {"type": "line", "strokeWidth": stroke},
    }
    broad = {
        "transform": [{"filter": is_beneath}],
        "mark": {"type": "line", **_BROAD},
    }
    return {
        "data": {"values": list(rows)},
        "title": {"text": printable(name), "fontSize": 12, "offset": 4},
        "width": width,
        "height": height,
        "layer": [broad, others] if beneath else [others],
        "encoding": {
            "x": x.encoding(grid=False),
            "y": y.encoding(),
            "color": {
                "field": line,
                "type": "nominal",
                "title": None,
                "scale": scale,
                **colour,
            },
        },
    }
