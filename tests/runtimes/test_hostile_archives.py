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
from tests.support.hostile_archives import packed, roads, shut_roads, torchscript

ROADS = [f"{format}-{name}" for format, made in roads().items() for name in made]
SHUT = [f"torch_export-{name}" for name in shut_roads()]

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
    command = ["-m", "tests.support.watched_archives", trust, *map(str, folders)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Trust → road → what came of it."""
    makers = {
        f"{format}-{name}": make
        for format, made in roads().items()
        for name, make in made.items()
    }
    makers |= {f"torch_export-{name}": make for name, make in shut_roads().items()}
    found = {}
    for trust in ("none", "everything"):
        base = tmp_path_factory.mktemp(trust)
        folders = [written(base / "honest", packed(torchscript()))]
        for road, make in makers.items():
            folder = base / road
            folders.append(written(folder, make(str(folder / "canary"))))
        found[trust] = watched(trust, folders)
    return found


@pytest.mark.parametrize("road", ROADS + SHUT)
def test_nothing_runs_without_trust(
    outcomes: dict[str, dict[str, Any]], road: str
) -> None:
    outcome = outcomes["none"][road]
    assert not outcome["canary"]
    assert outcome["violations"] == []
    assert outcome["error"].startswith("UntrustedCodeError: ")
    assert "does more than compute: " in outcome["error"]


@pytest.mark.parametrize("road", ROADS)
def test_the_road_is_open_to_what_is_trusted(
    outcomes: dict[str, dict[str, Any]], road: str
) -> None:
    """The control: what the test above looks for does happen."""
    outcome = outcomes["everything"][road]
    assert outcome["canary"], outcome["error"]
