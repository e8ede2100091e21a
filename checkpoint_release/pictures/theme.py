"""How pictures look: one font, and colours that the colour-blind can tell apart, each
with a counterpart for readers of dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from typing import Any

FONT = "Liberation Sans"
"""Text is measured with it: the renderer brings it along, so that no machine's own
fonts move anything. Where it isn't installed, viewers take their sans-serif.
"""
FONT_STACK = f"{FONT}, Arial, Helvetica, sans-serif"

PAPER = "#ffffff"
INK = "#1f2328"
FAINT_INK = "#59636e"
GRID = "#dfe3e8"
LIMIT = "#c2410c"

SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d3b", "#5b5fc7")
"""The colours of formats and lines, in their order.

Source: Okabe and Ito, "Color Universal Design", 2008; without the yellow, which is too
light for lines, and the red, which is the limit's.
"""

DARK = {
    PAPER: "#0d1117",
    INK: "#e6edf3",
    FAINT_INK: "#9198a1",
    GRID: "#30363d",
    LIMIT: "#ff8a5c",
    SERIES[0]: "#4da3e0",
    SERIES[1]: "#f0b429",
    SERIES[2]: "#2fbf98",
    SERIES[3]: "#dd94bf",
    SERIES[4]: "#7cc7f0",
    SERIES[5]: "#c0a16b",
    SERIES[6]: "#9a9df0",
}
"""Colour → what it is on a dark page."""


def colours(names: Iterable[str]) -> dict[str, str]:
    """Name → its colour; of more names than colours, some share one."""
    return dict(zip(names, cycle(SERIES), strict=False))


def dark_rules() -> str:
    """CSS that turns the colours of a drawn picture into their dark counterparts."""
    rules = []
    for light, dark in DARK.items():
        rules.append(f'[fill="{light}"]{{fill:{dark}}}')
        rules.append(f'[stroke="{light}"]{{stroke:{dark}}}')
    return "".join(rules)


def config() -> dict[str, Any]:
    """Vega-Lite's configuration of all charts."""
    return {
        "background": PAPER,
        "padding": 12,
        "font": FONT,
        "view": {"stroke": None},
        "axis": {
            "domainColor": GRID,
            "gridColor": GRID,
            "labelColor": INK,
            "labelFontSize": 12,
            "labelLimit": 260,
            "tickColor": GRID,
            "titleColor": FAINT_INK,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 10,
        },
        "header": {
            "labelColor": INK,
            "labelFontSize": 12,
            "labelFontWeight": "bold",
            "titleColor": INK,
        },
        "legend": {
            "columnPadding": 22,
            "columns": 4,
            "direction": "horizontal",
            "labelColor": INK,
            "labelFontSize": 12,
            "labelLimit": 260,
            "offset": 8,
            "orient": "top",
            "symbolOpacity": 1,
            "titleColor": FAINT_INK,
        },
        "title": {
            "anchor": "start",
            "color": INK,
            "fontSize": 15,
            "fontWeight": "bold",
            "frame": "group",
            "offset": 12,
            "subtitleColor": FAINT_INK,
            "subtitleFontSize": 12,
            "subtitlePadding": 5,
        },
    }
