"""checkpoint-release parity: one model against another."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.parity import read_report
from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.runtimes.loader import Model
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.parity_world import World

Printed = pytest.CaptureFixture[str]
FACTORY = "checkpoint_release.models.stick_figure:build"


@pytest.fixture(scope="module")
def pth(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world's checkpoint as torch.save writes it."""
    path = tmp_path_factory.mktemp("pth") / "model.pth"
    torch.save(world.model.state_dict(), path)
    return path


def with_a_weight_one_step_off(source: Path, folder: Path) -> Path:
    """A copy of an ONNX file that float32's noise hides a mistake in."""
    model = onnx.load(source / "model.onnx")
    tensor = next(each for each in model.graph.initializer if len(each.dims) == 2)
    array = numpy_helper.to_array(tensor).copy()
    array[0, 0] *= 1 + 2**-22
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    changed = folder / "changed.onnx"
    onnx.save(model, changed)
    return changed


def test_a_pth_and_its_onnx_file_pass_both_questions(
    pth: Path, exported: dict[str, Path], capsys: Printed
) -> None:
    assert main(["parity", str(pth), str(exported["onnx"])]) == 0
    printed = capsys.readouterr().out
    assert "ok" in printed and "WRONG" not in printed
    assert "graph: evaluated in float64" in printed


def test_a_difference_below_the_noise_is_a_difference(
    pth: Path, exported: dict[str, Path], tmp_path: Path, capsys: Printed
) -> None:
    changed = with_a_weight_one_step_off(exported["onnx"], tmp_path)
    assert main(["parity", str(pth), str(changed)]) == 1
    assert "its graph is not the model's" in capsys.readouterr().out


def test_two_onnx_files_are_compared_with_constants_as_they_are(
    exported: dict[str, Path], tmp_path: Path
) -> None:
    same = str(exported["onnx"])
    changed = with_a_weight_one_step_off(exported["onnx"], tmp_path)
    assert main(["parity", same, same]) == 0
    assert main(["parity", same, str(changed)]) == 1


def test_an_onnx_file_can_be_the_reference_of_another_format(
    exported: dict[str, Path],
) -> None:
    assert main(["parity", str(exported["onnx"]), str(exported["torchscript"])]) == 0


def test_a_model_that_has_run_is_given_up_before_another_runs(
    pth: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two large models, each in two precisions, would hold their weights four times."""
    has_run: list[weakref.ref[Model]] = []
    call = Model.__call__

    def watched_call(model: Model, **inputs: Any) -> Any:
        alive = [each() for each in has_run]
        assert all(each is None or each is model for each in alive)
        if model not in alive:
            has_run.append(weakref.ref(model))
        return call(model, **inputs)

    monkeypatch.setattr(Model, "__call__", watched_call)
    assert main(["parity", str(pth), str(exported["onnx"])]) == 0
    assert len(has_run) == 3  # the .pth in its own dtypes and in float64, the ONNX file


def test_the_model_of_a_pth_can_be_named(
    pth: Path, exported: dict[str, Path], world: World
) -> None:
    named = ["--factory", FACTORY, "--kwargs", json.dumps(world.architecture.kwargs)]
    assert main(["parity", str(pth), str(exported["onnx"]), *named]) == 0


def test_given_inputs_are_the_only_case_and_figures_go_to_a_file(
    exported: dict[str, Path], world: World, tmp_path: Path, capsys: Printed
) -> None:
    case, report = tmp_path / "case.safetensors", tmp_path / "report.json"
    sizes = dict.fromkeys(world.architecture.signature.dimensions, 3)
    inputs = sample_inputs(world.architecture.signature, sizes, 0, 1.0)
    write_safetensors(
        case, {name: Tensor.of_numpy(array) for name, array in inputs.items()}
    )
    models = [str(exported["torchscript"]), str(exported["onnx"])]
    asked = ["--inputs", str(case), "--report", str(report)]
    assert main(["parity", *models, *asked]) == 0
    assert "1 cases" in capsys.readouterr().out
    figures = read_report(report)
    assert figures.passed and figures.rule.cases == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--noise-multiple", "0"], "--noise-multiple is 0"),
        (["--factory", FACTORY], "--factory builds the model of a .pth"),
        (["--inputs", "missing.safetensors"], "missing.safetensors"),
    ],
)
def test_what_cannot_be_asked_is_one_error(
    exported: dict[str, Path], arguments: list[str], problem: str, capsys: Printed
) -> None:
    models = [str(exported["onnx"]), str(exported["torchscript"])]
    assert main(["parity", *models, *arguments]) == 1
    printed = capsys.readouterr().err
    assert problem in printed and "what to do" in printed


def test_arguments_of_a_factory_that_are_no_object_are_an_error(
    pth: Path, exported: dict[str, Path], capsys: Printed
) -> None:
    named = ["--factory", FACTORY, "--kwargs", "[1]"]
    assert main(["parity", str(pth), str(exported["onnx"]), *named]) == 1
    assert "--kwargs is '[1]'" in capsys.readouterr().err
