"""The weights' own names, and what becomes of half precision."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.half_precision import cast_half
from checkpoint_release.state_dict.prefixes import without_prefix
from tests.support.state_dicts import linear, tensor


def test_prefixes_that_every_name_has_are_stripped() -> None:
    weights = {f"module._orig_mod.{name}": value for name, value in linear().items()}
    stripped, prefix = without_prefix(weights)
    assert (sorted(stripped), prefix) == (
        ["layer.bias", "layer.weight"],
        "module._orig_mod.",
    )


def test_a_prefix_that_one_name_lacks_stays() -> None:
    weights = {"module.a": tensor(1), "b": tensor(1)}
    assert without_prefix(weights) == (weights, "")


def test_an_empty_state_dict_has_no_prefix() -> None:
    assert without_prefix({}) == ({}, "")


def test_half_precision_is_kept_cast_exactly_or_refused() -> None:
    weights: StateDict = {"half": tensor(5, dtype=np.float16), "single": tensor(5)}
    assert cast_half(weights, "keep") == weights
    cast = cast_half(weights, "cast")
    assert cast["half"].dtype == "F32" and cast["single"] is weights["single"]
    np.testing.assert_array_equal(
        cast["half"].numpy(), weights["half"].numpy().astype(np.float32)
    )
    with pytest.raises(CheckpointError, match="1 of 2 tensors"):
        cast_half(weights, "refuse")
