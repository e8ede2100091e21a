"""The templates of `dvc plots`: the limit is drawn, and no label covers another."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
import vl_convert
from dvc_render.vega import VegaRenderer
from ruamel.yaml import YAML

from checkpoint_release.core.artifacts.error_tables import TABLES
from checkpoint_release.pictures.picture import VEGA_LITE
from tests.support.project import ROOT

SVG = "{http://www.w3.org/2000/svg}"
FORMATS = ("safetensors", "onnx", "onnx float16", "torchscript")
PLOTS = {
    next(iter(plot)).rpartition("/")[2]: next(iter(plot.values()))
    for plot in YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
}


def drawn(table: str, rows: list[dict[str, Any]]) -> ElementTree.Element:
    """A plot of dvc.yaml, filled in by DVC."""
    renderer = VegaRenderer(
        rows, table, template_dir=str(ROOT / ".dvc/plots"), **PLOTS[table]
    )
    svg = vl_convert.vegalite_to_svg(
        json.loads(renderer.partial_html()), vl_version=VEGA_LITE, allowed_base_urls=[]
    )
    return ElementTree.fromstring(svg)


def marks(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [
        element
        for element in root.iter()
        if element.get("aria-roledescription") == kind
    ]


def limits(root: ElementTree.Element) -> list[str]:
    """The lines of limits, and where each stands."""
    return [
        line.get("transform", "")
        for container in marks(root, "rule mark container")
        for line in container
        if line.get("stroke") == "#c2410c"
    ]


def labels(group: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the labels of an axis stand."""
    found = []
    for text in group.iter(f"{SVG}text"):
        place = text.get("transform", "").removeprefix("translate(").removesuffix(")")
        if text.text and place and "rotate" not in place:
            x, _, y = place.partition(",")
            found.append((float(x), float(y)))
    return found


def outputs(revisions: list[str]) -> list[dict[str, Any]]:
    return [
        {
            "output": f"output_{number}",
            "format": format,
            "share_of_limit": 0.02 * number,
            "rev": revision,
        }
        for revision in revisions
        for number in range(25)
        for format in FORMATS
    ]


def test_the_plot_of_the_outputs_has_a_line_at_the_limit() -> None:
    root = drawn("outputs.csv", outputs(["workspace"]))
    assert limits(root) == ["translate(480,0)"]  # the right end of the axis
    assert len(marks(root, "bar")) == 25 * len(FORMATS)
    beyond = [row | {"share_of_limit": 4.0} for row in outputs(["workspace"])]
    assert limits(drawn("outputs.csv", beyond)) == ["translate(120,0)"]  # a quarter


def test_two_revisions_stand_below_each_other_with_a_limit_each() -> None:
    root = drawn("outputs.csv", outputs(["HEAD", "workspace"]))
    assert len(limits(root)) == 2
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert {"HEAD", "workspace", "output_24", "onnx float16"} <= texts


def test_no_label_of_an_output_covers_another() -> None:
    root = drawn("outputs.csv", outputs(["workspace"]))
    axis = next(each for each in marks(root, "axis") if "Y-axis" in str(each.attrib))
    heights = sorted(y for _, y in labels(axis))
    assert len(heights) == 25
    assert all(below - above >= 12 for above, below in pairwise(heights))


@pytest.mark.parametrize("exponent", [-9, 0, 6])
def test_no_label_along_a_dimension_covers_another(exponent: int) -> None:
    rows = [
        {
            "position": position,
            "output": output,
            "format": format,
            "relative_error": (position + 1) * 10.0**exponent,
            "rev": "workspace",
        }
        for output in ("pose", "physics", "action_logits")
        for format in FORMATS
        for position in range(250)
    ]
    root = drawn("along.csv", rows)
    axes = [each for each in marks(root, "axis") if "Y-axis" in str(each.attrib)]
    assert len(axes) == 3
    for axis in axes:
        heights = sorted(y for _, y in labels(axis))
        assert len(heights) >= 2
        assert all(below - above >= 10 for above, below in pairwise(heights))
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert texts.count(PLOTS["along.csv"]["y_label"]) == 1


def test_dvc_yaml_plots_tables_that_the_parity_check_writes() -> None:
    plots = YAML(typ="safe").load(ROOT / "dvc.yaml")["plots"]
    paths = [next(iter(plot)) for plot in plots]
    assert paths == [
        f"artifacts/parity/{TABLES}/outputs.csv",
        f"artifacts/parity/{TABLES}/along.csv",
    ]
