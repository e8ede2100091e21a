"""References of the parity check that are made by hand, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from checkpoint_release.core.signature import Array
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import error_stats
from checkpoint_release.parity.reference import (
    CaseReference,
    Floor,
    OutputReference,
    Reference,
)

STEP = 2.0**-20
"""By how much eager float32 errs, a multiple of float32's steps at 1."""
FLOOR = Floor(STEP, STEP)


def case(name: str, elements: int = 0) -> Case:
    """A nominal case whose inputs hold so many numbers."""
    return Case(name, "nominal", 1.0, {"x": np.zeros(elements)})


def output(
    expected: Array, eager: Array | None = None, magnitude: float = 1.0
) -> OutputReference:
    """An output; by default eager float32 computes it exactly."""
    if eager is None:
        floats = expected.dtype.kind == "f"
        eager = expected.astype(np.float32) if floats else expected
    errors = error_stats(expected, eager)
    return OutputReference(expected, eager, errors, magnitude)


def reference(
    cases: Mapping[str, Mapping[str, OutputReference]],
    floor: Floor = FLOOR,
) -> Reference:
    """Outputs by case and name; all that are floats have the one floor."""
    of_cases: list[CaseReference] = []
    floors: dict[str, Floor] = {}
    for name, outputs in cases.items():
        of_cases.append(CaseReference(case(name), dict(outputs)))
        for each, found in outputs.items():
            if found.is_float:
                floors[each] = floor
    return Reference(of_cases, floors)


def ones(*off_by: float) -> Array:
    """Float32 numbers that are so many of STEP above 1."""
    steps: Sequence[float] = off_by
    return np.array([1 + each * STEP for each in steps], np.float32)
