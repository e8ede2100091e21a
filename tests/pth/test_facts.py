"""Training facts are what is small enough to be one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from checkpoint_release.pth import Inert, Tensor, to_json_value
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.pth.json_values import Limits

ONE = Tensor.of_numpy(np.asarray(2.5))
SEVERAL = Tensor.of_numpy(np.ones(3))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        (3, 3),
        (1 << 64, str(1 << 64)),
        ((1 << 64) - 1, (1 << 64) - 1),
        (float("-inf"), "-inf"),
        ("x" * 2000, "x" * 2000),
        (ONE, 2.5),
        ([1, [ONE, None]], [1, [2.5, None]]),
        (list(range(64)), list(range(64))),
        (nested(5), nested(5)),
        ({"epoch": 1, "weight": SEVERAL}, {"epoch": 1}),
        ({}, {}),
        (
            Inert("a.Config", (), {"data": b"123", "w": SEVERAL}),
            {"data": "3 bytes", "w": "tensor F64 [3]"},
        ),
    ],
)
def test_small_values_are_facts(value: Any, fact: Any) -> None:
    assert training_facts({"value": value}) == {"value": fact}


@pytest.mark.parametrize(
    "value",
    [
        SEVERAL,
        b"bytes",
        1j,
        "x" * 2001,
        list(range(65)),
        {str(number): 1 for number in range(65)},
        nested(6),
        [1, SEVERAL],
        {"weight": SEVERAL},
    ],
)
def test_larger_ones_are_left_out(value: Any) -> None:
    assert training_facts({"value": value, "epoch": 3}) == {"epoch": 3}


def test_the_weights_key_is_left_out() -> None:
    assert training_facts({"model": 1, "epoch": 3}, {"model"}) == {"epoch": 3}


def test_what_is_no_mapping_has_no_facts() -> None:
    assert training_facts([1, 2]) == {} == training_facts(Inert("a.Config", (), {}))


def test_no_more_values_than_the_limit_are_converted() -> None:
    assert to_json_value([1, 2, 3], Limits(values=3)) == [1, 2, "…"]


def test_a_duration_that_no_float_holds_stays_a_call() -> None:
    huge = Inert("datetime.timedelta", (10**400, 0, 0))
    assert to_json_value(huge)["class"] == "datetime.timedelta"


def test_keys_that_look_alike_are_both_kept() -> None:
    assert to_json_value({1: "a", "1": "b"}) == {"1": "a", "'1'": "b"}


def test_records_deep_within_each_other_end() -> None:
    value: Any = 1
    for _ in range(5000):
        value = Inert("a.Node", (), {"next": value})
    assert "…" in json.dumps(to_json_value(value), ensure_ascii=False)
