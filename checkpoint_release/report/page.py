"""The report as one HTML file: no scripts, and nothing that is fetched."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from checkpoint_release.card.benchmark import (
    benchmarked_on,
    points,
    speed_rows,
)
from checkpoint_release.card.files import sizes
from checkpoint_release.card.markdown import one_line
from checkpoint_release.core.text import human_size
from checkpoint_release.pictures.latency import latency_picture
from checkpoint_release.pictures.picture import Picture
from checkpoint_release.pictures.proof import proof_picture
from checkpoint_release.pictures.sizes import sizes_picture
from checkpoint_release.report.contents import Contents
from checkpoint_release.report.errors import HeatMap, along_picture, heat_maps
from checkpoint_release.report.modules import by_module, nodes_picture
from checkpoint_release.report.training import training_picture
from checkpoint_release.report.weights import weights_picture

TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Pictures:
    """The pictures of a report; None where there is nothing to draw."""

    proof: Picture | None
    along: Picture | None
    nodes: Picture | None
    sizes: Picture | None
    latency: Picture | None
    weights: Picture | None
    training: Picture | None

    @classmethod
    def of(cls, contents: Contents) -> Pictures:
        """Draw what there is."""
        parity, formats = contents.parity, contents.formats
        return cls(
            proof=proof_picture(parity) if parity else None,
            along=along_picture(contents.position_errors),
            nodes=nodes_picture(contents.nodes.nodes) if contents.nodes else None,
            sizes=sizes_picture(sizes(formats)) if formats else None,
            latency=_latency(contents),
            weights=weights_picture(contents.weights),
            training=training_picture(contents.curves),
        )


def _latency(contents: Contents) -> Picture | None:
    """Size against latency; None where that wasn't measured."""
    benchmark, checkpoint = contents.benchmark, contents.checkpoint
    if benchmark is None or checkpoint is None:
        return None
    marks = points(benchmark, sizes(contents.formats), checkpoint.tensors.bytes)
    return latency_picture(marks, benchmark.headline)


def report_page(contents: Contents) -> str:
    """The whole page.

    Args:
        contents: what it shows.

    Raises:
        ArtifactError: an artifact isn't as it was written.
    """
    maps: list[HeatMap] = heat_maps(contents.case_errors)
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(TEMPLATE.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "line": one_line,
        "number": _number,
        "share": _share,
        "size": human_size,
    }
    environment.globals |= {
        "benchmarked_on": benchmarked_on,
        "image": _image,
    }
    template = environment.get_template(TEMPLATE.name)
    return template.render(
        contents=contents,
        heat_maps=maps,
        modules=by_module(contents.nodes.nodes) if contents.nodes else [],
        speed_rows=speed_rows(contents.benchmark) if contents.benchmark else [],
        pictures=Pictures.of(contents),
    )


def _image(picture: Picture) -> Markup:
    """A picture inside the page, apart from its styles and the names in it."""
    data = b64encode(picture.svg.encode()).decode()
    return Markup(
        '<div class="scroll picture" tabindex="0">'
        '<img src="data:image/svg+xml;base64,{}" alt="{}"></div>'
    ).format(data, picture.alt)


def _number(value: Any) -> str:
    """A number for people; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}"


def _share(error: float) -> str:
    """An error as a share of a value."""
    return f"{error:.1e}" if error else "0"
