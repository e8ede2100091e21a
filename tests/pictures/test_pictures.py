"""Pictures show the figures, in the same bytes on any machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from checkpoint_release.core.artifacts.parity import ParityReport
from checkpoint_release.pictures.latency import Point, latency_picture
from checkpoint_release.pictures.picture import Picture, draw
from checkpoint_release.pictures.proof import MOST_OUTPUTS, proof_picture
from checkpoint_release.pictures.sizes import sizes_picture
from tests.support.parity_json import passed_report

SVG = "{http://www.w3.org/2000/svg}"
CHECKED = {"safetensors": "0" * 64, "onnx": "1" * 64}
SIZES = {"safetensors": 839_552, "onnx": 1_212_000}
POINTS = [Point("eager", 839_552, 12.5, 14.0), Point("onnx", 1_212_000, 5.25, 9.0)]


def texts(picture: Picture) -> list[str]:
    """What is written in a picture."""
    root = ElementTree.fromstring(picture.svg)
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def limits(picture: Picture) -> set[str]:
    """Where the strokes of the limit begin: their places across."""
    root = ElementTree.fromstring(picture.svg)
    places = set()
    for path in root.iter(f"{SVG}path"):
        if path.get("aria-roledescription") == "tick":
            places.add(path.get("d", "").partition(",")[0])
    return places


def with_errors(report: ParityReport, error: float, limit: float) -> ParityReport:
    """The report, with every output of its ONNX in reduced precision."""
    onnx = report.formats["onnx"]
    outputs = {
        name: msgspec.structs.replace(
            figures, times_floor=None, share_of_output=error, limit=limit
        )
        for name, figures in onnx.outputs.items()
    }
    reduced = msgspec.structs.replace(onnx, outputs=outputs)
    formats = report.formats | {"onnx float16": reduced}
    return msgspec.structs.replace(report, formats=formats)


def test_the_proof_names_outputs_formats_figures_and_the_limit() -> None:
    picture = proof_picture(passed_report(CHECKED, ["pose", "action"]))
    shown = texts(picture)
    assert {"pose", "action", "safetensors", "onnx", "limit 8×"} <= set(shown)
    assert {"0.5×", "0.6×", "1.5×", "1.6×"} <= set(shown)
    assert len(limits(picture)) == 1
    assert "onnx 1.6× the noise floor in action; the limit is 8×" in picture.alt


def test_limits_that_differ_are_drawn_where_each_is() -> None:
    report = passed_report(CHECKED, ["pose", "action"])
    onnx = report.formats["onnx"]
    stated = msgspec.structs.replace(onnx.outputs["pose"], limit=20.0)
    changed = msgspec.structs.replace(onnx, outputs=onnx.outputs | {"pose": stated})
    formats = report.formats | {"onnx": changed}
    picture = proof_picture(msgspec.structs.replace(report, formats=formats))
    assert len(limits(picture)) == 2
    assert "the limit is 8× to 20×" in picture.alt
    assert not [text for text in texts(picture) if text.startswith("limit")]


def test_reduced_precision_is_shown_in_shares_of_the_output() -> None:
    report = passed_report(CHECKED, ["pose"])
    picture = proof_picture(with_errors(report, error=0.012, limit=0.05))
    assert {"1.2%", "limit 5%", "limit 8×", "onnx float16"} <= set(texts(picture))
    assert "onnx float16 1.2% of the output in pose; the limit is 5%." in picture.alt


def test_of_many_outputs_those_closest_to_their_limits_are_shown() -> None:
    outputs = [f"output_{number}" for number in range(MOST_OUTPUTS + 15)]
    shown = texts(proof_picture(passed_report(CHECKED, outputs)))
    drawn = [text for text in shown if text.startswith("output_")]
    assert drawn == outputs[15:]  # the later an output, the larger its error
    assert [
        text for text in shown if f"{MOST_OUTPUTS} of {len(outputs)} outputs" in text
    ]


HOSTILE = [
    "</text><script>alert(1)</script>",
    "a\u202eb",
    "\x1b[2J",
    "x" * 5000,
    "&amp;",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_from_a_model_stay_text(name: str) -> None:
    picture = proof_picture(passed_report(CHECKED, [name, "pose"]))
    root = ElementTree.fromstring(picture.svg)
    tags = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert not tags & {"script", "a", "image", "foreignObject", "use"}
    assert "\u202e" not in picture.svg and "\x1b" not in picture.svg
    assert len(picture.alt) < 400


def test_text_is_text_and_nothing_is_asked_of_other_places() -> None:
    picture = sizes_picture(SIZES)
    assert {"safetensors", "0.8 MB", "1.2 MB", "megabytes"} <= set(texts(picture))
    addresses = picture.svg.replace("http://www.w3.org/2000/svg", "")
    addresses = addresses.replace("http://www.w3.org/1999/xlink", "")
    assert "http" not in addresses and "<script" not in picture.svg


def test_size_against_latency_has_a_mark_and_a_line_for_each_way() -> None:
    picture = latency_picture(POINTS, "batch=1, 1 thread, on a machine")
    shown = texts(picture)
    assert {"eager", "onnx", "megabytes", "milliseconds"} <= set(shown)
    assert "batch=1, 1 thread, on a machine" in "".join(shown)
    assert "onnx 1.2 MB, 5.25 ms (95 of 100 calls within 9 ms)" in picture.alt
    root = ElementTree.fromstring(picture.svg)
    kinds = [element.get("aria-roledescription") for element in root.iter()]
    assert kinds.count("point") == kinds.count("rule mark") == len(POINTS)
    slower = [Point("eager", 839_552, 12.5, 14.0), Point("onnx", 1_212_000, 900, 990)]
    assert latency_picture(slower, "").svg != picture.svg


def test_a_chart_that_would_fetch_its_data_is_refused() -> None:
    spec = {"data": {"url": "https://example.org/data.csv"}, "mark": "bar"}
    with pytest.raises(ValueError):
        draw(spec, title="Nothing", alt="Nothing")


DRAW_ALL = f"""
import sys
from checkpoint_release.pictures.latency import Point, latency_picture
from checkpoint_release.pictures.proof import proof_picture
from checkpoint_release.pictures.sizes import sizes_picture
from tests.support.parity_json import passed_report
report = passed_report({CHECKED!r}, ["pose", "action"])
points = [Point("eager", 839_552, 12.5, 14.0), Point("onnx", 1_212_000, 5.25, 9.0)]
latency = latency_picture(points, "here").svg
sys.stdout.write(proof_picture(report).svg + sizes_picture({SIZES!r}).svg + latency)
"""


def test_another_process_with_another_setting_draws_the_same_bytes(
    tmp_path: Path,
) -> None:
    """Another hash seed, time zone, language, home and list of fonts."""
    (fonts := tmp_path / "fonts.conf").write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig/>'
    )
    elsewhere = {
        "FONTCONFIG_FILE": str(fonts),
        "HOME": str(tmp_path),
        "LC_ALL": "tr_TR.UTF-8",
        "PYTHONHASHSEED": "7",
        "TZ": "Asia/Tokyo",
    }
    there = subprocess.run(
        [sys.executable, "-c", DRAW_ALL],
        env={**os.environ, **elsewhere, "PYTHONIOENCODING": "utf-8"},
        check=True,
        capture_output=True,
    )
    report = passed_report(CHECKED, ["pose", "action"])
    here = proof_picture(report).svg + sizes_picture(SIZES).svg
    here += latency_picture(POINTS, "here").svg
    assert there.stdout.decode() == here
    other = passed_report(CHECKED, ["pose", "motion"])
    assert proof_picture(other).svg not in here
