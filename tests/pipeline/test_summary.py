"""What `make` ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import read_json, read_manifest, write_json
from pipeline.summary import summary, worst
from tests.card.test_model_card import Artifacts
from tests.support.project import ROOT, Project


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Artifacts of a run that ended with a release, not published."""
    artifacts = Artifacts(tmp_path / "artifacts").write().path
    files = {"README.md": {"size": 1_500_000, "sha256": "0" * 64}, "model.safetensors": {"size": 0, "sha256": "1" * 64}}
    write_json(artifacts / "publish.json", {"published": False, "reason": "publish.repo_id is not set", "files": files})
    return artifacts


def test_it_says_what_was_made_and_where_and_how_exact(made: Path) -> None:
    lines = list(summary(made))
    told = {line.split()[0]: line for line in lines if line.startswith("  ")}
    size = sum(entry.size for entry in read_manifest(made / "onnx").files.values())
    assert f" {size:,} bytes " in told["onnx"] and told["onnx"].endswith("onnx: model.onnx")
    assert str(made / "safetensors") in told["safetensors"] and "torch_export" in told["off"]
    # The torchscript figures are the worst ones that tests/support/parity_json.py makes up.
    assert "3.5e-06 (torchscript, environment), 3× float32's own; 4× is allowed" in told["parity"]
    assert "1.5 MB" in told["release"] and "2 files" in told["release"]
    assert any("publish.repo_id" in line for line in lines)


def test_it_says_where_it_was_published(made: Path) -> None:
    receipt = {"published": True, "repo": "org/name", "tag": "v1.0.0", "revision": "main", "endpoint": "https://hub"}
    write_json(made / "publish.json", {**read_json(made / "publish.json"), **receipt})
    assert list(summary(made))[-1] == "Published as org/name v1.0.0 on https://hub."


def test_the_worst_error_counts_by_what_is_allowed_and_reduced_precision_apart(made: Path) -> None:
    parity = read_json(made / "parity.json")
    figures = parity["formats"]["onnx"]["outputs"]["pose"]
    parity["formats"]["onnx int8"] = {"outputs": {"pose": {**figures, "share_of_output": 0.05, "max_abs_error": 0.5}}}
    full, reduced = worst(parity)
    assert "3.5e-06 (torchscript, environment)" in full
    assert "0.5 (onnx int8, pose), 5.00% of the output" in reduced


def test_without_a_release_it_says_what_is_missing(made: Path) -> None:
    (made / "publish.json").unlink()
    with pytest.raises(ArtifactError, match=r"publish\.json is missing"):
        list(summary(made))


def test_make_ends_with_it(built: Project) -> None:
    done = built.run(sys.executable, "-m", "pipeline.summary")
    assert "parity" in done.stdout and "artifacts/release" in done.stdout and "demo" not in done.stderr


def test_in_a_fresh_clone_it_is_one_error_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.summary"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
