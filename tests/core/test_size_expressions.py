"""Sizes that follow from dimensions, and values that have a range."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from checkpoint_release.core.errors import InferenceError, ParamsError
from checkpoint_release.core.signature import (
    Arrays,
    check_inputs,
    known_shape,
    sample_inputs,
)
from checkpoint_release.core.size_expressions import (
    parse_size,
    size_names,
    size_text,
)
from checkpoint_release.core.stated_signature import read_signature, with_bounds
from checkpoint_release.runtimes.loader import load

SIZES = {"tokens": 5, "past": 3, "height": 16}
FRAMES: dict[str, Any] = {
    "inputs": [
        {"name": "tokens", "shape": ["batch", "tokens"]},
        {"name": "frames", "shape": ["batch", "2*tokens + 1", 6]},
        {"name": "memory", "shape": ["batch", "past"]},
        {"name": "mask", "shape": ["batch", "past+tokens"], "low": 0, "high": 0.1},
    ],
    "outputs": [{"name": "out", "shape": ["batch", "2*tokens + 1", 4]}],
    "dimensions": {"tokens": {"maximum": 64, "example": 5}},
}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("tokens", 5),
        ("2*tokens+1", 11),
        ("1 + tokens*2", 11),
        ("-1 + tokens", 4),
        ("past + tokens", 8),
        ("tokens + tokens", 10),
        ("height/8", 2),
        ("3*height/2 - 4", 20),
    ],
)
def test_an_expression_gives_the_size_and_is_written_so_that_it_reads_back(
    text: str, size: int
) -> None:
    expression = parse_size(text)
    assert expression is not None and expression.value(SIZES) == size
    again = size_text(expression.factors, expression.offset)
    assert parse_size(again) == expression


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2",
        "2*",
        "a*b",
        "8/a",
        "a//2",
        "1-a",
        "a-2*a",
        "a b",
        "a/0",
        "a + 1/2",
        "(a)",
    ],
)
def test_what_is_no_sum_of_dimensions_is_no_expression(text: str) -> None:
    assert parse_size(text) is None
    assert size_names(text) == {text}


def changed(axis: int, size: str, **dimensions: Any) -> dict[str, Any]:
    """The signature with another size of the frames' second axis."""
    shape: list[Any] = ["batch", "2*tokens + 1", 6]
    shape[axis] = size
    inputs = [*FRAMES["inputs"]]
    inputs[1] = {"name": "frames", "shape": shape}
    return {
        **FRAMES,
        "inputs": inputs,
        "dimensions": {**FRAMES["dimensions"], **dimensions},
    }


@pytest.mark.parametrize(
    ("stated", "parts"),
    [
        (changed(1, "2*tokns+1"), ["shape[1] is '2*tokns+1'", "'tokns'", "alone"]),
        (changed(1, "2*tokens+"), ["shape[1] is '2*tokens+'", "no size", "2*frames"]),
        (changed(1, "10-tokens"), ["shape[1] is '10-tokens'", "factor above 0"]),
        (changed(1, "tokens/4"), ["can be divided so", "state `multiple: 4`"]),
        (
            changed(1, "3*tokens/4", tokens={"multiple": 6}),
            ["can be divided so", "state `multiple: 12`"],
        ),
        (changed(1, "tokens - 9"), ["'tokens - 9'", "smallest sizes that is -8"]),
        (
            changed(1, "2*tokens + 1", frames={"example": 3}),
            ["dimensions names ['frames']", "by themselves"],
        ),
    ],
)
def test_an_expression_that_gives_no_size_is_named(
    stated: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ParamsError) as error:
        read_signature(stated)
    text = error.value.message()
    for part in parts:
        assert part in text


def test_a_signature_with_expressions_and_ranges_reads_back_as_it_was() -> None:
    read = read_signature(FRAMES)
    assert list(read.dimensions) == ["batch", "tokens", "past"]
    assert read_signature(read.to_json()) == read
    sizes = {"batch": 2, "tokens": 5, "past": 3}
    assert known_shape(read.outputs[0], sizes) == (2, 11, 4)
    assert known_shape(read.outputs[0], {"batch": 2}) is None


def case(**given: Any) -> Arrays:
    sample = sample_inputs(read_signature(FRAMES), {**SIZES, "batch": 2}, seed=0)
    return {**sample, **given}


def test_inputs_that_follow_as_stated_fit() -> None:
    inputs = case()
    assert inputs["frames"].shape == (2, 11, 6) and inputs["mask"].shape == (2, 8)
    sizes = check_inputs(read_signature(FRAMES), inputs)
    assert sizes == {"batch": 2, "tokens": 5, "past": 3}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"frames": np.zeros((2, 10, 6), "f4")},
            r"its '2\*tokens \+ 1' is 10, and where tokens is 5 it is 11",
        ),
        (
            {"mask": np.zeros((2, 7), "f4")},
            "'past.tokens' is 7, and where past is 3 and tokens is 5 it is 8",
        ),
        ({"mask": np.full((2, 8), 0.2, "f4")}, "the model takes 0 to 0.1"),
        ({"mask": np.full((2, 8), np.nan, "f4")}, "holds nan to nan"),
        ({"tokens": np.zeros((2, 65), "f4")}, "'tokens' 65, and allowed are 1 to 64"),
    ],
)
def test_inputs_that_follow_otherwise_are_named(
    given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InferenceError, match=problem):
        check_inputs(read_signature(FRAMES), case(**given))


