"""Opening a model leaves no trace of the machine below the home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.project import ROOT


def files_left(code: str, model: Path, home: Path) -> list[Path]:
    """What a process leaves in a home of its own that opens the model."""
    home.mkdir()
    # Nothing else: onnxruntime's telemetry is silent where a variable names a CI.
    environment = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-c", code, str(model)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, timeout=120)
    return list(home.rglob("*"))


def test_a_model_is_opened_without_telemetry(
    tiny_release: Path, tmp_path: Path
) -> None:
    model = tiny_release / "onnx/model.onnx"
    ours = "import sys; from checkpoint_release import load; load(sys.argv[1])"
    bare = (
        "import sys, onnxruntime; onnxruntime.InferenceSession(sys.argv[1],"
        " providers=['CPUExecutionProvider'])"
    )
    assert files_left(ours, model, tmp_path / "ours") == []
    if not files_left(bare, model, tmp_path / "bare"):
        pytest.skip("onnxruntime keeps no telemetry on this machine: no control")
