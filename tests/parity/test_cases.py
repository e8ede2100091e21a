"""Cases try what an export did not see, and are the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.parity.cases import (
    MAX_CASE,
    Case,
    draw_cases,
    draw_fixed_cases,
    require_room,
)
from checkpoint_release.parity.error_stats import identical
from tests.support.models import SIGNATURES, Framed
from tests.support.parity_world import (
    counter_architecture,
    stick_figure_architecture,
)
from tests.support.tiny_release import sizes_of


def test_cases_try_sizes_and_values_that_the_export_did_not_see() -> None:
    signature = stick_figure_architecture().signature
    cases = draw_cases(
        signature, seed=0, sizes={"sequence": [250]}, magnitudes=[0.0, 1e-3, 1e3]
    )
    sequences = {case.inputs["motion"].shape[0] for case in cases}
    batches = {case.inputs["motion"].shape[1] for case in cases}
    assert {1, 2, 250} <= sequences and 1 in batches and max(batches) > 1
    assert (
        any(size % 2 and size > 2 for size in sequences) and max(sequences - {250}) > 25
    )
    example = sizes_of(signature)
    assert example["sequence"] not in sequences and example["batch"] not in batches
    actions = [case.inputs["action_sequence"] for case in cases]
    assert any((action == 0).all() for action in actions) and any(
        (action == 9).all() for action in actions
    )
    reach = sorted(float(np.abs(case.inputs["motion"]).max()) for case in cases)
    assert reach[0] == 0 and 0 < reach[1] < 0.01 and reach[-1] > 1000


def test_cases_are_the_same_for_the_same_seed_and_others_for_another() -> None:
    signature = stick_figure_architecture().signature

    def drawn(seed: int) -> list[Case]:
        return draw_cases(signature, seed=seed, sizes={}, magnitudes=[1.0], repeats=2)

    first, again, other = drawn(3), drawn(3), drawn(4)
    assert [case.name for case in first] == [case.name for case in again] and len(
        {c.name for c in first}
    ) == len(first)
    for one, two, three in zip(first, again, other, strict=True):
        assert all(identical(one.inputs[name], two.inputs[name]) for name in one.inputs)
        assert not identical(one.inputs["motion"], three.inputs["motion"])


def test_cases_stay_within_the_bounds_of_a_dimension() -> None:
    signature = counter_architecture().signature
    lengths = {
        case.inputs["tokens"].shape[1]
        for case in draw_cases(signature, seed=0, sizes={}, magnitudes=[])
    }
    assert max(lengths) <= 9
    with pytest.raises(ParamsError, match=r"parity\.sizes holds 10 for 'length'"):
        draw_cases(signature, seed=0, sizes={"length": [10]}, magnitudes=[])


def test_a_case_that_no_machine_has_room_for_is_refused_before_it_is_drawn() -> None:
    signature = stick_figure_architecture().signature
    with pytest.raises(
        ParamsError, match=r"(?s)parity\.sizes.*would take [0-9,]+ bytes"
    ):
        draw_cases(signature, seed=0, sizes={"batch": [2**31 - 1]}, magnitudes=[])


def test_both_ends_of_a_range_are_tried_and_no_case_leaves_it() -> None:
    stated = {
        "inputs": [{"name": "x", "shape": ["n"], "low": -0.5, "high": 2}],
        "outputs": ["y"],
    }
    cases = draw_cases(
        read_signature(stated), seed=0, sizes={}, magnitudes=[0.0, 1e-3, 1e3]
    )
    values = {case.name.partition(",")[0]: case.inputs["x"] for case in cases}
    assert (values["first value"] == -0.5).all() and (values["last value"] == 2).all()
    assert (values["zeros"] == 0).all()
    assert 0 < np.abs(values["magnitude 0.001"]).max() <= 0.002
    for array in values.values():
        assert array.min() >= -0.5 and array.max() <= 2


def test_sizes_that_follow_from_others_do_so_in_every_case() -> None:
    signature = read_signature(SIGNATURES[Framed])
    for case in draw_cases(signature, seed=0, sizes={"past": [8]}, magnitudes=[0.0]):
        tokens, past = (case.inputs[name].shape[1] for name in ("tokens", "memory"))
        assert case.inputs["frames"].shape[1] == 2 * tokens + 1
        assert case.inputs["mask"].shape[1] == past + tokens


STATED = {
    "inputs": [
        {"name": "x", "shape": ["n", "m"]},
        {"name": "k", "dtype": "int64", "shape": ["n"], "low": 2, "high": 9},
    ],
    "outputs": ["y"],
    "dimensions": {
        "n": {"minimum": 2, "example": 10},
        "m": {"example": 3, "maximum": 6},
    },
}


def test_the_cases_of_a_signature_are_these() -> None:
    cases = draw_cases(
        read_signature(STATED),
        seed=0,
        sizes={"n": [40], "other": [7]},
        magnitudes=[0.0, 1e-3],
        repeats=2,
    )
    once = [
        "nominal, n=2, m=2",
        "nominal, n=3, m=1",
        "nominal, n=5, m=5",
        "nominal, n=12, m=2",
        "nominal, n=40, m=1",
        "first index, n=6, m=5",
        "last index, n=6, m=5",
        "zeros, n=6, m=5",
        "magnitude 0.001, n=6, m=5",
    ]
    twice = [f"{name}, draw 2" for name in once]
    assert [case.name for case in cases] == once + twice
    kinds = ["nominal"] * 7 + ["zeros", "magnitude 0.001"]
    assert [case.kind for case in cases] == kinds * 2
    assert [case.magnitude for case in cases[:9]] == [1.0] * 7 + [0.0, 1e-3]
    drawn = [True] * 5 + [False] * 2 + [True] * 2
    assert [case.drawn for case in cases[:9]] == drawn
    assert not any(case.is_sample for case in cases)
    assert cases[3].sizes == {"n": 12, "m": 2} and cases[3].elements == 36
    assert (cases[5].inputs["k"] == 2).all() and (cases[6].inputs["k"] == 8).all()
    assert len({case.inputs["x"].tobytes() for case in cases}) == 18


def test_a_signature_without_dimensions_or_ranges_has_one_nominal_case() -> None:
    fixed = {"inputs": [{"name": "x", "shape": [2]}], "outputs": ["y"]}
    (case,) = draw_cases(read_signature(fixed), seed=0, sizes={}, magnitudes=[])
    assert case.name == "nominal" and case.sizes == {}
    counted = {
        "inputs": [{"name": "k", "dtype": "int64", "shape": [2], "low": 0, "high": 3}],
        "outputs": ["y"],
    }
    cases = draw_cases(read_signature(counted), seed=0, sizes={}, magnitudes=[1.0])
    names = [case.name for case in cases]
    assert names == ["nominal", "first index", "last index"], "no floats"


def test_the_example_is_tried_where_there_is_no_other_or_it_was_asked_for() -> None:
    stated = {
        "inputs": [{"name": "x", "shape": ["n"]}],
        "outputs": ["y"],
        "dimensions": {"n": {"minimum": 4, "maximum": 4, "example": 4}},
    }
    cases = draw_cases(read_signature(stated), seed=0, sizes={}, magnitudes=[])
    assert [case.sizes["n"] for case in cases] == [4]
    asked = draw_cases(read_signature(STATED), seed=0, sizes={"n": [10]}, magnitudes=[])
    assert 10 in {case.sizes["n"] for case in asked}


def test_one_size_lies_a_quarter_beyond_the_example() -> None:
    stated = {
        "inputs": [{"name": "x", "shape": ["n"]}],
        "outputs": ["y"],
        "dimensions": {"n": {"example": 100}},
    }
    cases = draw_cases(read_signature(stated), seed=0, sizes={}, magnitudes=[])
    assert sorted(case.sizes["n"] for case in cases) == [1, 2, 51, 125]


def test_cases_of_fixed_shapes_begin_with_the_sample() -> None:
    signature = read_signature(STATED)
    cases = draw_fixed_cases(signature, {"n": 4}, seed=5, magnitudes=[0.0], repeats=2)
    assert cases[0].is_sample and not any(case.is_sample for case in cases[1:])
    assert all(case.name.endswith(", fixed n=4") for case in cases)
    assert {case.sizes["n"] for case in cases} == {4}
    assert cases[0].name == "nominal, m=1, fixed n=4"
    assert cases[0].sizes == {"m": 1, "n": 4} and cases[0].inputs["x"].shape == (4, 1)
    draws = [case for case in cases if "draw 2" in case.name]
    assert len(draws) * 2 == len(cases)
    both = draw_fixed_cases(signature, {"n": 4, "m": 2}, seed=5, magnitudes=[])
    assert both[0].name == "nominal, fixed n=4, m=2"
    others = draw_cases(signature, seed=6, sizes={}, magnitudes=[0.0])
    first = {case.inputs["k"].tobytes() for case in others}
    assert cases[0].inputs["x"].tobytes() not in first


def test_the_room_of_a_case_is_that_of_all_its_inputs() -> None:
    signature = read_signature(STATED)
    # 4 bytes for each of n numbers in x, 8 for each in k
    require_room(signature, {"n": MAX_CASE // 12, "m": 1})
    whole = {"inputs": [{"name": "x", "shape": ["n"]}], "outputs": ["y"]}
    require_room(read_signature(whole), {"n": MAX_CASE // 4})
    with pytest.raises(ParamsError) as caught:
        require_room(signature, {"n": MAX_CASE // 12 + 1, "m": 1}, "asked.for")
    text = str(caught.value)
    assert "asked.for and the dimensions of model.signature" in text
    assert f"n={MAX_CASE // 12 + 1}, m=1" in text
    assert f"would take {(MAX_CASE // 12 + 1) * 12:,} bytes" in text
    assert f"{MAX_CASE:,} are allowed" in text
    assert caught.value.options == ("asked.for", "model.signature")
