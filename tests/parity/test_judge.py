"""What an artifact computes is held to its rule, case by case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.config import ModelConfig
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.parity.candidates import NOISE, REDUCED, Candidate
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.judge import Verdict, judge
from checkpoint_release.parity.plots import write_plots
from checkpoint_release.parity.rules import Tolerance
from checkpoint_release.parity.sample import write_sample
from checkpoint_release.parity.weights import compare_by_name
from checkpoint_release.parity.workers import Job, run_job
from checkpoint_release.tensors.safetensors import open_sharded
from tests.support.models import SIGNATURES, Guided
from tests.support.parity_world import (
    LIMITS,
    World,
    counter_architecture,
    with_output,
)


def test_a_defect_in_one_case_of_many_is_not_averaged_away(
    world: World, exported: dict[str, Path]
) -> None:
    result = world.run("onnx", exported["onnx"])
    for number, case in enumerate(world.cases):
        pose = result.outputs[number]["pose"].copy()
        reach = float(np.abs(pose).max())
        pose.reshape(-1)[-1] += 1e-4 * (10 if case.magnitude > 1 else 1) * reach
        changed = with_output(result, number, "pose", pose)
        verdict = world.judge_result("onnx", exported["onnx"], changed)
        assert not verdict.passed
        assert verdict.evidence is not None
        assert verdict.evidence.reference.case is case
        assert verdict.evidence.got["pose"] is pose


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_never_pass_not_even_with_a_huge_tolerance(
    world: World, exported: dict[str, Path], bad: float
) -> None:
    result = world.run("onnx", exported["onnx"])
    physics = result.outputs[2]["physics"].copy()
    physics[0, 0, 0] = bad
    changed = with_output(result, 2, "physics", physics)
    lenient = replace(LIMITS, noise_multiple=1e30)
    assert world.judge_result("onnx", exported["onnx"], result, lenient).passed
    assert not world.judge_result("onnx", exported["onnx"], changed, lenient).passed


def test_names_dtypes_and_shapes_of_outputs_are_compared(
    world: World, exported: dict[str, Path]
) -> None:
    good = world.run("onnx", exported["onnx"])
    forms: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "outputs are": lambda arrays: dict(reversed(arrays.items())),
        "float64": lambda arrays: {
            name: array.astype(np.float64) for name, array in arrays.items()
        },
        "pose is float32 [": lambda arrays: {
            **arrays,
            "pose": arrays["pose"].swapaxes(0, 1),
        },
    }
    for problem, change in forms.items():
        changed = replace(good, outputs=[change(arrays) for arrays in good.outputs])
        verdict = world.judge_result("onnx", exported["onnx"], changed)
        assert not verdict.passed and problem in str(verdict.problem)


def test_a_fixed_tolerance_replaces_the_rule_for_its_output_alone(
    world: World, exported: dict[str, Path]
) -> None:
    result = world.run("onnx", exported["onnx"])

    def with_tolerance(atol: float) -> Verdict:
        limits = replace(LIMITS, tolerances={"velocity": Tolerance(atol, rtol=0.0)})
        return world.judge_result("onnx", exported["onnx"], result, limits)

    assert with_tolerance(1e-2).passed
    strict = with_tolerance(1e-12)
    assert [output.name for output in strict.wrong_outputs] == ["velocity"]
    assert "times its tolerance" in str(strict.problem)


def test_whole_numbers_and_exact_outputs_are_judged_too(tmp_path: Path) -> None:
    world = World.create(tmp_path, counter_architecture())
    folder = world.export("onnx", tmp_path / "onnx")
    result = world.run("onnx", folder)
    verdict = world.judge_result("onnx", folder, result)
    assert verdict.passed, verdict.problem
    for name in ("winner", "tokens_again"):
        assert verdict.outputs[name].identical == len(world.cases)

    changed = with_output(result, 0, "winner", result.outputs[0]["winner"] + 1)
    wrong = world.judge_result("onnx", folder, changed)
    assert [output.name for output in wrong.wrong_outputs] == ["winner"]
    assert "winner differs" in str(wrong.problem)


def test_inputs_and_outputs_of_no_dimension_are_judged_too(tmp_path: Path) -> None:
    signature = read_signature(SIGNATURES[Guided])
    world = World.create(
        tmp_path, Architecture("tests.support.models:Guided", {}, signature)
    )
    assert all(
        type(array) is np.ndarray
        for case in world.cases
        for array in case.inputs.values()
    )
    verdicts = []
    for format in ("onnx", "torchscript"):
        result = world.run(format, world.export(format, tmp_path / format))
        verdict = world.judge_result(format, tmp_path / format, result)
        assert verdict.passed, verdict.problem
        assert result.outputs[0]["mean"].shape == ()
        verdicts.append(verdict)
    write_sample(tmp_path / "sample", world.reference)
    assert load_file(tmp_path / "sample/inputs.safetensors")["strength"].shape == ()
    check = ParityCheck(LIMITS, world.reference, verdicts)
    write_plots(tmp_path / "plots", check, signature)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_reduced_precision_is_named_and_held_to_its_own_tolerance(
    world: World, tmp_path: Path, dtype: str
) -> None:
    folder = tmp_path / "safetensors"
    folder.mkdir()
    ModelConfig(world.architecture).write(folder)
    weights = {
        name: tensor.to(getattr(torch, dtype))
        for name, tensor in world.model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    held = compare_by_name(open_sharded(folder), world.checkpoint, dtype)
    assert held.found == held.total and not held.wrong
    assert compare_by_name(open_sharded(folder), world.checkpoint, "keep").wrong

    result = run_job(Job("safetensors", folder), world.cases)
    result = replace(result, weights=held)
    name = f"safetensors {dtype}"
    reduced = Candidate(name, "safetensors", folder, REDUCED, dtype)
    assert judge(reduced, result, world.reference, LIMITS).passed
    as_float32 = Candidate("safetensors", "safetensors", folder, NOISE)
    assert not judge(as_float32, result, world.reference, LIMITS).passed

    weights["pose_decoder.3.bias"][0] += 0.5
    save_file(weights, folder / "model.safetensors")
    assert compare_by_name(open_sharded(folder), world.checkpoint, dtype).wrong
