"""Errors are what their names mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from checkpoint_release.parity.error_stats import (
    ErrorStats,
    OverallErrors,
    error_stats,
    identical,
    overall_errors,
    spacing,
)


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


def test_errors_of_nothing_are_none() -> None:
    nothing = error_stats(np.zeros((0, 3)), np.zeros((0, 3), np.float32))
    assert nothing == ErrorStats(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, ())


def test_errors_of_a_scalar_have_an_empty_index() -> None:
    found = error_stats(np.array(2.0), np.array(1.5, np.float32))
    assert found.count == 1 and found.index == () and found.max_abs == 0.5
    assert found.magnitude == 2 and found.rms == found.mean_abs == 0.5
    assert error_stats(np.array(True), np.array(False)).max_abs == 1


def test_the_largest_error_is_the_one_that_is_pointed_at() -> None:
    expected = np.array([[0.0, 4.0], [-8.0, 2.0]])
    got = np.array([[0.5, 4.0], [-7.0, 2.25]])
    found = error_stats(expected, got)
    assert found.index == (1, 0) and found.count == 4
    assert found.mean_abs == pytest.approx(1.75 / 4)
    assert found.rms == pytest.approx(math.sqrt((0.25 + 1 + 0.0625) / 4))
    assert found.magnitude == pytest.approx(math.sqrt(84 / 4))
    steps = sorted([0.5 / 5e-324, 0.0, 2.0**49, 2.0**49])
    assert found.ulps == pytest.approx((steps[1] + steps[2]) / 2)
    assert found.max_ulps == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_where_no_number_is_the_error_is_infinite_and_pointed_at(bad: float) -> None:
    found = error_stats(np.array([1.0, 2.0]), np.array([1.5, bad], np.float32))
    assert found.max_abs == found.rms == found.mean_abs == math.inf
    assert found.index == (1,) and found.cosine == 0


def test_squares_do_not_overflow_or_vanish() -> None:
    for scale in (1e300, 1e-300):
        found = error_stats(np.array([3.0, 4.0]) * scale, np.zeros(2))
        assert found.rms == found.magnitude == pytest.approx(math.sqrt(12.5) * scale)
    assert error_stats(np.full(2, 1e200), np.full(2, 1e200)).cosine == 0


def test_a_vector_of_zeros_has_no_direction() -> None:
    zeros, ones = np.zeros(2), np.ones(2)
    assert error_stats(zeros, zeros).cosine == 1
    assert error_stats(zeros, ones).cosine == error_stats(ones, zeros).cosine == 0
    assert error_stats(np.array([1.0, 0]), np.array([1.0, 1])).cosine == pytest.approx(
        math.sqrt(0.5)
    )


def test_a_step_is_the_distance_to_the_next_number_of_the_dtype() -> None:
    values = np.array([1.0, -2.0, 1e-50, 1e300, 0.0])
    float32, float16 = np.dtype(np.float32), np.dtype(np.float16)
    smallest, largest = 2.0**-149, 2.0 ** (127 - 23)
    assert spacing(values, float32).tolist() == [
        2.0**-23,
        2.0**-22,
        smallest,
        largest,
        smallest,
    ]
    assert spacing(values, float16)[0] == 2.0**-10
    assert spacing(values, np.dtype(np.int64)).tolist() == [1.0] * 5
    assert spacing(values, float32).dtype == np.float64


def test_errors_of_several_arrays_are_summed_up() -> None:
    one = ErrorStats(1, 0.5, 4.0, 4.0, 1.0, 0.75, 3.0, 9.0, (0,))
    three = ErrorStats(3, 0.5, 2.0, 8.0, 1.0, 0.5, 1.0, 5.0, (0,))
    assert overall_errors([one, three, three]) == OverallErrors(
        max_abs=8.0, mean_abs=16 / 7, cosine=0.5, ulps=1.0, max_ulps=9.0
    )
    assert overall_errors([one]) == OverallErrors(4.0, 4.0, 0.75, 3.0, 9.0)
    nothing = ErrorStats(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, ())
    assert overall_errors([nothing]) == OverallErrors(0.0, 0.0, 1.0, 0.0, 0.0)


def test_shapes_are_part_of_being_identical() -> None:
    assert not identical(np.zeros((2, 1), np.float32), np.zeros((1, 2), np.float32))
    nan = np.array([np.nan])
    assert identical(nan, nan.copy()) and not identical(nan, np.array([1.0]))
