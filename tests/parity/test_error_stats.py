"""Errors are what their names mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from checkpoint_release.parity.error_stats import error_stats, identical


def test_errors_are_measured_as_their_names_say() -> None:
    expected = np.array([[1.0, -2.0], [4.0, 0.0]])
    got = expected.astype(np.float32)
    got[1, 0] = np.nextafter(np.float32(4), np.float32(5))
    found = error_stats(expected, got)
    step = 2.0**-21
    assert (
        found.max_abs == step and found.index == (1, 0) and found.mean_abs == step / 4
    )
    assert math.isclose(found.rms, step / 2) and found.max_ulps == 1 and found.ulps == 0
    assert found.cosine == pytest.approx(1, abs=1e-12)
    assert error_stats(expected, -got).cosine == pytest.approx(-1, abs=1e-12)


def test_nan_is_no_match_for_nan() -> None:
    both = np.array([np.nan, 1.0])
    assert error_stats(both, both.astype(np.float32)).max_abs == math.inf


def test_bits_are_compared_with_signs_of_zero_and_dtypes() -> None:
    zero = np.zeros(2, np.float32)
    assert identical(zero, zero.copy())
    assert not identical(zero, -zero) and not identical(zero, zero.astype(np.float64))
