"""How large each format is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_release.core.text import human_size
from checkpoint_release.pictures import theme
from checkpoint_release.pictures.picture import Picture, draw

WIDTH = 460
_STEP = 30


def sizes_picture(sizes: Mapping[str, int]) -> Picture:
    """Bars of bytes, one for each format.

    Args:
        sizes: format or variant → bytes; at least one.
    """
    rows = []
    for name, size in sizes.items():
        rows.append(
            {"format": name, "megabytes": size / 1e6, "label": human_size(size)}
        )
    listed = [f"{row['format']} {row['label']}" for row in rows]
    return draw(
        _spec(rows),
        title="Size of each format",
        alt=f"Size of each format: {', '.join(listed)}.",
    )


def _spec(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The chart: a bar and its size in figures for each row."""
    largest = max(row["megabytes"] for row in rows)
    y = {
        "field": "format",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {"domain": False, "ticks": False, "labelPadding": 8},
    }
    x = {
        "field": "megabytes",
        "type": "quantitative",
        "title": "megabytes",
        "scale": {"domain": [0, largest * 1.15 or 1]},
        "axis": {"tickCount": 5, "domain": False, "ticks": False},
    }
    names = [row["format"] for row in rows]
    colour = {
        "field": "format",
        "type": "nominal",
        "legend": None,
        "scale": {"domain": names, "range": list(theme.colours(names).values())},
    }
    label = {"type": "text", "align": "left", "dx": 5, "color": theme.INK}
    return {
        "data": {"values": rows},
        "title": {"text": "Size of each format"},
        "width": WIDTH,
        "height": {"step": _STEP},
        "encoding": {"y": y, "x": x},
        "layer": [
            {
                "mark": {"type": "bar", "height": 16},
                "encoding": {"color": colour},
            },
            {
                "mark": {**label, "fontSize": 12},
                "encoding": {"text": {"field": "label"}},
            },
        ],
    }
