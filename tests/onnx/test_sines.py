"""Cosines and sines of an export are right in any runtime, however poor its own are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from checkpoint_release.core.signature import Array, Arrays, sample_inputs
from checkpoint_release.onnx import routes
from checkpoint_release.onnx.sines import compute_sines
from checkpoint_release.parity.double_graph import DoubleGraph
from checkpoint_release.runtimes.open import open_runtime
from tests.models.test_stick_figure_onnx import run
from tests.support.exports import export_to_onnx, write_figure
from tests.support.tiny_release import sizes_of

ALLOWED_BY_WEBGPU = 2.0**-11
"""The error of a sine between -π and π: www.w3.org/TR/WGSL/#floating-point-accuracy"""


def pair_of(dtype: int = TensorProto.FLOAT, opset: int = 17) -> onnx.ModelProto:
    """Angles in, their cosines and sines out, by the runtime's own functions."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, dtype, ["n"])

    nodes = [
        helper.make_node("Cos", ["angles"], ["cos"], "cos"),
        helper.make_node("Sin", ["angles"], ["sin"], "sin"),
    ]
    outputs = [value("cos"), value("sin")]
    graph = helper.make_graph(nodes, "pair", [value("angles")], outputs)
    opsets = [helper.make_opsetid("", opset)]
    lowest = helper.find_min_ir_version_for(opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=lowest)


def computed(opset: int = 17) -> onnx.ModelProto:
    """The same by arithmetic."""
    model = pair_of(opset=opset)
    compute_sines(model)
    return model


def rotary_angles(length: int) -> Array:
    """Of every position, in float32, as a model has them."""
    frequencies = np.float32(10000.0) ** -np.linspace(0, 1, 20, dtype=np.float32)
    positions = np.arange(length, dtype=np.float32)
    return (positions[:, None] * frequencies).ravel()


def error(found: Arrays, angles: Array) -> float:
    wide = angles.astype(np.float64)
    errors = []
    for name, exact in (("cos", np.cos(wide)), ("sin", np.sin(wide))):
        errors.append(np.abs(found[name].astype(np.float64) - exact).max())
    return float(max(errors))


@pytest.mark.parametrize("length", [1, 250, 5200])
def test_in_float32_they_are_as_good_as_a_c_librarys(length: int) -> None:
    angles = rotary_angles(length)
    angles = np.concatenate([angles, -angles])
    assert error(run(computed(), {"angles": angles}), angles) < 1.2e-7


def test_past_any_length_they_err_less_than_the_rounding_of_the_angles() -> None:
    angles = np.linspace(1e5, 3e6, 50_000).astype(np.float32)
    rounding = np.spacing(angles).max() / 2
    found = run(computed(), {"angles": angles})
    assert error(found, angles) < rounding
    assert all(np.abs(array).max() <= 1.0000002 for array in found.values())


@pytest.mark.parametrize("largest", [1.0, 5e3, 1e6])
def test_in_float64_they_are_right_to_float64(largest: float, tmp_path: Path) -> None:
    path = tmp_path / "sines.onnx"
    onnx.save(computed(), path)
    angles = np.linspace(-largest, largest, 20_001)
    found = DoubleGraph(path).run({"angles": angles})
    assert error(found, angles) < 1e-14 + 1e-19 * largest


def test_an_end_of_the_fraction_that_comes_too_early_shows_in_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_release.onnx.sines.LAST_TERM", 9)
    path = tmp_path / "sines.onnx"
    onnx.save(computed(), path)
    angles = np.linspace(-4, 4, 1001)
    assert error(DoubleGraph(path).run({"angles": angles}), angles) > 1e-12


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
def test_of_what_is_no_angle_there_is_no_sine(number: float) -> None:
    angles = np.array([number], np.float32)
    for array in run(computed(), {"angles": angles}).values():
        assert np.isnan(array).all()


# ------------------------------------------------------------------------------
# What is replaced


@pytest.mark.parametrize("opset", [14, 25])
def test_the_operators_are_in_every_opset(opset: int) -> None:
    model = computed(opset)
    onnx.checker.check_model(model, full_check=True)
    operators = {node.op_type for node in model.graph.node}
    assert operators == {"Abs", "Add", "Div", "Floor", "Mul", "Sub"}
    described = {value.name for value in model.graph.value_info}
    inner = {name for node in model.graph.node for name in node.output}
    assert described == inner - {"cos", "sin"}


def test_a_sine_alone_is_the_models_own() -> None:
    model = pair_of()
    model.graph.node[1].input[0] = "cos"
    before = model.SerializeToString()
    compute_sines(model)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_other_precisions_are_left(dtype: int) -> None:
    model = pair_of(dtype)
    before = model.SerializeToString()
    compute_sines(model)
    assert model.SerializeToString() == before


def test_two_pairs_share_their_constants() -> None:
    model = pair_of()
    for name in ("cos", "sin"):
        node = helper.make_node(name.capitalize(), ["more"], [f"{name}_2"])
        model.graph.node.append(node)
        value = helper.make_tensor_value_info(f"{name}_2", TensorProto.FLOAT, ["n"])
        model.graph.output.append(value)
    more = helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n"])
    model.graph.input.append(more)
    compute_sines(model)
    onnx.checker.check_model(model, full_check=True)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(set(names)) == len(names)
    angles = rotary_angles(50)
    found = run(model, {"angles": angles, "more": angles + 1})
    assert error(found, angles) < 1.2e-7
    second = {name: found[f"{name}_2"] for name in ("cos", "sin")}
    assert error(second, angles + 1) < 1.2e-7


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


def test_the_poor_runtime_has_the_error_that_it_should() -> None:
    angles = np.linspace(-3, 3, 10_001, dtype=np.float32)
    found = in_a_poor_runtime(pair_of(), {"angles": angles})
    assert error(found, angles) == pytest.approx(ALLOWED_BY_WEBGPU, rel=0.01)
    assert error(in_a_poor_runtime(computed(), {"angles": angles}), angles) < 1.2e-7


@pytest.mark.parametrize(
    ("exporter", "opset"),
    [
        ("direct", 17),
        ("direct", 23),
        pytest.param("torchscript", 17, marks=pytest.mark.slow),
        pytest.param("dynamo", 20, marks=pytest.mark.slow),
    ],
)
def test_an_export_needs_no_sine_of_the_runtimes(
    exporter: str, opset: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same export with the runtime's own is far off."""
    checkpoint = write_figure(tmp_path / "checkpoint")
    wide = open_runtime("checkpoint", checkpoint, dtype="float64")
    sizes = sizes_of(wide.signature, sequence=60, batch=1)
    inputs = sample_inputs(wide.signature, sizes, seed=1)
    exact = wide.run(inputs)
    noise = furthest(open_runtime("checkpoint", checkpoint).run(inputs), exact)

    def multiple(name: str) -> float:
        folder = tmp_path / name
        export_to_onnx(checkpoint, folder, exporter=exporter, opset=opset)
        model = onnx.load(folder / "model.onnx")
        return furthest(in_a_poor_runtime(model, inputs), exact) / noise

    assert multiple("computed") < 4
    monkeypatch.setattr(routes, "compute_sines", lambda model: None)
    assert multiple("by the runtime") > 30


def furthest(got: Arrays, expected: Arrays) -> float:
    assert list(got) == list(expected)
    errors = []
    for name, array in expected.items():
        errors.append(np.abs(got[name].astype(np.float64) - array).max())
    return float(max(errors))
