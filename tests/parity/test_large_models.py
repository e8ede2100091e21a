"""A large model's weights stay in their file, and what is found of it is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from checkpoint_release.core import large
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.signature import Arrays
from checkpoint_release.parity import double_graph
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.workers import Job, JobResult, run_job
from checkpoint_release.runtimes.eager import flatten
from checkpoint_release.runtimes.precision import double_precision, widen
from tests.support import zoo
from tests.support.parity_world import (
    drawn,
    stick_figure_architecture,
    trained,
    write_checkpoint,
    write_format,
)
from tests.support.project import ROOT

SAMPLE = ["transformer_block", "language_model", "lstm", "convolution_and_batch_norm"]
FORMATS = ["checkpoint", "safetensors", "onnx", "torchscript"]


def hold_nothing(patch: pytest.MonkeyPatch) -> None:
    """Let every model count as a large one."""
    patch.setattr(double_graph, "LARGEST_HELD", 0)
    patch.setattr(large, "LARGE", 0)


def write_all(folder: Path, family: str) -> list[Case]:
    architecture = zoo.architecture(family)
    model = trained(architecture)
    write_checkpoint(folder / "checkpoint", architecture, model)
    for format in FORMATS[1:]:
        write_format(format, folder / format, architecture, model)
    return drawn(architecture.signature, 0, 1)[:3]


def run(folder: Path, format: str, dtype: str, cases: list[Case]) -> JobResult:
    """Run a format and compare its weights; ONNX in float64 is told them."""
    job = Job(format, folder / format, dtype, None, folder / "checkpoint")  # type: ignore[arg-type]
    result = run_job(job, cases)
    assert result.failure is None
    return result


def assert_same(found: list[Arrays], expected: list[Arrays]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        for name, array in wanted.items():
            assert got[name].dtype == array.dtype
            np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize("family", sorted(zoo.FAMILIES))
def test_a_model_whose_modules_are_widened_one_at_a_time_computes_the_same(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = zoo.architecture(family)
    whole, parts = trained(architecture), trained(architecture)
    widen(whole)
    monkeypatch.setattr(large, "LARGE", 0)
    widen(parts)
    before = [parameter.data_ptr() for parameter in parts.parameters()]
    for case in drawn(architecture.signature, 0, 1)[:2]:
        tensors = {}
        for name, array in case.inputs.items():
            tensor = torch.tensor(array)
            tensors[name] = tensor.double() if tensor.is_floating_point() else tensor
        with torch.inference_mode(), double_precision():
            expected, found = whole(**tensors), parts(**tensors)
        for one, other in zip(flatten(found), flatten(expected), strict=True):
            assert torch.equal(one, other)
    assert [parameter.data_ptr() for parameter in parts.parameters()] == before
    assert torch.float64 not in {each.dtype for each in parts.parameters()}


class Renormed(nn.Module):
    """Writes to its own weights, and then fails where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(4, 3, max_norm=0.1)
        self.line = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, *, fail: bool = False) -> torch.Tensor:
        found = self.line(self.rows(x)) + self.line.weight.sum()
        if fail:
            raise ValueError("asked to")
        return found


@pytest.mark.parametrize("fail", [False, True])
def test_weights_are_narrow_again_after_a_run_but_those_that_it_changed(
    monkeypatch: pytest.MonkeyPatch, fail: bool
) -> None:
    monkeypatch.setattr(large, "LARGE", 0)
    model = widen(Renormed().eval())
    rows = torch.arange(4)
    with torch.inference_mode(), double_precision():
        if fail:
            with pytest.raises(ValueError, match="asked to"):
                model(rows, fail=True)
        else:
            assert model(rows).dtype == torch.float64
    assert model.line.weight.dtype == torch.float32
    assert model.rows.weight.dtype == torch.float64
    assert model.rows.weight.norm(dim=1).max() < 0.11


@pytest.mark.parametrize("family", SAMPLE)
def test_every_format_of_a_large_model_computes_the_same(
    tmp_path: Path, family: str
) -> None:
    cases = write_all(tmp_path, family)
    if family == "language_model":  # as the file is past 2 GB
        file = tmp_path / "onnx" / ONNX.file
        onnx.save(onnx.load(file), file, save_as_external_data=True, size_threshold=0)
        assert len(list(file.parent.iterdir())) > 3
    for format in FORMATS:
        for dtype in ("own", "float64"):
            expected = run(tmp_path, format, dtype, cases)
            with pytest.MonkeyPatch.context() as patch:
                hold_nothing(patch)
                found = run(tmp_path, format, dtype, cases)
            assert_same(found.outputs, expected.outputs)
            assert found.weights == expected.weights


def test_a_weight_that_is_off_by_its_last_bit_is_found_in_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = write_all(tmp_path, "transformer_block")
    hold_nothing(monkeypatch)
    right = run(tmp_path, "onnx", "own", cases)
    assert right.weights is not None and right.weights.wrong == []
    file = tmp_path / "onnx" / ONNX.file
    model = onnx.load(file)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    array = numpy_helper.to_array(weight).copy()
    array.flat[5] = np.nextafter(array.flat[5], np.float32(9))
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    onnx.save(model, file)
    wrong = run(tmp_path, "onnx", "own", cases)
    assert wrong.weights is not None and "1 of" in wrong.weights.wrong[0]
    double, before = (
        run(tmp_path, name, "float64", cases).outputs for name in ("onnx", "checkpoint")
    )
    assert any(
        not np.allclose(got[name], array, rtol=1e-12, atol=1e-12)
        for got, wanted in zip(double, before, strict=True)
        for name, array in wanted.items()
    )


@pytest.fixture(scope="module")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stick figure of eight layers, 100 MB, in every format."""
    folder = tmp_path_factory.mktemp("large")
    architecture = stick_figure_architecture(d_model=512, nhead=8, num_layers=8)
    model = trained(architecture)
    write_checkpoint(folder / "checkpoint", architecture, model)
    for format in FORMATS[1:]:
        write_format(format, folder / format, architecture, model)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        ("checkpoint", "own"),
        ("checkpoint", "float64"),
        ("safetensors", "own"),
        ("onnx", "own"),
        ("onnx", "float64"),
        ("torchscript", "own"),
        ("torchscript", "float64"),
    ],
)
def test_a_job_of_a_large_model_holds_its_weights_once(
    large_model: Path, format: str, dtype: str
) -> None:
    """Beside them, one of eight layers in float64 and what is computed on the way."""
    command = [
        sys.executable,
        "-m",
        "tests.support.one_job",
        str(large_model),
        format,
        dtype,
    ]
    done = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300
    )
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["failure"] is None
    assert figures["memory"] < 1.5 * figures["weights"] + (32 << 20), figures
