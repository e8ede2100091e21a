"""After a kill at any moment, or a full disk, the next run converges by itself."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kills import (
    OPSETS,
    SIGNALS,
    Undisturbed,
    differences,
    kill_once,
    kill_stage,
)
from tests.support.project import Project, tree
from tests.support.small_disk import filled, small_disk

pytestmark = pytest.mark.slow

STAGES = {
    "load": ["checkpoint"],
    "export-safetensors": ["safetensors"],
    "export-onnx": ["onnx"],
    "export-torchscript": ["torchscript", "torch_export"],
    "parity-check": ["parity"],
    "model-card": ["model-card"],
    "publish": ["release"],
}
CAUSES = ("its disk has", "the disk of", "No space left on device")


# Kills. `python -m tests.support.kills 100 1 FOLDER` does more of them.


@pytest.fixture(scope="module")
def undisturbed(
    built: Project, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Project, Undisturbed]:
    project = built.copy(tmp_path_factory.mktemp("kills") / "project")
    return project, Undisturbed.of(project)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_after_a_kill_ends_as_if_nothing_had_been(
    undisturbed: tuple[Project, Undisturbed], seed: int
) -> None:
    project, expected = undisturbed
    rng = random.Random(seed)
    opset = OPSETS[seed % len(OPSETS)]
    project.set(onnx__opset=opset)
    after = rng.uniform(0.3, 0.9) * expected.seconds
    kind = (kill_once, kill_stage)[seed // 2 % 2]
    kill = kind(project, rng.choice(SIGNALS), after)
    assert differences(project, opset, expected) == [], kill


def test_the_comparison_sees_a_file_that_is_cut_or_left_over(
    undisturbed: tuple[Project, Undisturbed],
) -> None:
    """The control: files that DVC doesn't look at are in the place of what a kill
    leaves.
    """
    project, expected = undisturbed
    opset = OPSETS[0]
    project.set(onnx__opset=opset)
    assert differences(project, opset, expected) == []
    left = project.path / "artifacts/.no-artifact.tmp"
    left.write_text("")
    assert differences(project, opset, expected) == [left.name]
    left.unlink()


def test_a_temporary_that_a_kill_left_goes_with_the_next_stage_that_runs(
    undisturbed: tuple[Project, Undisturbed],
) -> None:
    project, expected = undisturbed
    opset = OPSETS[0]
    project.set(onnx__opset=opset)
    (project.path / "artifacts/.release.tmp").mkdir()
    time.sleep(1.5)  # one that is younger may be about to be locked
    assert differences(project, opset, expected) == []
    assert not (project.path / "artifacts/.release.tmp").exists()


# Full disks


@pytest.fixture(scope="module")
def on_small_disk(
    built: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """A built checkout on a disk of its own."""
    folder = tmp_path_factory.mktemp("disks") / "small"
    with small_disk(folder, "96m") as mounted:
        if not mounted:
            pytest.skip("this machine lets tests mount no disk")
        yield built.copy(folder / "project")


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_one_clear_error_and_the_next_run_converges(
    on_small_disk: Project, stage: str
) -> None:
    """What the stage wrote before is away, so that its room is taken, too."""
    project = on_small_disk
    project.dvc("repro")
    artifacts = project.path / "artifacts"
    before = visible(artifacts)
    for folder in STAGES[stage]:
        shutil.rmtree(artifacts / folder)
    with filled(project.path.parent, left=0):
        done = project.dvc("repro", "-s", "-f", stage, check=False)
    assert done.returncode
    assert "Traceback" not in done.stderr
    assert any(cause in done.stderr for cause in CAUSES), done.stderr
    assert "cache-types" not in done.stderr, "DVC's advice, which is wrong here"
    after = visible(artifacts)
    for name, content in before.items():
        output = name.partition("/")[0]
        assert after.get(name) == content or output in done.stderr
    project.dvc("repro")
    assert visible(artifacts) == before


def visible(artifacts: Path) -> dict[str, bytes]:
    """The artifacts, without what DVC left when it tried kinds of links."""
    files = tree(artifacts)
    return {name: files[name] for name in files if not name.startswith(".")}
