"""Right exports of many kinds of models pass, and wrong ones don't."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from checkpoint_release.core.artifacts.formats import ONNX
from tests.support import zoo
from tests.support.mistakes import (
    ONNX_MISTAKES,
    TORCH_FAMILIES,
    TORCH_MISTAKES,
    InapplicableError,
)
from tests.support.parity_world import (
    Opened,
    drawn,
    trained,
    write_checkpoint,
    write_format,
)

FORMATS = ("onnx", "torchscript")
LONGEST = 20
SOME_FAMILIES = ("gelu", "sigmoid head at -7", "silu at -5", "lstm", "language_model")


def right_exports_pass(folder: Path, family: str, seeds: int, draws: int) -> None:
    """Every export of the family passes on every draw of its cases."""
    architecture = zoo.architecture(family)
    for seed in range(seeds):
        checkpoint = folder / str(seed)
        model = trained(architecture, seed)
        write_checkpoint(checkpoint, architecture, model)
        for format in FORMATS:
            write_format(format, checkpoint / format, architecture, model)
            opened = Opened.open(checkpoint, format, checkpoint / format)
            for draw in range(draws):
                cases = drawn(architecture.signature, 1000 * seed + draw, LONGEST)
                verdict = opened.judge(cases)
                assert verdict.passed, f"seed {seed}, draw {draw}: {verdict.problem}"
                assert verdict.graph is not None and verdict.graph.evaluated


@pytest.mark.parametrize("family", SOME_FAMILIES)
def test_right_exports_of_a_few_families_pass(tmp_path: Path, family: str) -> None:
    right_exports_pass(tmp_path, family, seeds=1, draws=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_right_exports_of_every_family_pass(tmp_path: Path, family: str) -> None:
    right_exports_pass(tmp_path, family, seeds=2, draws=4)


def judge_onnx(folder: Path, family: str, mistake: str) -> bool | None:
    """Whether question one lets the mistake pass; None: the family can't have it."""
    architecture = zoo.architecture(family)
    model = trained(architecture)
    write_checkpoint(folder / family, architecture, model)
    exported = folder / family / "onnx"
    write_format("onnx", exported, architecture, model)
    file = exported / ONNX.file
    changed = onnx.load(file)
    plant, _ = ONNX_MISTAKES[mistake]
    try:
        plant(changed)
    except InapplicableError:
        return None
    onnx.save(changed, file)
    opened = Opened.open(folder / family, "onnx", exported)
    verdict = opened.judge(drawn(architecture.signature, 0, LONGEST))
    if verdict.graph is None:
        return verdict.passed  # names or shapes are wrong
    return verdict.graph.evaluated and verdict.graph.passed


FAINT = (
    "the last bit of a weight",
    "an epsilon of a millionth and a hundredth",
    "a result times 1 + 2⁻²³",
    "something else at one odd length",
)


@pytest.mark.parametrize("mistake", FAINT)
def test_a_mistake_below_the_noise_of_float32_is_caught(
    tmp_path: Path, mistake: str
) -> None:
    (family, *_) = ONNX_MISTAKES[mistake][1]
    assert judge_onnx(tmp_path, family, mistake) is False


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ONNX_MISTAKES)
def test_every_planted_mistake_is_caught(tmp_path: Path, mistake: str) -> None:
    families = ONNX_MISTAKES[mistake][1]
    passed = {name: judge_onnx(tmp_path, name, mistake) for name in families}
    assert set(passed.values()) == {False}, passed


@pytest.mark.parametrize("mistake", TORCH_MISTAKES)
def test_mistakes_smaller_than_any_step_of_float32_are_caught_in_torchscript(
    tmp_path: Path, mistake: str
) -> None:
    for family in TORCH_FAMILIES:
        architecture = zoo.architecture(family)
        model = trained(architecture)
        write_checkpoint(tmp_path / family, architecture, model)
        exported = tmp_path / family / "torchscript"
        wrong = TORCH_MISTAKES[mistake](model)
        write_format("torchscript", exported, architecture, wrong.eval())
        opened = Opened.open(tmp_path / family, "torchscript", exported)
        verdict = opened.judge(drawn(architecture.signature, 0, LONGEST))
        assert verdict.graph is not None and not verdict.graph.passed
