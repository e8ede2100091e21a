"""A signature is read key by key, and inputs are checked against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.errors import InferenceError, ParamsError
from checkpoint_release.core.signature import (
    Arrays,
    check_inputs,
    sample_inputs,
)
from checkpoint_release.core.stated_signature import read_signature

TOKENS: dict[str, Any] = {
    "name": "tokens",
    "dtype": "int64",
    "shape": ["batch", "sequence"],
    "low": 0,
    "high": 11,
}


def signature(tokens: dict[str, Any], **sequence: Any) -> dict[str, Any]:
    return {
        "inputs": [{**TOKENS, **tokens}],
        "outputs": ["logits"],
        "dimensions": {"sequence": sequence},
    }


@pytest.mark.parametrize(
    ("stated", "parts"),
    [
        (signature({"low": "a"}), ["inputs[0].low is 'a'", "whole number"]),
        (signature({"high": 11.0}), ["inputs[0].high is 11.0", "whole number"]),
        (signature({"high": None}), ["inputs[0].high is None", "whole number"]),
        (signature({"low": None, "high": None}), ["inputs[0] (tokens)", "no range"]),
        (signature({"low": 11}), ["inputs[0].low is 11, and high is 11", "below high"]),
        (signature({"dtype": "uint8", "low": -1}), ["inputs[0].low is -1", "0 to 255"]),
        (signature({"dtype": "int8", "high": 129}), ["high is 129", "-128 to 127"]),
        (signature({"dtype": "bool"}), ["inputs[0] is bool and has a range"]),
        (signature({"dtype": "int4"}), ["inputs[0].dtype is 'int4'", "int64"]),
        (signature({"dtype": ["int64"]}), ["inputs[0].dtype is ['int64']"]),
        (signature({"name": 5}), ["inputs[0].name is 5"]),
        (signature({"name": ""}), ["inputs[0].name is ''"]),
        (signature({"description": 5}), ["inputs[0].description is 5", "text"]),
        (signature({"shape": "sequence"}), ["inputs[0].shape is 'sequence'", "list"]),
        (signature({"shape": None}), ["inputs[0] (tokens) has no shape"]),
        (
            signature({"shape": [True, "sequence"]}),
            ["inputs[0].shape[0] is True", "at least 1", "name"],
        ),
        (
            signature({"shape": ["sequence", -3]}),
            ["inputs[0].shape[1] is -3", "at least 1"],
        ),
        (signature({"shape": ["sequence", 2.0]}), ["inputs[0].shape[1] is 2.0"]),
        (signature({"shape": ["sequence", ""]}), ["inputs[0].shape[1] is ''"]),
        (
            signature({}, minimum="1"),
            ["dimensions.sequence.minimum is '1'", "at least 0"],
        ),
        (signature({}, minimum=None), ["dimensions.sequence.minimum is None"]),
        (
            signature({}, minimum=-1),
            ["dimensions.sequence.minimum is -1", "at least 0"],
        ),
        (
            signature({}, maximum=0),
            ["dimensions.sequence.maximum is 0", "at least 1", "null"],
        ),
        (
            signature({}, example=6.5),
            ["dimensions.sequence.example is 6.5", "whole number"],
        ),
        (signature({}, example=True), ["dimensions.sequence.example is True"]),
        (
            signature({}, minimum=5, maximum=4),
            ["dimensions.sequence.minimum is 5, and maximum is 4"],
        ),
        (
            signature({}, minimum=5, example=4),
            ["dimensions.sequence.example is 4", "5 to any number"],
        ),
        (
            signature({}, maximum=1),
            ["dimensions.sequence.example is 2, where none is stated", "1 to 1"],
        ),
        (
            {**signature({}), "dimensions": {"sequence": 5}},
            ["dimensions.sequence is 5", "minimum"],
        ),
        (
            {**signature({}), "dimensions": ["sequence"]},
            ["dimensions is ['sequence']", "mapping"],
        ),
        (
            {**signature({}), "dimensions": {"time": {}}},
            ["dimensions names ['time'], which are in no input"],
        ),
        ({**signature({}), "outputs": [5]}, ["outputs[0] is 5", "name"]),
        (
            {**signature({}), "outputs": [{"name": "y", "shape": [0]}]},
            ["outputs[0].shape[0] is 0"],
        ),
    ],
)
def test_an_error_in_a_signature_names_its_key(
    stated: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ParamsError) as error:
        read_signature(stated)
    assert str(error.value).startswith("model.signature.") and error.value.remedy
    for part in parts:
        assert part in str(error.value)


def test_a_signature_reads_back_as_it_was_stated() -> None:
    stated = signature({"description": "a text"}, minimum=0, maximum=None, example=5)
    stated["outputs"] = [
        {"name": "best", "dtype": "int64"},
        {"name": "loss", "shape": []},
    ]
    read = read_signature(stated)
    assert read_signature(read.to_json()) == read
    assert (
        read_signature({**stated, "dimensions": {"sequence": None}})
        .dimensions["sequence"]
        .example
        == 2
    )
    assert (
        read_signature({**stated, "dimensions": None}).dimensions["batch"].maximum
        is None
    )


def test_an_option_in_an_error_is_spelled_by_the_caller() -> None:
    with pytest.raises(ParamsError) as error:
        read_signature(signature({"dtype": "int4"}))
    assert error.value.options == ("model.signature",)


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({"outputs": ["y"]}, "missing required field `inputs`"),
        ({"inputs": [], "outputs": ["y"]}, "inputs is []"),
        ({**signature({}), "input": []}, "unknown field `input`"),
        (signature({"lowest": 0}), "unknown field `lowest`"),
        ({**signature({}), "outputs": [{"dtype": "int8"}]}, "field `name`"),
        ({**signature({}), "outputs": ["tokens"]}, "['tokens'] more than once"),
        (None, "model.signature is None"),
    ],
)
def test_missing_and_unknown_keys_are_named(stated: Any, problem: str) -> None:
    with pytest.raises(ParamsError) as error:
        read_signature(stated)
    assert problem in str(error.value)
    assert error.value.remedy


LOGITS = {
    "inputs": [
        {"name": "tokens", "dtype": "int64", "shape": ["time"], "low": 0, "high": 9},
        {"name": "mask", "shape": ["time", 3]},
    ],
    "outputs": ["logits"],
    "dimensions": {"time": {"minimum": 2, "maximum": 5}},
}


def case(**changes: Any) -> Arrays:
    return {"tokens": np.zeros(3, int), "mask": np.zeros((3, 3), "float32"), **changes}


def test_inputs_that_fit_give_the_sizes_of_dimensions() -> None:
    assert check_inputs(read_signature(LOGITS), case()) == {"time": 3}


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"tokens": np.zeros(3, int)}, r"inputs \['mask'\] are missing"),
        (case(extra=np.zeros(1)), r"inputs \['extra'\] are not among"),
        (case(tokens=np.zeros(3)), r"is float64 \[3\], and the model takes int64"),
        (case(tokens=np.zeros((3, 1), int)), r"is int64 \[3, 1\]"),
        (case(mask=np.zeros((3, 4), "float32")), r"\[3, 4\].*takes .*'time', 3\]"),
        (case(mask=np.zeros((4, 3), "float32")), "'time' is 4, and another input's is"),
        (case(tokens=np.zeros(1, int)), "'time' 1, and allowed are 2 to 5"),
        (case(tokens=np.zeros(6, int)), "'time' 6, and allowed are 2 to 5"),
        (case(tokens=np.full(3, 9)), "holds 9 to 9, and the model takes 0 to 8"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: Arrays, problem: str) -> None:
    with pytest.raises(InferenceError, match=problem):
        check_inputs(read_signature(LOGITS), inputs)


def test_a_sample_fits_its_signature_and_depends_on_the_seed_alone() -> None:
    read = read_signature(LOGITS)
    sample = sample_inputs(read, {"time": 4}, seed=1)
    assert check_inputs(read, sample) == {"time": 4}
    mask = sample_inputs(read.taking(["mask"]), {"time": 4}, seed=1)["mask"]
    np.testing.assert_array_equal(mask, sample["mask"])


def test_taking_inputs_leaves_out_the_dimensions_of_the_others() -> None:
    stated = {"inputs": [{"name": "x", "shape": ["a"]}, {"name": "y", "shape": ["b"]}]}
    read = read_signature(stated | {"outputs": ["z"]})
    assert list(read.taking(["y"]).dimensions) == ["b"]


def test_a_multiple_moves_the_defaults_and_bounds_the_sizes() -> None:
    image = {"inputs": [{"name": "x", "shape": ["height"]}], "outputs": ["y"]}
    stated = {**image, "dimensions": {"height": {"multiple": 8, "maximum": 64}}}
    height = read_signature(stated).dimensions["height"]
    assert (height.minimum, height.example, height.bounds) == (
        8,
        16,
        "8 to 64, multiples of 8",
    )
    assert [height.nearest(size) for size in (0, 9, 16, 100)] == [8, 16, 16, 64]
    assert height.allows(24) and not height.allows(25)
    again = read_signature(read_signature(stated).to_json()).dimensions["height"]
    assert again == height
    assert "multiple" not in read_signature(image).dimensions["height"].to_json()


@pytest.mark.parametrize(
    ("bounds", "part"),
    [
        ({"multiple": 4, "minimum": 6}, "minimum is 6, and multiple is 4"),
        ({"multiple": 4, "maximum": 30}, "maximum is 30, and multiple is 4"),
        ({"multiple": 4, "example": 6}, "example is 6"),
        ({"multiple": 0}, "multiple is 0"),
    ],
)
def test_bounds_that_are_no_multiples_are_named(
    bounds: dict[str, int], part: str
) -> None:
    image = {"inputs": [{"name": "x", "shape": ["height"]}], "outputs": ["y"]}
    with pytest.raises(ParamsError, match=part) as caught:
        read_signature({**image, "dimensions": {"height": bounds}})
    assert "dimensions.height" in caught.value.problem
