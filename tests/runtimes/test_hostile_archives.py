"""TorchScript and .pt2 that do more than compute don't get to do it without trust."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.config import ModelConfig
from checkpoint_release.core.signature import Signature, TensorSpec
from tests.support.hostile_archives import roads

ROADS = [(format, name) for format, made in roads().items() for name in made]
# torch 2.13 itself fails before these get so far; other versions may not
NOT_SEEN_TO_WORK: set[str] = set()

SIGNATURE = Signature(
    inputs=(TensorSpec("x", "float32", (3, 4)),),
    outputs=(TensorSpec("y", shape=(3, 4)),),
    dimensions={},
)


def written(folder: Path, archive: bytes) -> Path:
    """A folder with the archive and its config.json."""
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(archive)
    ModelConfig(Architecture("tests:none", {}, SIGNATURE)).write(folder)
    return folder


def watched(trust: str, folders: list[Path]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.watched_archives", trust, *folders],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    Path("/tmp/arch/%s.json" % trust).write_text(done.stdout.splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Trust → "format-road" → what came of it."""
    found = {}
    for trust in ("none", "everything"):
        base = tmp_path_factory.mktemp(trust)
        folders = []
        for format, made in roads().items():
            for name, make in made.items():
                folder = base / f"{format}-{name}"
                folders.append(written(folder, make(str(folder / "canary"))))
        found[trust] = watched(trust, folders)
    return found


@pytest.mark.parametrize(("format", "road"), ROADS)
def test_nothing_runs_without_trust(
    outcomes: dict[str, dict[str, Any]], format: str, road: str
) -> None:
    outcome = outcomes["none"][f"{format}-{road}"]
    assert not outcome["canary"]
    assert outcome["violations"] == []
    assert outcome["error"].startswith(("UntrustedCodeError", "ArtifactError"))


@pytest.mark.parametrize(("format", "road"), ROADS)
def test_the_road_is_open_to_what_is_trusted(
    outcomes: dict[str, dict[str, Any]], format: str, road: str
) -> None:
    """The control: what the test above looks for does happen."""
    if road in NOT_SEEN_TO_WORK:
        pytest.skip("torch fails before it gets there")
    outcome = outcomes["everything"][f"{format}-{road}"]
    assert outcome["canary"], outcome["error"]
