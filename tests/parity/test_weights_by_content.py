"""Weights that are written down, looked for in what an artifact holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.signature import Array
from checkpoint_release.parity.weights import (
    WeightsReport,
    compare_by_name,
    compare_weights,
)
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.tensor import Tensor

MATRIX: Array = np.arange(1, 7, dtype=np.float32).reshape(2, 3) / 7
OTHER: Array = MATRIX[::-1] * 3
VECTOR: Array = np.array([0.1, 0.2, 0.3], np.float32)


def checkpoint(folder: Path, **weights: Array) -> Path:
    tensors = {name: Tensor.of_numpy(array) for name, array in weights.items()}
    write_safetensors(folder / WEIGHTS_FILE, tensors, {"format": "pt"})
    return folder


def of_content(
    folder: Path, weights: Mapping[str, Array], held: Mapping[str, Array]
) -> WeightsReport:
    return compare_weights(held, checkpoint(folder, **weights))


def changed(array: Array, *positions: int) -> Array:
    """The array with other numbers at these positions."""
    copy = array.copy()
    for position in positions:
        copy.flat[position] += 1
    return copy


def test_weights_are_found_renamed_transposed_and_joined(tmp_path: Path) -> None:
    weights = {"a": MATRIX, "b": OTHER, "c": VECTOR}
    renamed = {"x": MATRIX, "y": OTHER.T, "z": VECTOR}
    assert of_content(tmp_path, weights, renamed) == WeightsReport(3, 3)
    for joined in (
        np.concatenate([MATRIX, OTHER]),
        np.concatenate([MATRIX, OTHER], axis=1),
        np.concatenate([MATRIX.T, OTHER.T]),
        np.concatenate([OTHER.T, MATRIX.T], axis=1),
    ):
        held = {"joined": joined, "c": VECTOR}
        assert of_content(tmp_path, weights, held) == WeightsReport(3, 3)


def test_what_is_nowhere_is_not_found_and_not_wrong(tmp_path: Path) -> None:
    weights = {"a": MATRIX, "c": VECTOR}
    held = {"folded": MATRIX * 2, "c": VECTOR, "one": np.ones(1, np.float32)}
    assert of_content(tmp_path, weights, held) == WeightsReport(2, 1)
    assert of_content(tmp_path, weights, {}) == WeightsReport(2, 0)
    counted = {"n": np.arange(4)}
    assert of_content(tmp_path, counted, {"n": np.arange(4)}).found == 1
    off = {"n": changed(np.arange(4), 0), "m": np.arange(4, dtype=np.float32)}
    assert of_content(tmp_path, counted, off) == WeightsReport(1, 0)


def test_a_copy_is_damaged_up_to_half_of_its_numbers(tmp_path: Path) -> None:
    half = of_content(tmp_path, {"a": MATRIX}, {"x": changed(MATRIX, 4, 5, 2)})
    assert half == WeightsReport(
        1,
        0,
        [
            "a (there: x) differs in 3 of 6 elements, first at [0, 2]:"
            f" {MATRIX[0, 2] + 1!s} for {MATRIX[0, 2]!s}"
        ],
    )
    more = of_content(tmp_path, {"a": MATRIX}, {"x": changed(MATRIX, 1, 2, 3, 4)})
    assert more == WeightsReport(1, 0)
    turned = of_content(tmp_path, {"a": MATRIX}, {"x": changed(MATRIX, 5).T})
    (sentence,) = turned.wrong
    assert sentence.startswith("a (there: x) differs in 1 of 6 elements, first at [2,")


def test_zeros_in_common_are_no_kinship(tmp_path: Path) -> None:
    sparse = np.array([1, 0, 0, 0, 0, 2], np.float32)
    held = {"x": np.array([1, 0, 0, 0, 3, 0], np.float32)}
    assert of_content(tmp_path, {"a": sparse}, held).wrong == []
    near = {"x": np.array([1, 0, 0, 0, 0, 3], np.float32)}
    (sentence,) = of_content(tmp_path, {"a": sparse}, near).wrong
    assert "1 of 6 elements, first at [5]" in sentence


def test_damage_in_a_joined_tensor_is_named_once(tmp_path: Path) -> None:
    joined = np.concatenate([changed(MATRIX, 3), OTHER])
    found = of_content(tmp_path, {"a": MATRIX, "b": OTHER}, {"qkv": joined})
    assert found.total == 2 and found.found == 1
    (sentence,) = found.wrong
    assert sentence.startswith("a (there: qkv) differs in 1 of 6 elements")


def test_a_namesake_of_a_weight_that_is_found_elsewhere_is_held_to_it(
    tmp_path: Path,
) -> None:
    equal = {"one.w": VECTOR, "two.w": VECTOR}
    held = {"model.one.w": VECTOR, "model.two.w": changed(VECTOR, 2)}
    found = of_content(tmp_path, equal, held)
    assert found.found == 2
    (sentence,) = found.wrong
    assert sentence.startswith("two.w (there: model.two.w) differs in 1 of 3")
    stranger = {"model.one.w": VECTOR, "model_two.w": changed(VECTOR, 2)}
    assert of_content(tmp_path, equal, stranger).wrong == []


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_weights_that_went_through_half_precision_are_named(
    tmp_path: Path, half: str
) -> None:
    dtype = np.dtype(half if half == "float16" else ml_dtypes.bfloat16)
    rounded = MATRIX.astype(dtype)
    for held in (rounded, rounded.astype(np.float32)):
        found = of_content(tmp_path, {"a": MATRIX}, {"x": held})
        assert found == WeightsReport(1, 0, [f"a (there: x) was rounded to {half}"])
    kept = of_content(tmp_path, {"a": rounded}, {"x": rounded.astype(np.float32)})
    assert kept == WeightsReport(1, 1), "widening loses nothing"


def test_bits_count_so_that_signs_of_zero_and_dtypes_differ(tmp_path: Path) -> None:
    zeros = np.zeros(3, np.float32)
    assert of_content(tmp_path, {"a": zeros}, {"x": zeros.copy()}).found == 1
    wide = of_content(tmp_path, {"a": VECTOR}, {"x": VECTOR.astype(np.float64)})
    assert wide.found == 1 and wide.wrong == [], "as a part, it has the same numbers"
    scalar = np.full((), 0.5, np.float32)
    assert of_content(tmp_path, {"a": scalar}, {"x": scalar.reshape(1)}).found == 1


# ------------------------------------------------------------------------------
# Weights that must have their own names


def by_name(
    folder: Path,
    weights: Mapping[str, Array],
    held: Mapping[str, Array],
    dtype: str = "keep",
) -> WeightsReport:
    tensors = {name: Tensor.of_numpy(array) for name, array in held.items()}
    return compare_by_name(tensors, checkpoint(folder, **weights), dtype)


def test_stored_weights_have_their_names_shapes_dtypes_and_bits(
    tmp_path: Path,
) -> None:
    weights = {"a": MATRIX, "b": OTHER, "c": VECTOR, "d": VECTOR, "e": VECTOR}
    assert by_name(tmp_path, weights, weights) == WeightsReport(5, 5)
    held = {
        "a": MATRIX.T.copy(),
        "b": changed(OTHER, 1),
        "c": VECTOR.astype(np.float64),
        "d": VECTOR,
        "f": VECTOR,
    }
    assert by_name(tmp_path, weights, held) == WeightsReport(
        5,
        1,
        [
            "a has shape [3, 2], and the checkpoint's is [2, 3]",
            "b differs in 1 of 6 elements, first at [0, 1]:"
            f" {OTHER[0, 1] + 1!s} for {OTHER[0, 1]!s}",
            "c is float64, and the checkpoint's is float32",
            "e is missing",
            "f is not in the checkpoint",
        ],
    )


def test_only_floats_of_the_stored_dtype_may_be_rounded(tmp_path: Path) -> None:
    rounded = VECTOR.astype(np.float16)
    assert by_name(tmp_path, {"a": VECTOR}, {"a": rounded}, "float16").wrong == []
    assert by_name(tmp_path, {"a": VECTOR}, {"a": rounded}).wrong == [
        "a is float16, and the checkpoint's is float32"
    ]
    assert by_name(tmp_path, {"a": VECTOR}, {"a": VECTOR}, "float16").wrong == []
    off = changed(rounded, 0)
    (sentence,) = by_name(tmp_path, {"a": VECTOR}, {"a": off}, "float16").wrong
    assert sentence.startswith("a differs in 3 of 3 elements, first at [0]")
    beyond = np.array([1e6], np.float32)
    infinite = np.array([np.inf], np.float16)
    assert by_name(tmp_path, {"a": beyond}, {"a": infinite}, "float16").found == 1
    negative = -np.zeros(1, np.float32)
    signs = by_name(tmp_path, {"a": np.zeros(1, np.float32)}, {"a": negative})
    assert signs.found == 0 and len(signs.wrong) == 1
