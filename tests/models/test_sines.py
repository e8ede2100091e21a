"""Cosines and sines of a graph are right in any runtime, however poor its own are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from checkpoint_release.core.signature import Array, Arrays, TensorSpec
from checkpoint_release.models.stick_figure import graph, onnx_graph, signature
from checkpoint_release.models.stick_figure.onnx_builder import GraphBuilder, Value
from checkpoint_release.models.stick_figure.sines import cosine_and_sine
from checkpoint_release.parity.double_graph import DoubleGraph
from tests.models.test_stick_figure_onnx import (
    arrays,
    eager,
    furthest,
    run,
    sized,
    with_bytes,
)
from tests.support.stick_figure import MOTION_ONLY, random_model

ALLOWED_BY_WEBGPU = 2.0**-11
"""The error of a sine between -π and π: https://www.w3.org/TR/WGSL/#floating-point-accuracy"""
Way = Callable[[GraphBuilder, Value, str], tuple[Value, Value]]


def by_operators(g: GraphBuilder, angles: Value, scope: str) -> tuple[Value, Value]:
    """By the runtime's own functions: the negative control."""
    cos = g.op("Cos", [angles], angles.shape, f"{scope}/cos")
    return cos, g.op("Sin", [angles], angles.shape, f"{scope}/sin")


def sines_graph(opset: int = 17, way: Way = cosine_and_sine) -> onnx.ModelProto:
    """Angles in, cosines and sines out."""
    g = GraphBuilder({}, opset)
    angles = g.input(TensorSpec("angles", shape=("n",)))
    names = [value.name for value in way(g, angles, "found")]
    specs = [TensorSpec(name, shape=("n",)) for name in names]
    return g.model("sines", "", specs)


def rotary_angles(length: int) -> Array:
    """Of every position, in float32, as a model has them."""
    frequencies = np.float32(10000.0) ** -np.linspace(0, 1, 20, dtype=np.float32)
    positions = np.arange(length, dtype=np.float32)
    return (positions[:, None] * frequencies).ravel()


def error(found: Arrays, angles: Array) -> float:
    exact = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))
    errors = []
    for got, expected in zip(found.values(), exact, strict=True):
        errors.append(np.abs(got.astype(np.float64) - expected).max())
    return float(max(errors))


@pytest.mark.parametrize("length", [1, 250, 5200])
def test_in_float32_they_are_as_good_as_a_c_librarys(length: int) -> None:
    angles = rotary_angles(length)
    angles = np.concatenate([angles, -angles])
    assert error(run(sines_graph(), {"angles": angles}), angles) < 1.2e-7


def test_past_any_length_they_err_less_than_the_rounding_of_the_angles() -> None:
    angles = np.linspace(1e5, 3e6, 50_000).astype(np.float32)
    rounding = np.spacing(angles).max() / 2
    found = run(sines_graph(), {"angles": angles})
    assert error(found, angles) < rounding
    assert all(np.abs(array).max() <= 1.0000002 for array in found.values())


@pytest.mark.parametrize("largest", [1.0, 5e3, 1e6])
def test_in_float64_they_are_right_to_float64(largest: float, tmp_path: Path) -> None:
    path = tmp_path / "sines.onnx"
    onnx.save(sines_graph(), path)
    angles = np.linspace(-largest, largest, 20_001)
    found = DoubleGraph(path).run({"angles": angles})
    assert error(found, angles) < 1e-14 + 1e-19 * largest


def test_an_end_of_the_fraction_that_comes_too_early_shows_in_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_release.models.stick_figure.sines.LAST_TERM", 9)
    path = tmp_path / "sines.onnx"
    onnx.save(sines_graph(), path)
    angles = np.linspace(-4, 4, 1001)
    assert error(DoubleGraph(path).run({"angles": angles}), angles) > 1e-12


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_of_what_is_no_angle_there_is_no_sine(number: float) -> None:
    angles = np.array([number], np.float32)
    for array in run(sines_graph(), {"angles": angles}).values():
        assert np.isnan(array).all()


# ------------------------------------------------------------------------------
# In a runtime with the poorest sine that WebGPU allows


class PoorCos(OpRun):
    """A cosine with that error."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (poor(np.cos(x), x),)


class PoorSin(OpRun):
    """A sine with that error."""

    op_domain = ""

    def _run(self, x: Array) -> tuple[Array]:
        return (poor(np.sin(x), x),)


PoorCos.__name__, PoorSin.__name__ = "Cos", "Sin"


def poor(right: Array, x: Array) -> Array:
    """Now this much too large, now too small."""
    return right + (ALLOWED_BY_WEBGPU * np.cos(97 * x)).astype(right.dtype)


def in_a_poor_runtime(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    evaluator: Any = ReferenceEvaluator(model, new_ops=[PoorCos, PoorSin])
    names = [output.name for output in model.graph.output]
    return dict(zip(names, evaluator.run(names, inputs), strict=True))


@pytest.mark.parametrize("opset", [17, 23])
def test_the_model_needs_no_sine_of_the_runtimes(
    opset: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same graph with the runtime's own is far off."""
    model = random_model(MOTION_ONLY)
    weights = arrays(model)
    found = signature(MOTION_ONLY, ["motion", "text_embedding"])
    inputs = sized(found, sequence=60, batch=1)
    exact = eager(model, inputs, torch.float64)
    noise = furthest(eager(model, inputs), exact)

    def multiple() -> float:
        made = with_bytes(onnx_graph(MOTION_ONLY, weights, found, opset), weights)
        return furthest(in_a_poor_runtime(made, inputs), exact) / noise

    assert multiple() < 4
    monkeypatch.setattr(graph, "cosine_and_sine", by_operators)
    assert multiple() > 30


def test_the_poor_runtime_has_the_error_that_it_should() -> None:
    angles = np.linspace(-3, 3, 10_001, dtype=np.float32)
    found = in_a_poor_runtime(sines_graph(way=by_operators), {"angles": angles})
    assert error(found, angles) == pytest.approx(ALLOWED_BY_WEBGPU, rel=0.01)
    assert error(in_a_poor_runtime(sines_graph(), {"angles": angles}), angles) < 1.2e-7


@pytest.mark.parametrize("opset", [14, 25])
def test_the_operators_are_in_every_opset(opset: int) -> None:
    model = sines_graph(opset)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import == [helper.make_opsetid("", opset)]
    assert {node.op_type for node in model.graph.node} == {
        "Abs",
        "Add",
        "Div",
        "Floor",
        "Mul",
        "Sub",
    }
