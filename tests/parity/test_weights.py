"""A weight that was changed in a file is found, whatever it is called there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.parity.weights import compare_weights
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.parity_world import World, no_warnings


def change_one_weight(format: str, folder: Path, name: str, index: int = 3) -> None:
    """Make one number of one weight a thousandth larger, in the file."""
    if format == "safetensors":
        weights = load_file(folder / "model.safetensors")
        weights[name].view(-1)[index] *= 1.001
        save_file(weights, folder / "model.safetensors")
    elif format == "torchscript":
        with no_warnings():
            module = torch.jit.load(str(folder / "model.pt"))
            module.state_dict()[f"model.{name}"].view(-1)[index] *= 1.001
            torch.jit.save(module, str(folder / "model.pt"))
    else:
        model = onnx.load(folder / "model.onnx")
        (tensor,) = (
            tensor
            for tensor in model.graph.initializer
            if tensor.name == f"model.{name}"
        )
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[index] *= np.float32(1.001)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(model, folder / "model.onnx")
    write_manifest(folder, format)


def test_complex_weights_are_found_by_their_content(tmp_path: Path) -> None:
    spectrum = np.array([[1 + 2j, 3 - 1j], [0.5j, -2 + 1j]], np.complex64)
    tensors = {"spectrum": Tensor.of_numpy(spectrum)}
    write_safetensors(tmp_path / WEIGHTS_FILE, tensors, {"format": "pt"})

    def found(held: np.ndarray) -> tuple[int, list[str]]:
        report = compare_weights({"renamed": held}, tmp_path)
        return report.found, report.wrong

    assert found(spectrum) == (1, [])
    assert found(spectrum.T) == (1, [])
    assert found(np.ones((2, 2), np.float32)) == (0, [])
    (lost,) = found(spectrum.real.copy())[1]
    assert lost == "spectrum (there: renamed) lost its imaginary part"
    damaged = spectrum.copy()
    damaged[0, 1] = 3 + 1j
    (wrong,) = found(damaged)[1]
    assert "differs in 1 of 4 elements, first at [0, 1]" in wrong


# Of the last, a change by a thousandth disappears in float32's rounding of the outputs.
WEIGHTS = [
    "transformer_encoder.layers.0.norm1.weight",
    "transformer_encoder.layers.1.self_attn.k_proj.bias",
]


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_one_number_of_one_weight_off_by_a_thousandth_is_caught(
    world: World, exported: dict[str, Path], tmp_path: Path, format: str, name: str
) -> None:
    folder = Path(shutil.copytree(exported[format], tmp_path / format))
    change_one_weight(format, folder, name)
    verdict = world.judge(format, folder)
    assert not verdict.passed
    assert name in str(verdict.problem) and "1 of 32 elements" in str(verdict.problem)


@pytest.mark.parametrize("format", ["safetensors", "onnx", "torchscript"])
def test_float16_weights_passed_off_as_float32_are_caught(
    world: World, tmp_path: Path, format: str
) -> None:
    model = world.copy_of_model().half().float()
    verdict = world.judge(format, world.export(format, tmp_path / format, model))
    assert not verdict.passed
    if format == "onnx":
        assert "rounded to float16" in str(verdict.problem)
        assert len(verdict.wrong_outputs) == len(verdict.outputs)


def test_a_weight_whose_equal_is_intact_elsewhere_is_still_compared(
    world: World, tmp_path: Path
) -> None:
    """The rotary frequencies are the same in every layer."""
    folder = world.export("torchscript", tmp_path / "torchscript")
    change_one_weight(
        "torchscript", folder, "transformer_encoder.layers.1.self_attn.rope.inv_freq"
    )
    verdict = world.judge("torchscript", folder)
    assert "layers.1.self_attn.rope.inv_freq" in str(
        verdict.problem
    ) and "1 of 8 elements" in str(verdict.problem)
