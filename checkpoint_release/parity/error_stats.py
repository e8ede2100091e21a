"""Comparing numbers: the errors of an array against its float64 reference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.signature import Array


@dataclass(frozen=True)
class ErrorStats:
    """How far one array is from its float64 reference.

    Attributes:
        count: elements.
        rms, mean_abs, max_abs: of the absolute error; infinite where NaN or infinity
            stands in place of a number.
        magnitude: root mean square of the reference.
        cosine: of the angle between the two as vectors; 1 when both are zero.
        ulps: the median error in units in the last place, that is in steps of the dtype
            at the reference's value.
        max_ulps: the largest of those.
        index: where the largest error is.
    """

    count: int
    rms: float
    mean_abs: float
    max_abs: float
    magnitude: float
    cosine: float
    ulps: float
    max_ulps: float
    index: tuple[int, ...]


@dataclass(frozen=True)
class OverallErrors:
    """How far several arrays are from their references.

    Attributes:
        max_abs: the largest absolute error.
        mean_abs: the mean over all elements.
        cosine: the smallest of the arrays'.
        ulps: the median of the arrays' medians.
        max_ulps: the largest of the arrays'.
    """

    max_abs: float
    mean_abs: float
    cosine: float
    ulps: float
    max_ulps: float


_OF_NOTHING = ErrorStats(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, ())


def error_stats(expected: Array, got: Array) -> ErrorStats:
    """Compare arrays of one shape.

    Args:
        expected: float64, or integers or booleans that both must agree on.
        got: of any dtype; its own dtype is the one whose steps errors are counted in.

    Returns:
        Of empty arrays, no errors.
    """
    if expected.size == 0:
        return _OF_NOTHING
    wanted, found = expected.astype(np.float64), got.astype(np.float64)
    distance = _distance(wanted, found)
    where = np.unravel_index(int(np.argmax(distance)), distance.shape)
    with np.errstate(over="ignore"):
        steps = distance / spacing(wanted, got.dtype)
    return ErrorStats(
        count=expected.size,
        rms=_rms(distance),
        mean_abs=float(distance.mean()),
        max_abs=float(distance[where]),
        magnitude=_rms(wanted),
        cosine=_cosine(wanted, found),
        ulps=float(np.median(steps)),
        max_ulps=float(steps.max()),
        index=tuple(int(i) for i in where),
    )


def overall_errors(errors: Iterable[ErrorStats]) -> OverallErrors:
    """Sum up the errors of several arrays.

    Args:
        errors: of each array, at least one. Means are weighted by the number of
            elements, medians aren't.
    """
    count, total = 0, 0.0
    max_abs, cosine, max_ulps = 0.0, 1.0, 0.0
    medians = []
    for stats in errors:
        count += stats.count
        total += stats.mean_abs * stats.count
        max_abs = max(max_abs, stats.max_abs)
        cosine = min(cosine, stats.cosine)
        max_ulps = max(max_ulps, stats.max_ulps)
        medians.append(stats.ulps)
    return OverallErrors(
        max_abs=max_abs,
        mean_abs=total / max(count, 1),
        cosine=cosine,
        ulps=float(np.median(medians)),
        max_ulps=max_ulps,
    )


def identical(expected: Array, got: Array) -> bool:
    """Whether two arrays are the same bit for bit, dtype and shape included."""
    if expected.dtype != got.dtype or expected.shape != got.shape:
        return False
    return expected.tobytes() == got.tobytes()


def spacing(values: Array, dtype: np.dtype[Any]) -> Array:
    """The distance from each value to the next that the dtype has: one ulp.

    Of a number in [2ᵉ, 2ᵉ⁺¹), that is 2ᵉ⁻ᵖ, with the p = 23 fraction bits of float32
    (IEEE 754); of a subnormal number, the smallest of all.

    Args:
        values: float64; beyond the dtype's range they count as its largest number.
        dtype: floats; for any other, the distance is 1.

    Returns:
        Float64 of the shape of the values, positive.
    """
    if dtype.kind != "f":
        return np.ones_like(values)
    # of the largest number, numpy gives infinity: the one before it has the same step
    largest = np.nextafter(np.finfo(dtype).max, dtype.type(0))
    nearest = np.minimum(np.abs(values), largest).astype(dtype)
    steps: Array = np.spacing(nearest).astype(np.float64)
    return steps


def _distance(expected: Array, got: Array) -> Array:
    """The absolute error of each element; infinite where it isn't a number.

    Args:
        expected, got: float64, of one shape.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        # of arrays without a dimension, numpy gives a scalar
        distance = np.asarray(np.abs(got - expected))
    # NaN and infinity never pass, not even where both have them
    distance[~np.isfinite(distance)] = np.inf
    return distance


def _cosine(expected: Array, got: Array) -> float:
    """The cosine of the angle between two arrays as vectors: x·y / (|x|·|y|).

    Returns:
        0 where NaN or infinity is in one of them, or the norms overflow. A vector of
        zeros has no direction: 1 where the two are equal, otherwise 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = float(np.linalg.norm(expected) * np.linalg.norm(got))
    if not math.isfinite(norms):
        return 0.0
    if norms == 0:
        return float(np.array_equal(expected, got))
    return float(np.vdot(expected, got)) / norms


def _rms(values: Array) -> float:
    """The root mean square, without overflow on the way.

    Numbers are divided by the largest magnitude before they are squared.
    """
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0 or math.isinf(largest):
        return largest
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))
