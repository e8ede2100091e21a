"""Casts and checks that work while a tensor's bytes are streamed."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoint_release.core.errors import CheckpointError, ExportError
from checkpoint_release.tensors.tensor import CHUNK, Tensor
from checkpoint_release.tensors.wrappers import Cast, Finite


def tensor(*values: float, dtype: str = "float32") -> Tensor:
    return Tensor.of_numpy(np.array(values, dtype))


def test_a_cast_rounds_to_nearest_even_piece_by_piece() -> None:
    values = np.random.default_rng(0).standard_normal(CHUNK).astype(np.float32)
    cast = Cast("w", Tensor.of_numpy(values), "F16")
    assert cast.shape == values.shape
    assert len(list(cast.chunks())) > 1
    np.testing.assert_array_equal(cast.numpy(), values.astype(np.float16))


def test_a_cast_keeps_infinity_and_nan_and_refuses_to_create_infinity() -> None:
    found = Cast("w", tensor(np.inf, -np.inf, np.nan), "F16").numpy()
    assert np.isinf(found[:2]).all() and np.isnan(found[2])
    with pytest.raises(ExportError, match=r"w \[2\] holds 70000\.0.* F16") as error:
        Cast("w", tensor(1.0, 70000.0), "F16").numpy()
    assert error.value.options == ("safetensors.dtype",)
    assert error.value.remedy.startswith("set safetensors.dtype to bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "float64", "complex64"])
def test_values_that_are_not_finite_are_counted(dtype: str) -> None:
    checked = Finite("w", tensor(1, np.nan, np.inf, np.inf, dtype=dtype))
    with pytest.raises(CheckpointError, match="at least 1 NaN and 2 infinite") as error:
        list(checked.chunks())
    assert error.value.options == ("checkpoint.non_finite",)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_finite_values_pass_unchanged(dtype: str) -> None:
    source = tensor(0, 1, 3, dtype=dtype)
    checked = Finite("w", source)
    assert (checked.dtype, checked.shape) == (source.dtype, source.shape)
    assert b"".join(checked.chunks()) == b"".join(source.chunks())
