"""The noise floor is the checkpoint's own, and every case has its own magnitude."""

from __future__ import annotations

import numpy as np

from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import error_stats
from checkpoint_release.parity.reference import measure_reference
from tests.support.parity_world import LIMITS


def test_a_large_case_does_not_hide_an_error_in_a_small_one() -> None:
    random = np.random.default_rng(0)
    scales = {"nominal": 1.0, "large": 1e6, "tiny": 1e-6}
    cases = [Case(kind, kind, scale, {}) for kind, scale in scales.items()]
    float64 = [{"y": random.standard_normal(1000) * case.magnitude} for case in cases]
    float32 = [{"y": outputs["y"].astype(np.float32)} for outputs in float64]
    reference = measure_reference(cases, float64, float32)
    floor, tiny = reference.floors["y"], reference.cases[2].outputs["y"]
    assert floor.multiple(tiny, error_stats(tiny.expected, tiny.eager)) <= 1
    wrong = (tiny.expected * (1 + 1e-5)).astype(np.float32)
    multiple = floor.multiple(tiny, error_stats(tiny.expected, wrong))
    assert multiple > LIMITS.noise_multiple