def test_floats_with_a_range_are_drawn_in_it_whatever_their_magnitude() -> None:
    read = read_signature(FRAMES)
    for scale in (0.0, 1e-3, 1.0, 1e3):
        inputs = sample_inputs(read, {**SIZES, "batch": 40}, seed=1, scale=scale)
        mask = inputs["mask"]
        assert mask.dtype == np.float32 and mask.min() >= 0
        check_inputs(read, inputs)  # the float32 nearest to 0.1 is above it
    assert (mask == np.float32(0.1)).mean() > 0.9
    assert np.abs(inputs["memory"]).max() > 1000  # which has no range
    uniform = sample_inputs(read, {**SIZES, "batch": 400}, seed=1)["mask"]
    assert abs(float(uniform.mean()) - 0.05) < 0.002


@pytest.mark.parametrize(
    ("stated", "part"),
    [
        ({"low": 1.0, "high": 1.0}, "low is 1.0, and high is 1.0"),
        ({"low": 0.0}, "high is None"),
        ({"low": 0.0, "high": float("inf")}, "high is inf"),
        ({"low": 0.0, "high": 1e9, "dtype": "float16"}, "float16 holds"),
        ({"low": 0, "high": 1, "dtype": "bool"}, "is bool and has a range"),
        ({"low": 0, "high": 1.5, "dtype": "int64"}, "high is 1.5"),
    ],
)
def test_a_range_that_is_none_is_named(stated: dict[str, Any], part: str) -> None:
    value = {"inputs": [{"name": "x", "shape": ["n"], **stated}], "outputs": ["y"]}
    with pytest.raises(ParamsError) as error:
        read_signature(value)
    assert part in error.value.message()


def test_inputs_are_chosen_with_what_their_sizes_follow_from() -> None:
    read = read_signature(FRAMES)
    assert list(read.taking(["tokens", "frames"]).dimensions) == ["batch", "tokens"]
    with pytest.raises(ParamsError, match=r"no chosen input has \['past'\]"):
        read.taking(["tokens", "mask"])


# Bounds alone


def bounds(**dimensions: Any) -> dict[str, Any]:
    return {"dimensions": dimensions}


def test_bounds_are_corrected_and_the_rest_moves_within_them() -> None:
    read = read_signature(FRAMES)
    bounded = with_bounds(read, bounds(tokens={"maximum": 3}, batch={"multiple": 4}))
    tokens, batch = bounded.dimensions["tokens"], bounded.dimensions["batch"]
    assert (tokens.minimum, tokens.maximum, tokens.example) == (1, 3, 3)
    assert (batch.minimum, batch.maximum, batch.example) == (4, None, 4)
    assert bounded.inputs == read.inputs
    assert bounded.dimensions["past"] == read.dimensions["past"]


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (bounds(time={}), "names ['time'], and the model's are"),
        (bounds(tokens={"maximum": 0}), "tokens.maximum is 0"),
        (bounds(tokens={"minimum": 70}), "minimum is 70, and maximum is 64"),
        (bounds(tokens={"example": 70}), "example is 70"),
        (bounds(tokens=5), "tokens is 5"),
        ({"dimensions": 5}, "dimensions is 5"),
    ],
)
def test_wrong_bounds_are_named(value: dict[str, Any], part: str) -> None:
    with pytest.raises(ParamsError) as error:
        with_bounds(read_signature(FRAMES), value)
    assert part in error.value.message()


# Of a file of others


def test_a_graph_without_a_description_keeps_the_relations_that_it_states(
    tmp_path: Path,
) -> None:
    kind = onnx.TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info(name, kind, [size])
        for name, size in (("x", "n"), ("y", "2*n + 1"), ("z", "3*unseen"))
    ]
    nodes = [
        helper.make_node("ReduceSum", [name], [f"{name}_sum"]) for name in ("x", "y")
    ]
    outputs = [
        helper.make_tensor_value_info(node.output[0], kind, [1]) for node in nodes
    ]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "m.onnx"
    )
    model = load(tmp_path / "m.onnx")
    assert list(model.signature.dimensions) == ["n", "3*unseen"]
    x, z = np.ones(2, "f4"), np.ones(4, "f4")
    assert model(x=x, y=np.ones(5, "f4"), z=z)["y_sum"] == 5
    with pytest.raises(InferenceError, match="is 4, and where n is 2 it is 5"):
        model(x=x, y=np.ones(4, "f4"), z=z)
