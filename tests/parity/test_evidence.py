"""A failure leaves a script that repeats it, and what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint_release.parity.evidence import write_evidence
from tests.support.parity_world import (
    World,
    counter_architecture,
    with_output,
)
from tests.support.project import ROOT


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_the_script_shows_by_how_much_an_artifact_is_wrong(
    world: World, exported: dict[str, Path], tmp_path: Path, format: str
) -> None:
    result = world.run(format, exported[format])
    wrong = with_output(result, 1, "pose", result.outputs[1]["pose"] + 1)
    verdict = world.judge_result(format, exported[format], wrong)
    assert verdict.evidence is not None
    script = write_evidence(tmp_path, verdict.candidate, verdict.evidence)
    got = load_file(tmp_path / "got.safetensors")
    np.testing.assert_array_equal(got["pose"], wrong.outputs[1]["pose"])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split()[0] for line in done.stdout.splitlines()]
    assert rows == world.reference.outputs
    # the file itself is right
    errors = [float(line.split()[3]) for line in done.stdout.splitlines()]
    assert max(errors) < 1e-4


def test_the_script_runs_the_code_of_a_model_that_the_project_brought(
    tmp_path: Path,
) -> None:
    world = World.create(tmp_path / "world", counter_architecture())
    folder = world.export("safetensors", tmp_path / "safetensors")
    result = world.run("safetensors", folder)
    wrong = with_output(result, 1, "scores", result.outputs[1]["scores"] + 1)
    verdict = world.judge_result("safetensors", folder, wrong)
    assert verdict.evidence is not None
    script = write_evidence(tmp_path, verdict.candidate, verdict.evidence)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "scores" in done.stdout
