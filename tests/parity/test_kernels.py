"""What kernels may cost, of graphs of one node or two."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from checkpoint_release.core.signature import Array
from checkpoint_release.parity.costly_kernel import name_costly_kernel
from checkpoint_release.parity.double_graph import NO_WEIGHTS, DoubleGraph
from checkpoint_release.parity.graph_proof import Expected
from checkpoint_release.parity.kernel_cost import (
    FLOAT32_STEP,
    FLOAT64_STEP,
    kernel_costs,
)
from checkpoint_release.parity.onnx_in_double import _weighted
from tests.support.references import case

X: Array = np.array([[-9.0, -0.5, 0.25], [1.5, 2.0, 30.0]], np.float32)
WEIGHT: Array = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]], np.float32)
SIGNAL: Array = np.linspace(-2, 3, 12, dtype=np.float32).reshape(1, 2, 6)
FILTER: Array = np.array([[[1, -2], [0.5, 1]]], np.float32)
INTO_ONE: Array = FILTER.swapaxes(0, 1).copy()


def graph(folder: Path, *nodes: onnx.NodeProto, **constants: Array) -> Path:
    """A file of the nodes, from x to y; x has whatever shape it is given in."""
    value = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)]
    results = [onnx.ValueInfoProto(name="y")]
    held = [numpy_helper.from_array(each, name) for name, each in constants.items()]
    made = helper.make_graph([*nodes], "g", value, results, held)
    version = [helper.make_opsetid("", 20)]
    model = helper.make_model(made, opset_imports=version, ir_version=10)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def node(kind: str, *others: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["x", *others], ["y"], name="only", **attributes)


def rms(values: Array) -> float:
    return math.sqrt(float(np.mean(np.square(values))))


def normalised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """The mean's magnitude in units of the deviation."""
    mean = np.abs(x.mean(axes, keepdims=True))
    reach: Array = mean / np.sqrt(x.var(axes, keepdims=True) + epsilon)
    return reach


MAGNITUDE: Array = np.abs(X)
ONE: Array = np.ones_like(X)
EPSILON = {"epsilon": 0.125}
SCALE: Array = np.array([1, -2, 3], np.float32)
CHANNELS: Array = np.array([2, -4], np.float32)
NODES: list[tuple[onnx.NodeProto, Array, Any, dict[str, Array]]] = [
    (node("Sigmoid"), X, ONE, {}),
    (node("HardSigmoid"), X, ONE, {}),
    (node("Tanh"), X, ONE, {}),
    (node("Erf"), X, ONE, {}),
    (node("Sin"), X, ONE, {}),
    (node("Cos"), X, ONE, {}),
    (node("Softplus"), X, ONE, {}),
    (node("Gelu"), X, MAGNITUDE, {}),
    (node("HardSwish"), X, MAGNITUDE, {}),
    (node("Mish"), X, MAGNITUDE, {}),
    (node("Elu", alpha=0.5), X, ONE / 2, {}),
    (node("Celu", alpha=2.0), X, ONE * 2, {}),
    (node("Selu", alpha=-1.5, gamma=2.0), X, ONE * 3, {}),
    (node("LogSoftmax", axis=1), X, np.maximum(1, MAGNITUDE), {}),
    (
        node("LayerNormalization", "scale", axis=-1, **EPSILON),
        X,
        normalised(X, (1,), 0.125) * np.abs(SCALE),
        {"scale": SCALE},
    ),
    (
        node("InstanceNormalization", "scale", "bias", **EPSILON),
        SIGNAL,
        normalised(SIGNAL, (2,), 0.125) * np.array([[2.0], [4.0]]) * np.ones(6),
        {"scale": CHANNELS, "bias": CHANNELS},
    ),
    (node("MatMul", "w"), X, MAGNITUDE @ np.abs(WEIGHT), {"w": WEIGHT}),
    (node("Gemm", "w"), X, MAGNITUDE @ np.abs(WEIGHT), {"w": WEIGHT}),
    (
        node("CumSum", "axis"),
        X,
        np.cumsum(MAGNITUDE, 1),
        {"axis": np.array(1)},
    ),
    (
        node("ReduceMean", "axes", keepdims=0),
        X,
        MAGNITUDE.mean(1),
        {"axes": np.array([1])},
    ),
    (
        node("ReduceSum", "axes", keepdims=0),
        X,
        MAGNITUDE.sum(1),
        {"axes": np.array([1])},
    ),
    (node("GlobalAveragePool"), SIGNAL, np.abs(SIGNAL).mean(2), {}),
    (
        node("AveragePool", kernel_shape=[2], strides=[2]),
        SIGNAL,
        np.abs(SIGNAL).reshape(1, 2, 3, 2).mean(3),
        {},
    ),
    (
        node("Conv", "w", strides=[2]),
        SIGNAL,
        np.einsum("ck,cnk->n", np.abs(FILTER[0]), np.abs(SIGNAL[0]).reshape(2, 3, 2)),
        {"w": FILTER},
    ),
    (
        node("ConvTranspose", "w", strides=[2]),
        SIGNAL,
        np.einsum("cok,cn->nk", np.abs(INTO_ONE), np.abs(SIGNAL[0])),
        {"w": INTO_ONE},
    ),
]


