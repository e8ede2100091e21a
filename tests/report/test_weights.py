"""Weights are grouped by name, and their figures are those of numpy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from checkpoint_release.report.weights import (
    MOST_GROUPS,
    MOST_VALUES,
    weight_groups,
    weights_picture,
)
from checkpoint_release.tensors.tensor import Tensor


def tensors(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, Tensor]:
    return {name: Tensor.of_numpy(array) for name, array in arrays.items()}


def names(shapes: dict[str, int]) -> list[str]:
    arrays = {name: np.ones(size, np.float32) for name, size in shapes.items()}
    return [group.name for group in weight_groups(tensors(arrays))]


def test_the_largest_group_is_cut_the_finest() -> None:
    shapes = {"head.weight": 4, "head.bias": 2}
    for layer in range(6):
        for part in ("attention.q", "attention.k", "mlp"):
            shapes[f"model.layers.{layer}.{part}.weight"] = 100
    found = names(shapes)
    assert len(found) <= MOST_GROUPS
    assert "head" in found and "model.layers.0.mlp" in found
    many = {f"layers.{number}.weight": 9 for number in range(MOST_GROUPS + 5)}
    assert names(many) == ["layers"]


def test_names_without_dots_are_groups_of_their_own() -> None:
    assert names({"w": 3, "b": 2, "a.w": 1}) == ["w", "b", "a"]


def test_figures_are_those_of_the_values() -> None:
    values = np.array([0.0, 0.0, -2.0, 4.0, np.nan, np.inf], np.float32)
    half = np.array([1.0, 3.0], ml_dtypes.bfloat16)
    (group,) = weight_groups(tensors({"a.w": values, "a.b": half}))
    assert (group.tensors, group.values, group.dtypes) == (2, 8, ["BF16", "F32"])
    assert (group.minimum, group.maximum, group.mean) == (-2.0, 4.0, 1.0)
    assert (group.zeros, group.non_finite) == (0.25, 2)
    assert abs(sum(share for *_, share in group.bins) - 1) < 1e-9


def test_of_a_large_tensor_values_at_even_distances_are_looked_at() -> None:
    large = np.arange(3 * MOST_VALUES, dtype=np.float32)
    (group,) = weight_groups(tensors({"w": large}))
    assert group.values == large.size
    assert group.mean is not None and abs(group.mean / large.mean() - 1) < 1e-4


def test_what_has_no_histogram_is_not_drawn() -> None:
    waves = np.ones(3, np.complex64)
    empty = np.empty((0, 4), np.float32)
    groups = weight_groups(tensors({"waves.w": waves, "empty.w": empty}))
    assert [group.bins for group in groups] == [[], []]
    assert weights_picture(groups) is None
    drawn = weights_picture(weight_groups(tensors({"one.w": np.ones(1, np.float32)})))
    assert drawn is not None and ">one.w</text>" not in drawn.svg
    assert ">one</text>" in drawn.svg
