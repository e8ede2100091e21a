"""Buffers that the architecture determines are computed anew where rounded."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from checkpoint_release.state_dict.buffers import (
    recomputed,
    rounded_buffers,
    rounding_note,
)
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.tensor import Tensor

NAME = "layers.0.rope.inv_freq"
EXACT = {NAME: 1.0 / 10000.0 ** (np.arange(0, 64, 2) / 64)}


def held(dtype: Any, stored: Any = None) -> StateDict:
    """A state dict that has the frequencies in a dtype, stored in another."""
    values = EXACT[NAME].astype(np.float32).astype(dtype)
    weight = Tensor.of_numpy(np.ones((2, 2), np.float32))
    return {"w": weight, NAME: Tensor.of_numpy(values.astype(stored or dtype))}


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        (held(np.float16), 2.0**-11),
        (held(ml_dtypes.bfloat16), 2.0**-8),
        (held(np.float16, stored=np.float32), 2.0**-11),
    ],
    ids=["float16", "bfloat16", "widened"],
)
def test_rounded_ones_are_found_and_computed_anew(
    weights: StateDict, error: float
) -> None:
    rounded = rounded_buffers(weights, EXACT)
    assert list(rounded) == [NAME] and error / 4 < rounded[NAME] < error * 4
    assert "checkpoint.recompute_buffers: true" in rounding_note(rounded)
    anew = recomputed(weights, EXACT)
    assert list(anew) == list(weights) and anew["w"] is weights["w"]
    assert anew[NAME].dtype == "F32"
    np.testing.assert_array_equal(anew[NAME].numpy(), EXACT[NAME].astype(np.float32))
    assert not rounded_buffers(anew, EXACT)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_ones_are_left_alone(dtype: Any) -> None:
    assert rounded_buffers(held(dtype), EXACT) == {}


def test_names_that_the_checkpoint_lacks_are_passed_over() -> None:
    other = {"elsewhere": np.ones(3)}
    assert rounded_buffers(held(np.float16), other) == {}
    assert list(recomputed(held(np.float16), other)) == ["w", NAME]
