"""A chart as SVG, drawn by Vega-Lite without a browser and without the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from checkpoint_release.pictures import theme

VEGA_LITE = "5.21"
"""The version that draws; another may place things elsewhere."""
_HEAD_END = ">"


@dataclass(frozen=True)
class Picture:
    """A picture, and the same in words.

    Attributes:
        svg: an <svg> element without scripts, text as text; it follows the reader's
            choice of light or dark.
        alt: what it shows, for readers who don't see it.
    """

    svg: str
    alt: str


def draw(spec: Mapping[str, Any], *, title: str, alt: str) -> Picture:
    """Draw a chart.

    Args:
        spec: of Vega-Lite, with its data inside; its look comes from the theme.
        title: of the picture as a document.
        alt: see Picture.

    Returns:
        The same bytes for the same chart on any machine.

    Raises:
        ValueError: the chart isn't one of Vega-Lite's.
    """
    import vl_convert  # the process that draws nothing doesn't load it

    drawn = vl_convert.vegalite_to_svg(
        {**spec, "config": theme.config()},
        vl_version=VEGA_LITE,
        allowed_base_urls=[],  # nothing is fetched
    )
    return Picture(_described(drawn, title, alt), alt)


def _described(svg: str, title: str, alt: str) -> str:
    """The SVG with its title, its description and its colours for dark pages."""
    head, end, content = svg.partition(_HEAD_END)
    style = f"@media (prefers-color-scheme:dark){{{theme.dark_rules()}}}"
    # Measured with a font that comes along, shown with whichever there is.
    content = content.replace(
        f'font-family="{theme.FONT}"', f'font-family="{theme.FONT_STACK}"'
    )
    return (
        f'{head} role="img"{end}<title>{escape(title)}</title>'
        f"<desc>{escape(alt)}</desc><style>{style}</style>{content}\n"
    )
