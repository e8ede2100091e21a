"""What a user sees of a model that can't be released as it is, or whose numbers aren't
all float32: a checkout, a model of one's own, params.yaml and `dvc repro`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.runtimes.loader import load
from tests.support import number_models, unsound_models
from tests.support.project import ROOT, Project

FEATURES = {"name": "features", "shape": ["batch", "sequence", 4]}
SEQUENCE = {"sequence": {"minimum": 6, "maximum": 64, "example": 8}}
SIGNATURE: dict[str, Any] = {
    "inputs": [FEATURES],
    "outputs": ["out"],
    "dimensions": SEQUENCE,
}


@pytest.fixture(scope="session")
def empty_checkout(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.checkout(tmp_path_factory.mktemp("checkout") / "project")


@pytest.fixture
def checkout(empty_checkout: Project, tmp_path: Path) -> Project:
    return empty_checkout.copy(tmp_path / "project")


def lay(
    project: Project,
    kind: type[nn.Module],
    formats: tuple[str, ...] = ("safetensors", "onnx", "torchscript"),
    signature: dict[str, Any] | None = None,
    **params: Any,
) -> nn.Module:
    """A model of one's own into the checkout; returns it with its weights."""
    torch.manual_seed(0)
    model = kind().eval()
    source = f"{kind.__module__.rpartition('.')[2]}.py"
    shutil.copy(ROOT / "tests/support" / source, project.path / "mine.py")
    torch.save(model.state_dict(), project.path / "checkpoints/mine.pth")
    every = ("safetensors", "onnx", "torchscript", "torch_export")
    switches = {f"formats__{name}": name in formats for name in every}
    project.set(
        checkpoint__path="checkpoints/mine.pth",
        model__factory=f"mine:{kind.__name__}",
        model__source="mine.py",
        model__signature=signature or SIGNATURE,
        model__inputs=None,
        **switches,
        **params,
    )
    return model


def failure(project: Project, *stages: str) -> str:
    """All that `dvc repro` prints where it fails."""
    done = project.dvc("repro", *stages, check=False)
    assert done.returncode, done.stdout
    output = done.stdout + done.stderr
    assert "Traceback" not in output
    return output


@pytest.mark.slow
def test_a_random_model_is_not_released_as_proven_when_only_its_weights_are(
    checkout: Project,
) -> None:
    lay(checkout, unsound_models.Noisy, ("safetensors",))
    output = failure(checkout)
    assert "the model draws random numbers in forward" in output
    assert "randn_like (mine.py:" in output
    assert not (checkout.path / "artifacts/release").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (unsound_models.Noisy, "draws random numbers"),
        (unsound_models.StaysInTraining, "in training mode after eval()"),
        (unsound_models.Counts, "keeps something between calls"),
        (unsound_models.Optional, "aux was None"),
        (unsound_models.Spectrum, "'out' is complex64"),
        (unsound_models.Table, "dimensions.sequence.maximum is 64"),
    ],
)
@pytest.mark.parametrize("stage", ["export-onnx", "export-torchscript", "parity-check"])
def test_every_stage_that_needs_the_model_names_it_first(
    checkout: Project, kind: type[nn.Module], said: str, stage: str
) -> None:
    formats = {
        "export-onnx": ("onnx",),
        "export-torchscript": ("torchscript",),
        "parity-check": ("safetensors",),
    }
    lay(checkout, kind, formats[stage])
    output = failure(checkout, stage)
    assert said in output
    assert f"failed to reproduce '{stage}'" in output


@pytest.mark.slow
def test_a_decision_by_values_is_named_as_that(checkout: Project) -> None:
    lay(checkout, unsound_models.DecidesByValue, ("torchscript",))
    output = failure(checkout, "export-torchscript")
    assert "forward turns values of tensors into Python's (mine.py:" in output
    assert "torch.where" in output and "took a size" not in output


