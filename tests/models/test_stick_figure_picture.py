"""The stick figure's example is a clip to restore, and its picture shows it move."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from checkpoint_release.core.signature import Arrays, check_inputs
from checkpoint_release.models.stick_figure import example, picture, signature
from checkpoint_release.models.stick_figure.example import FRAMES, GAP, walk
from tests.support.stick_figure import WHOLE_FIGURE, stick_figure

SVG = "{http://www.w3.org/2000/svg}"


def clip() -> tuple[Arrays, Arrays]:
    """The example, and the clip without noise as the outputs."""
    architecture = stick_figure(WHOLE_FIGURE)
    inputs = example(architecture.kwargs, architecture.signature)
    assert inputs is not None
    pose = walk()[:, None].astype(np.float32)
    return inputs, {"pose": pose}


def test_the_example_is_what_the_model_takes_and_the_same_every_time() -> None:
    architecture = stick_figure(WHOLE_FIGURE)
    inputs, _ = clip()
    sizes = check_inputs(architecture.signature, inputs)
    assert sizes == {"sequence": FRAMES, "batch": 1}
    again, _ = clip()
    assert all(np.array_equal(again[name], inputs[name]) for name in inputs)
    motion = inputs["motion"][:, 0]
    assert not motion[GAP].any() and motion[: GAP.start].any(axis=1).all()


@pytest.mark.parametrize("inputs", [None, ["motion", "text_embedding"]])
def test_every_choice_of_inputs_has_an_example(inputs: list[str] | None) -> None:
    kwargs = stick_figure(WHOLE_FIGURE).kwargs
    chosen = signature(kwargs, inputs)
    given = example(kwargs, chosen)
    assert given is not None and check_inputs(chosen, given)["sequence"] == FRAMES


def test_other_figures_and_shorter_clips_have_no_example() -> None:
    architecture = stick_figure(WHOLE_FIGURE)
    other = architecture.kwargs | {"input_dim": 20, "output_dim": 20}
    assert example(other, architecture.signature) is None
    dimensions = architecture.signature.dimensions
    short = replace(dimensions["sequence"], maximum=FRAMES - 1, example=9)
    shorter = replace(
        architecture.signature, dimensions={**dimensions, "sequence": short}
    )
    assert example(architecture.kwargs, shorter) is None


def test_a_figure_walks_on_the_ground_without_tearing() -> None:
    points = walk().reshape(FRAMES, 12, 2, 2)
    assert np.allclose(points[..., 1].min(axis=(1, 2)), -0.85)
    lengths = np.linalg.norm(points[:, :, 1] - points[:, :, 0], axis=-1)
    assert np.allclose(lengths, lengths[0])
    assert points[-1, 11, 0, 0] > points[0, 11, 0, 0] + 1


def test_the_picture_moves_and_shows_stills_to_those_who_want_no_motion() -> None:
    drawn = picture(stick_figure(WHOLE_FIGURE).kwargs, *clip())
    root = ElementTree.fromstring(drawn["svg"])
    given, restored = root.iter(f"{SVG}animate")
    seen = given.get("values", "").split(";")
    assert len(seen) == FRAMES
    assert [frame for frame in range(FRAMES) if seen[frame] == "M0 0"] == list(
        range(GAP.start, GAP.stop)
    )
    made = restored.get("values", "").split(";")
    assert len(set(made)) > 40 and all(frame.count("M") == 13 for frame in made)
    assert given.get("dur") == "2s"
    assert "prefers-reduced-motion" in drawn["svg"]
    assert "10 frames are missing" in drawn["alt"]
    assert "<script" not in drawn["svg"] and len(drawn["svg"]) < 60_000


def test_the_picture_follows_what_the_model_computes_and_nothing_else() -> None:
    kwargs = stick_figure(WHOLE_FIGURE).kwargs
    assert picture(kwargs, *clip()) == picture(kwargs, *clip())
    inputs, outputs = clip()
    outputs["pose"][30, 0, 0] += 0.2
    moved = picture(kwargs, inputs, outputs)["svg"]
    assert moved != picture(kwargs, *clip())["svg"]


def test_a_figure_that_stands_still_in_one_point_is_drawn_too() -> None:
    inputs, outputs = clip()
    outputs["pose"][:] = 0.5
    assert (
        "nan" not in picture(stick_figure(WHOLE_FIGURE).kwargs, inputs, outputs)["svg"]
    )
