"""Checkpoints whose outputs the original model computed: every format, from its files,
must compute the same.

`tests/fixtures` holds each checkpoint with cases: inputs (in.*), and outputs in float32
(out.*) and float64 (out64.*).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint_release.runtimes.loader import load as load_artifact
from pipeline import export_onnx, export_safetensors, export_torchscript, load
from tests.support.project import ROOT, Project

FIXTURES = ROOT / "tests/fixtures"
CASES = sorted(
    path.relative_to(FIXTURES).as_posix()
    for path in FIXTURES.glob("*/case*.safetensors")
)


def arrays(case: str, prefix: str) -> dict[str, np.ndarray]:
    stored = load_file(FIXTURES / case)
    return {
        name.removeprefix(prefix): value
        for name, value in stored.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize("case", CASES)
def test_every_format_computes_what_the_original_computed(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = FIXTURES / case.partition("/")[0]
    facts = json.loads((fixture / "info.json").read_text())["model"]
    inputs, exact, original = (
        arrays(case, "in."),
        arrays(case, "out64."),
        arrays(case, "out."),
    )
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    Project(tmp_path).set(
        checkpoint__path=str(fixture / "checkpoint.pth"),
        model__inputs=list(inputs),
        model__image_size=facts.get("image_size"),
    )
    for stage in (load, export_safetensors, export_onnx, export_torchscript):
        stage.main()

    for folder in ("safetensors", "onnx", "torchscript"):
        outputs = load_artifact(Path("artifacts") / folder)(**inputs)
        assert list(outputs) == [
            "pose",
            "position",
            "velocity",
            "action_logits",
            "physics",
            "environment",
        ]
        for name, output in outputs.items():
            assert output.shape == exact[name].shape
            # What float32 cost the original itself is the measure, and a few units in
            # the last place of the largest.
            noise = (
                np.abs(original[name] - exact[name]).max()
                + 4e-7 * np.abs(exact[name]).max()
            )
            error = np.abs(output - exact[name]).max()
            assert error <= 4 * noise, (
                f"{folder} {name}: {error:.3g}, the original's own error is {noise:.3g}"
            )