@pytest.mark.slow
def test_a_size_of_the_default_that_the_model_does_not_take_is_left_out_with_a_note(
    checkout: Project,
) -> None:
    lay(checkout, unsound_models.Head, ("safetensors",))
    output = checkout.dvc("repro").stdout
    note = "sequence 250 is not tried, for the model takes 6 to 64"
    before, _, after = output.partition("Running stage 'export-safetensors'")
    assert note in before and note in after


@pytest.mark.slow
def test_only_an_opset_that_works_is_advised(checkout: Project) -> None:
    lay(checkout, unsound_models.Differences, ("onnx",), onnx__opset=17)
    output = failure(checkout, "export-onnx")
    assert "aten::diff" in output
    assert "set onnx.opset to 18, with onnx.exporter auto or dynamo" in output
    assert "graph(" not in output and len(output.splitlines()) < 20
    checkout.set(onnx__opset=18)
    checkout.dvc("repro", "export-onnx")


@pytest.mark.slow
def test_no_exporter_is_advised_that_fails_too(checkout: Project) -> None:
    lay(checkout, number_models.StateSpace, ("onnx",), onnx__opset=20)
    output = failure(checkout, "export-onnx")
    assert "computes with complex numbers (mine.py:" in output
    assert "ONNX has no type" in output
    assert "set onnx.exporter" not in output and "set onnx.opset" not in output


@pytest.mark.slow
def test_a_model_that_works_in_bfloat16_has_no_onnx(checkout: Project) -> None:
    lay(checkout, number_models.BFloat16, ("onnx",))
    output = failure(checkout, "export-onnx")
    assert "the model works in bfloat16 (head.weight" in output


def release(project: Project, kind: type[nn.Module], *formats: str) -> None:
    """Make a release, and verify it as somebody who has downloaded it."""
    model = lay(project, kind, ("safetensors", *formats), onnx__opset=18)
    project.dvc("repro")
    folder = project.path / "artifacts/release"
    verify = ["python", "-m", "checkpoint_release", "verify", str(folder)]
    project.run(*verify, "--trust", f"mine:{kind.__name__}")
    inputs = load_file(folder / "sample/inputs.safetensors")
    sample = load_file(folder / "sample/outputs.safetensors")["out"]
    with torch.inference_mode():
        expected = model(torch.from_numpy(inputs["features"])).numpy()
    half = kind in (number_models.BFloat16, number_models.Float16)
    tolerance = 1e-2 if half else 1e-5
    np.testing.assert_allclose(sample, expected, atol=tolerance)
    for format in formats:
        found = load(folder, format=format)(**inputs)["out"]
        np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.slow
def test_a_model_with_complex_weights_is_released_whole(checkout: Project) -> None:
    release(checkout, number_models.FourierLayer, "torchscript")
    stored = load_file(checkout.path / "artifacts/safetensors/model.safetensors")
    assert stored["weight"].dtype == np.complex64 and stored["weight"].imag.any()

    # Without its imaginary part, which both sides of a comparison once lost.
    stored["weight"] = stored["weight"].real.astype(np.complex64)
    folder = checkout.path / "artifacts/safetensors"
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    write_manifest(folder, "safetensors")
    done = checkout.run("python", "-m", "pipeline.parity_check", check=False)
    assert done.returncode == 1 and "WRONG" in done.stdout
    assert "the weight weight differs in 48 of 48 elements" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "formats"),
    [
        (number_models.Rotations, ("onnx", "torchscript", "torch_export")),
        (number_models.StateSpace, ("torchscript", "torch_export")),
        (number_models.DoubleBuffer, ("onnx", "torchscript", "torch_export")),
        (number_models.BFloat16, ("torchscript", "torch_export")),
        (number_models.Float16, ("onnx", "torchscript", "torch_export")),
    ],
)
def test_a_model_of_other_numbers_is_released_as_it_is(
    checkout: Project, kind: type[nn.Module], formats: tuple[str, ...]
) -> None:
    release(checkout, kind, *formats)