@pytest.mark.parametrize("example", NODES, ids=lambda example: example[0].op_type)
def test_an_operator_may_err_by_two_steps_at_the_magnitude_where_it_is_rounded(
    tmp_path: Path, example: tuple[onnx.NodeProto, Array, Any, dict[str, Array]]
) -> None:
    only, x, reach, constants = example
    opened = DoubleGraph(graph(tmp_path, only, **constants), NO_WEIGHTS)
    cost = kernel_costs(opened, {"x": x})["y"]
    assert cost.worst == pytest.approx(2 * FLOAT32_STEP * np.max(reach), rel=1e-5)
    assert cost.typical == pytest.approx(2 * FLOAT32_STEP * rms(reach), rel=1e-5)
    fine = kernel_costs(opened, {"x": x}, FLOAT64_STEP)["y"]
    assert fine.worst == pytest.approx(cost.worst * 2.0**-29, rel=0.5)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_the_terms_inside_a_recurrent_operator_move_with_its_input(
    tmp_path: Path, kind: str
) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    weights = np.ones((1, gates, 3), np.float32) / 64
    state = np.zeros((1, gates, 1), np.float32)
    only = node(kind, "w", "r", hidden_size=1)
    file = graph(tmp_path, only, w=weights, r=state)
    x = np.full((1, 1, 3), 30.0, np.float32)
    cost = kernel_costs(DoubleGraph(file, NO_WEIGHTS), {"x": x})["y"]
    assert cost.worst > 2.1 * FLOAT32_STEP, "more than the function's own range"
    quiet = kernel_costs(DoubleGraph(file, NO_WEIGHTS), {"x": 0 * x})["y"]
    assert quiet.worst == pytest.approx(2 * FLOAT32_STEP, rel=1e-5)


def test_operators_that_round_once_cost_nothing(tmp_path: Path) -> None:
    opened = DoubleGraph(graph(tmp_path, node("Relu")), NO_WEIGHTS)
    cost = kernel_costs(opened, {"x": X})["y"]
    assert cost.worst == cost.typical == 0
    whole = node("ArgMax", axis=1)
    assert kernel_costs(DoubleGraph(graph(tmp_path, whole)), {"x": X}) == {}


