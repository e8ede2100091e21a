"""Tables that forward computes of constants, folded by torch's exporters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.onnx.routes import export_graph
from checkpoint_release.parity.constants import weights_of
from checkpoint_release.parity.graph_job import expected_of
from checkpoint_release.parity.graph_proof import GraphProof, judge_graph
from checkpoint_release.parity.onnx_in_double import evaluate_onnx
from tests.support.parity_world import World

WIDTH = 32


class Steps(nn.Module):
    """A diffusion's step, embedded as most code embeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, step: Tensor) -> Tensor:
        half = WIDTH // 2
        powers = torch.arange(half, dtype=torch.float32) * (-math.log(1e4) / half)
        angles = step[:, None].float() * torch.exp(powers)[None]
        return self.head(torch.cat([angles.sin(), angles.cos()], -1))


class Windowed(nn.Module):
    """Sound in a window, and by a table of numpy's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, sound: Tensor) -> Tensor:
        curve = torch.from_numpy(np.sin(np.arange(WIDTH) * 0.37)).to(torch.float32)
        return self.head(sound * torch.hann_window(WIDTH) + curve)


SIGNATURES: dict[str, dict[str, Any]] = {
    "Steps": {
        "name": "step",
        "dtype": "int64",
        "shape": ["batch"],
        "low": 0,
        "high": 1000,
    },
    "Windowed": {"name": "sound", "shape": ["batch", WIDTH]},
}


def exported(folder: Path, name: str, route: str, opset: int) -> tuple[World, Path]:
    """A checkpoint, and its graph as this project exports it."""
    stated = {"inputs": [SIGNATURES[name]], "outputs": ["out"]}
    world = World.create(
        folder, Architecture(f"{__name__}:{name}", {}, read_signature(stated))
    )
    checkpoint = CheckpointFolder.open(world.checkpoint, OWN_ARTIFACTS)
    model = export_graph(route, checkpoint, opset).model
    weights = world.model.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            array = weights[tensor.name].numpy()
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    file = folder / ONNX.file
    onnx.save(model, file)
    return world, file


def proof(world: World, file: Path, *, ask: bool = True) -> GraphProof:
    expected = expected_of(world.reference, [case.name for case in world.cases])
    weights = weights_of(world.checkpoint)
    asked = world.checkpoint if ask else None
    found = evaluate_onnx(file, weights, expected, checkpoint=asked)
    return judge_graph(found, world.reference)


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_table_that_tracing_folded_is_the_one_that_the_model_computes(
    tmp_path: Path, name: str
) -> None:
    world, file = exported(tmp_path, name, "torchscript", 17)
    found = proof(world, file)
    assert found.evaluated and found.passed and found.error <= 1e-11
    assert not proof(world, file, ask=False).passed

    model = onnx.load(file)
    weights = world.model.state_dict()
    table = max(
        (each for each in model.graph.initializer if each.name not in weights),
        key=lambda each: math.prod(each.dims),
    )
    numbers = numpy_helper.to_array(table).copy()
    numbers.flat[1] = np.nextafter(numbers.flat[1], np.float32(9))
    table.CopyFrom(numpy_helper.from_array(numbers, table.name))
    onnx.save(model, file)
    assert not proof(world, file).passed, "one number is one step of float32 off"


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNATURES)
def test_so_is_one_that_the_other_exporter_folded(tmp_path: Path, name: str) -> None:
    world, file = exported(tmp_path, name, "dynamo", 18)
    found = proof(world, file)
    assert found.evaluated and found.passed and found.error <= 1e-11
