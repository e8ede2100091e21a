"""The table of dtypes agrees with torch, numpy and safetensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from checkpoint_release.core.dtypes import (
    BY_TORCH_NAME,
    DTYPES,
    FLOATS,
    HALF,
    SIGNATURE_DTYPES,
    DType,
    of_numpy,
)


@pytest.mark.parametrize("dtype", BY_TORCH_NAME.values(), ids=list(BY_TORCH_NAME))
def test_torch_has_the_dtype_under_that_name(dtype: DType) -> None:
    found = getattr(torch, str(dtype.torch_name))
    assert found.itemsize * 8 == dtype.bits
    assert found.is_complex == (dtype.kind == "complex")
    assert found.is_floating_point == (dtype.kind in ("minifloat", "half", "float"))
    assert dtype.is_integral == (not found.is_floating_point and not found.is_complex)


def test_numpy_types_are_found_again() -> None:
    for dtype in DTYPES.values():
        if dtype.numpy is not None:
            assert of_numpy(dtype.numpy) is dtype
            assert dtype.numpy.itemsize * 8 == dtype.bits
    for other in ("U3", ">f4", "datetime64[s]"):
        with pytest.raises(TypeError, match="no tensor holds numpy's"):
            of_numpy(np.dtype(other))


def test_sizes_are_rounded_up_to_whole_bytes() -> None:
    assert [DTYPES["F4"].nbytes(count) for count in (0, 1, 2, 3)] == [0, 1, 1, 2]
    assert DTYPES["C128"].nbytes(3) == 48


def test_groups_are_the_widest_first() -> None:
    assert FLOATS == ("F64", "F32", "BF16", "F16")
    assert HALF == ("BF16", "F16")
    assert BY_TORCH_NAME.keys() >= set(SIGNATURE_DTYPES)
