"""Cases try what an export did not see, and are the same on every machine."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.parity.cases import Case, draw_cases
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