def test_neighbours_may_err_in_opposite_directions_the_same_on_every_run(
    tmp_path: Path,
) -> None:
    """All up or all down, the difference of two numbers stays as it is."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["s"]),
        helper.make_node("Split", ["s"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    opened = DoubleGraph(graph(tmp_path, *nodes), NO_WEIGHTS)
    x = np.linspace(-1, 1, 128, dtype=np.float32).reshape(64, 2)
    cost = kernel_costs(opened, {"x": x})["y"]
    assert cost.worst == pytest.approx(4 * FLOAT32_STEP, rel=1e-5)
    share = (cost.typical / cost.worst) ** 2
    assert 0.25 < share < 0.75, "about half of the pairs"
    assert kernel_costs(opened, {"x": x})["y"] == cost
    left = opened.run({"x": x})["y"]
    assert (left == opened.run({"x": x})["y"]).all(), "nothing stays moved"


# ------------------------------------------------------------------------------
# Which kernel of ONNX Runtime costs most


def test_the_kernel_that_errs_most_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="before"),
        helper.make_node("Sigmoid", ["positive"], ["gated"], name="gate"),
        helper.make_node("Neg", ["gated"], ["y"], name="after"),
    ]
    x = np.linspace(0, 9, 1000, dtype=np.float32)
    named = name_costly_kernel(graph(tmp_path, *nodes), {"x": x})
    start, _, end = named.partition(" computes ")
    assert start.startswith("ONNX Runtime 1.") and start.count(".") == 1
    assert re.fullmatch(r"Sigmoid 'gate' to \de-0[78] of its range", end)
    unnamed = [*nodes]
    unnamed[1] = helper.make_node("Sigmoid", ["positive"], ["gated"])
    assert "Sigmoid 'gated'" in name_costly_kernel(graph(tmp_path, *unnamed), {"x": x})


def test_kernels_that_read_constants_are_looked_at_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"], name="scale"),
        helper.make_node("Sigmoid", ["m"], ["y"], name="gate"),
    ]
    file = graph(tmp_path, *nodes, w=np.array(0.5, np.float32))
    x = np.linspace(0, 18, 1000, dtype=np.float32)
    assert "Sigmoid 'gate'" in name_costly_kernel(file, {"x": x})


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Neg")],
        [node("ArgMax", axis=0)],
        [node("Shape")],
    ],
)
def test_kernels_that_are_exact_are_not_accused(
    tmp_path: Path, nodes: Sequence[onnx.NodeProto]
) -> None:
    found = name_costly_kernel(graph(tmp_path, *nodes), {"x": X})
    assert found.endswith("has no single kernel that errs by much")


# ------------------------------------------------------------------------------
# Graphs in double precision


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("value_float", 0.1, np.float64(np.float32(0.1))),
        (
            "value_floats",
            [0.1, 2.0, 0.5],
            np.array([0.1, 2, 0.5], np.float32).astype(float),
        ),
    ],
)
def test_numbers_of_constant_nodes_are_widened_and_likely_ones_found(
    tmp_path: Path, attribute: str, value: Any, expected: Any
) -> None:
    constant = helper.make_node("Constant", [], ["c"], **{attribute: value})
    opened = DoubleGraph(graph(tmp_path, constant, node("Mul", "c")), NO_WEIGHTS)
    found = opened.run({"x": X})["y"]
    assert found.dtype == np.float64 and (found == X.astype(float) * expected).all()
    opened.set_likely_constants()
    assert (opened.run({"x": X})["y"] == X.astype(float) * np.array(value)).all()


@pytest.mark.parametrize(
    ("attribute", "value"), [("value_ints", [3, 2]), ("value_int", -1)]
)
def test_whole_numbers_of_constant_nodes_stay_whole(
    tmp_path: Path, attribute: str, value: Any
) -> None:
    constant = helper.make_node("Constant", [], ["c"], **{attribute: value})
    opened = DoubleGraph(graph(tmp_path, constant, node("Reshape", "c")), NO_WEIGHTS)
    assert opened.constants() == []
    if attribute == "value_ints":
        assert opened.run({"x": X})["y"].shape == (3, 2)


def test_equal_numbers_are_one_constant_or_each_its_own(tmp_path: Path) -> None:
    numbers = np.array([0.1, 0.1, 0.5], np.float32)
    opened = DoubleGraph(graph(tmp_path, node("Mul", "c"), c=numbers), NO_WEIGHTS)
    stored = float(np.float32(0.1))
    assert [each.stored for each in opened.constants()] == [stored]
    apart = opened.constants(by_value=False)
    assert [each.stored for each in apart] == [stored, stored]
    apart[1].set(0.25)
    assert (opened.run({"x": X})["y"][:, 1] == X[:, 1] * 0.25).all()
    assert (opened.run({"x": X})["y"][:, 0] == X[:, 0].astype(float) * stored).all()


def test_operators_that_stay_narrow_are_named(tmp_path: Path) -> None:
    wide = DoubleGraph(graph(tmp_path, node("Relu")), NO_WEIGHTS)
    assert wide.narrow_operators({"x": X}) == []
    noise = helper.make_node("RandomNormal", [], ["n"], shape=[3])
    nodes = [noise, node("Relu"), helper.make_node("Neg", ["n"], ["unused"])]
    narrow = DoubleGraph(graph(tmp_path, *nodes), NO_WEIGHTS)
    assert narrow.narrow_operators({"x": X}) == ["Neg", "RandomNormal"]


@pytest.mark.parametrize(
    "only",
    [
        node("Gelu", approximate="tanh"),
        node("Gelu"),
        node("Erf"),
        node("HardSwish"),
        node("Mish"),
        node("Softplus"),
        node("LogSoftmax", axis=0),
    ],
    ids=lambda only: f"{only.op_type} {len(only.attribute)}",
)
def test_functions_are_evaluated_in_double_precision(
    tmp_path: Path, only: onnx.NodeProto
) -> None:
    wide, large = X.astype(float), X.astype(float)
    found = DoubleGraph(graph(tmp_path, only), NO_WEIGHTS).run({"x": X})["y"]
    erf = np.vectorize(math.erf)
    softplus = np.log1p(np.exp(wide))
    exponents = np.exp(wide - wide.max(0))
    tanh = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
    by_formula = {
        "Gelu 1": wide / 2 * (1 + tanh),
        "Gelu 0": wide / 2 * (1 + erf(wide / math.sqrt(2))),
        "Erf 0": erf(wide),
        "HardSwish 0": wide * np.clip(wide / 6 + 0.5, 0, 1),
        "Mish 0": wide * np.tanh(softplus),
        "Softplus 0": np.where(large > 20, wide, softplus),
        "LogSoftmax 1": wide - wide.max(0) - np.log(exponents.sum(0)),
    }
    expected = by_formula[f"{only.op_type} {len(only.attribute)}"]
    assert found.dtype == np.float64
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("kind", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows_are_widened_whose_type_is_not_stated(
    tmp_path: Path, kind: str
) -> None:
    nodes = [
        helper.make_node(kind, ["size"], ["w"], periodic=0),
        node("Mul", "w"),
    ]
    file = graph(tmp_path, *nodes, size=np.array(3))
    opened = DoubleGraph(file, NO_WEIGHTS)
    assert opened.narrow_operators({"x": X}) == []
    edge = {"HannWindow": 0.0, "HammingWindow": 25 / 46 - 21 / 46, "BlackmanWindow": 0}
    row = opened.run({"x": X})["y"][1] / X[1]
    assert row == pytest.approx([edge[kind], 1, edge[kind]], abs=1e-12)


def test_a_constant_of_a_shape_is_zero_where_it_says_nothing(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["c"]),
        node("Add", "c"),
    ]
    opened = DoubleGraph(graph(tmp_path, *nodes, size=np.array([3])), NO_WEIGHTS)
    assert (opened.run({"x": X})["y"] == X).all()
    assert opened.run({"x": X})["y"].dtype == np.float64


def test_only_what_is_read_later_is_kept_unless_all_is_asked_for(
    tmp_path: Path,
) -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Abs", ["n"], ["y"]),
    ]
    opened = DoubleGraph(graph(tmp_path, *nodes), NO_WEIGHTS)
    assert list(opened.run({"x": X})) == ["y"]
    assert set(opened._evaluate({"x": X}, keep=False)) == {"", "y"}
    assert set(opened.every_value({"x": X})) == {"x", "n", "y"}


def test_a_graph_may_be_off_by_what_double_precision_costs(tmp_path: Path) -> None:
    opened = DoubleGraph(graph(tmp_path, node("Sigmoid")), NO_WEIGHTS)
    drawn = replace(case("a"), inputs={"x": X})
    scales = []
    for scale in (1e-30, 7.0):
        (found,) = _weighted(opened, [Expected(drawn, {"y": X}, {"y": scale})])
        assert found.case is drawn
        scales.append(found.scales["y"])
    assert scales == [pytest.approx(4 * 2 * 2.0**-52 / 1e-12, rel=0.1), 7.0]
