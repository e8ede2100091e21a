"""Comparing numbers: errors against a float64 reference, and the noise floor that they
are judged by.

The eager model in float32 errs against itself in float64, for float32 rounds at every
step. That error is the noise floor: no correct float32 format can be expected to do
much better, and one that does much worse computes something else. The floor of an
output is taken from all cases together, relative to the output's magnitude in each,
because a handful of rounding errors says little of how large they usually are. Every
case is then judged on its own, against its own magnitude, so that large values can't
hide an error in small ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

OUTLIER_FACTOR = 4.0  # times the median error
# of float32: the floor of outputs that eager float32 computes exactly
UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class ErrorStats:
    """How far one array is from its float64 reference.

    Attributes:
        count: elements.
        rms, mean, largest: of the absolute error; infinite where NaN or infinity stands
            in place of a number.
        magnitude: root mean square of the reference.
        cosine: of the angle between the two as vectors; 1 when both are zero.
        ulps: the median error in units in the last place, that is in steps of the dtype
            at the reference's value.
        max_ulps: the largest of those.
        index: where the largest error is.
    """

    count: int
    rms: float
    mean: float
    largest: float
    magnitude: float
    cosine: float
    ulps: float
    max_ulps: float
    index: tuple[int, ...]


def error_stats(expected: Array, got: Array) -> ErrorStats:
    """Compare arrays of one shape; `expected` is float64, or integers or booleans that
    both must agree on.
    """
    if expected.size == 0:
        return ErrorStats(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, ())
    truth, found = expected.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        # of arrays without a dimension, numpy gives a scalar
        distance = np.asarray(np.abs(found - truth))
    # NaN and infinity never pass, not even where both have them
    distance[~np.isfinite(distance)] = np.inf
    where = np.unravel_index(int(np.argmax(distance)), distance.shape)
    steps = distance / spacing(truth, got.dtype)
    norms = float(np.linalg.norm(truth) * np.linalg.norm(found))
    dot = float(np.vdot(truth, found))
    return ErrorStats(
        count=expected.size,
        rms=_rms(distance),
        mean=float(distance.mean()),
        largest=float(distance[where]),
        magnitude=_rms(truth),
        cosine=(
            (dot / norms if norms else float(not distance.any()))
            if math.isfinite(norms)
            else 0.0
        ),
        ulps=float(np.median(steps)),
        max_ulps=float(steps.max()),
        index=tuple(int(i) for i in where),
    )


def identical(expected: Array, got: Array) -> bool:
    """Whether two arrays are the same bit for bit, dtype and shape included."""
    same_form = expected.dtype == got.dtype and expected.shape == got.shape
    return (
        same_form
        and np.ascontiguousarray(expected).tobytes()
        == np.ascontiguousarray(got).tobytes()
    )


@dataclass(frozen=True)
class Floor:
    """The noise floor of one output over all cases.

    Attributes:
        typical: root mean square error of eager float32, relative to the output's
            magnitude.
        worst: largest error, relative likewise.
        magnitudes: the output's magnitude by case. Few numbers may all be close to zero
            by chance, so it is at least that of all cases of the same kind together.
        eager: eager float32's own errors by case.
    """

    typical: float
    worst: float
    magnitudes: tuple[float, ...]
    eager: tuple[ErrorStats, ...]

    def multiple(self, case: int, found: ErrorStats) -> float:
        """The error of a case as a multiple of the floor: the larger of that of the
        typical and of the largest error.

        The root mean square of n independent errors scatters around what is expected of
        it by about 1/√(2n), and three to four times that happens in some case or other
        of a few thousand. The factor 1 + 3/√n allows for it; for n independent normal
        errors it is exceeded about once in 10⁵.
        """
        if math.isinf(found.largest):
            return math.inf
        scatter = 1 + 3 / math.sqrt(max(found.count, 1))
        scale = self.magnitudes[case]
        typical = max(self.typical * scale * scatter, self.eager[case].rms)
        worst = max(self.worst * scale, self.eager[case].largest)
        return max(_ratio(found.rms, typical), _ratio(found.largest, worst))


def noise_floors(
    references: Sequence[Arrays], eager: Sequence[Arrays], kinds: Sequence[str]
) -> dict[str, Floor]:
    """The floor of every float output.

    All outputs come out of one computation, so that an output of a few numbers, or one
    that happens to be exact, has at least the median floor of all of them.

    Args:
        references: outputs in float64, by case.
        eager: outputs of eager float32, by case.
        kinds: each case's kind; cases of one kind share their magnitude.
    """
    names = [name for name, array in references[0].items() if array.dtype.kind == "f"]
    table = {
        name: [
            error_stats(r[name], e[name])
            for r, e in zip(references, eager, strict=True)
        ]
        for name in names
    }
    magnitudes = {name: _shared_magnitudes(table[name], kinds) for name in names}
    typical, worst = {}, {}
    for name in names:
        pairs = _without_outliers(
            [
                (e.rms / m, e.largest / m)
                for e, m in zip(table[name], magnitudes[name], strict=True)
                if m
            ]
        )
        typical[name] = (
            math.sqrt(sum(rms**2 for rms, _ in pairs) / len(pairs)) if pairs else 0.0
        )
        worst[name] = max((largest for _, largest in pairs), default=0.0)
    common_typical = float(np.median(list(typical.values()))) if names else 0.0
    common_worst = float(np.median(list(worst.values()))) if names else 0.0
    return {
        name: Floor(
            max(typical[name], common_typical, UNIT_ROUNDOFF),
            max(worst[name], common_worst, UNIT_ROUNDOFF),
            tuple(magnitudes[name]),
            tuple(table[name]),
        )
        for name in names
    }


def _without_outliers(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The cases without those where eager float32 errs far more than usual: they speak
    for themselves alone.
    """
    median = float(np.median([rms for rms, _ in pairs])) if pairs else 0.0
    return [pair for pair in pairs if pair[0] <= OUTLIER_FACTOR * median]


def _shared_magnitudes(
    table: Sequence[ErrorStats], kinds: Sequence[str]
) -> list[float]:
    shared = {}
    for kind in set(kinds):
        squares = [
            e.magnitude**2 for e, k in zip(table, kinds, strict=True) if k == kind
        ]
        shared[kind] = math.sqrt(sum(squares) / len(squares))
    return [
        max(e.magnitude, shared[kind]) for e, kind in zip(table, kinds, strict=True)
    ]


def spacing(values: Array, dtype: np.dtype[Any]) -> Array:
    """The distance from each value to the next that the dtype has; 1 for integers."""
    if dtype.kind != "f":
        return np.ones_like(values)
    limit = np.finfo(dtype).max
    steps: Array = np.spacing(np.minimum(np.abs(values), limit).astype(dtype)).astype(
        np.float64
    )
    return steps


def _rms(values: Array) -> float:
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0 or math.isinf(largest):
        return largest
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


def _ratio(found: float, allowed: float) -> float:
    return found / allowed if allowed > 0 else (0.0 if found == 0 else math.inf)
