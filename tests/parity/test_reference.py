"""The noise floor is the checkpoint's own, and every case has its own magnitude."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from checkpoint_release.core.signature import Arrays
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import ErrorStats, error_stats
from checkpoint_release.parity.reference import (
    UNIT_ROUNDOFF,
    Floor,
    KernelCost,
    OutputReference,
    Reference,
    measure_reference,
    ratio,
)
from tests.support.parity_world import LIMITS

STEP = 2.0**-20
NO_ERRORS = error_stats(np.zeros(0), np.zeros(0, np.float32))


def off_by(*steps: float, size: int = 4) -> list[Arrays]:
    """Outputs y of eager float32 that are that many steps from 1, by case."""
    return [{"y": np.full(size, 1 + each * STEP, np.float32)} for each in steps]


def ones(cases: int, size: int = 4) -> list[Arrays]:
    """Outputs y in float64 that are 1, by case."""
    return [{"y": np.ones(size)}] * cases


def nominal(number: int) -> list[Case]:
    return [Case(f"nominal {each}", "nominal", 1.0, {}) for each in range(number)]


def floor_of(eager: Sequence[Arrays]) -> Floor:
    """The floor of y, in steps, where all expected values are 1."""
    floor = measure_reference(nominal(len(eager)), ones(len(eager)), eager).floors["y"]
    return Floor(floor.typical / STEP, floor.worst / STEP)


def errors(rms: float, max_abs: float, count: int = 9) -> ErrorStats:
    return replace(NO_ERRORS, rms=rms, max_abs=max_abs, count=count)


def judged_by(eager: ErrorStats, magnitude: float = 2.0) -> OutputReference:
    return OutputReference(np.ones(1), np.ones(1, np.float32), eager, magnitude)


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


def test_the_floor_is_the_root_mean_square_over_cases_and_the_largest_error() -> None:
    floor = floor_of(off_by(1, 1, 1, 1, 3))
    assert floor.typical == pytest.approx(math.sqrt(13 / 5)) and floor.worst == 3


def test_a_case_beyond_four_times_the_median_speaks_for_itself_alone() -> None:
    at_the_limit = floor_of(off_by(1, 1, 1, 1, 4))
    assert at_the_limit.typical == pytest.approx(2) and at_the_limit.worst == 4
    beyond = floor_of(off_by(1, 1, 1, 1, 4.5))
    assert beyond.typical == pytest.approx(1) and beyond.worst == 1


def test_few_numbers_may_scatter_by_three_over_the_root_of_their_count() -> None:
    floor = Floor(typical=1e-7, worst=1e-6)
    quiet = judged_by(errors(0.0, 0.0))
    allowed = 1e-7 * 2.0 * (1 + 3 / math.sqrt(9))
    assert floor.multiple(quiet, errors(allowed, 0.0)) == pytest.approx(1)
    assert floor.multiple(quiet, errors(0.0, 2e-6)) == pytest.approx(1)
    nothing = judged_by(errors(0.0, 0.0, count=0))
    assert floor.in_case(nothing).typical == pytest.approx(4 * 2e-7)


def test_the_scatter_of_normal_errors_is_seldom_beyond_what_is_allowed() -> None:
    drawn = np.random.default_rng(0).standard_normal((20_000, 4))
    typical = np.sqrt(np.mean(np.square(drawn), axis=1))
    allowed = Floor(1.0, 1.0).in_case(judged_by(errors(0.0, 0.0, count=4), 1.0))
    assert np.mean(typical > allowed.typical) < 1e-3
    assert np.mean(typical > allowed.typical * 0.75) > 1e-3


def test_where_eager_errs_by_more_its_own_errors_are_the_floor() -> None:
    floor = Floor(typical=1e-7, worst=1e-6)
    noisy = judged_by(errors(3e-5, 4e-5))
    assert floor.in_case(noisy) == Floor(typical=3e-5, worst=4e-5)
    assert floor.multiple(noisy, errors(3e-5, 8e-5)) == pytest.approx(2)
    assert floor.multiple(noisy, errors(9e-5, 4e-5)) == pytest.approx(3)


def test_what_kernels_cost_comes_on_top_of_the_floor() -> None:
    floor, noisy = Floor(1e-7, 1e-6), judged_by(errors(3e-5, 4e-5))
    cost = KernelCost(typical=3e-5, worst=1e-5)
    assert floor.multiple(noisy, errors(6e-5, 0.0), cost) == pytest.approx(1)
    assert floor.multiple(noisy, errors(0.0, 5e-5), cost) == pytest.approx(1)


def test_a_candidate_that_gives_infinity_is_infinitely_wrong() -> None:
    noisy = judged_by(errors(math.inf, math.inf))
    assert Floor(1.0, 1.0).multiple(noisy, errors(math.inf, math.inf)) == math.inf
    assert Floor(0.0, 0.0).multiple(judged_by(errors(0, 0)), errors(1, 1)) == math.inf


def test_an_error_where_none_is_allowed_is_infinitely_large() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(0.0, 0.0) == 0.0
    assert ratio(1e-300, 0.0) == math.inf


def two_outputs(cases: int, **steps: float) -> Reference:
    """A reference of outputs that are 1, each off by its steps in every case."""
    exact = [{name: np.ones(4) for name in steps}] * cases
    eager = {
        name: np.full(4, 1 + each * STEP, np.float32) for name, each in steps.items()
    }
    return measure_reference(nominal(cases), exact, [eager] * cases)


def test_an_exact_output_has_the_median_floor_of_all() -> None:
    floors = two_outputs(3, exact=0, usual=1, rough=3).floors
    assert floors["exact"] == floors["usual"] == Floor(STEP, STEP)
    assert floors["rough"] == Floor(3 * STEP, 3 * STEP)


def test_no_floor_is_below_the_unit_roundoff() -> None:
    exact = Floor(UNIT_ROUNDOFF, UNIT_ROUNDOFF)
    assert two_outputs(2, y=0).floors == {"y": exact} and UNIT_ROUNDOFF == 2.0**-24
    zero = [{"y": np.zeros(4)}]
    eager: list[Arrays] = [{"y": np.full(4, STEP, np.float32)}]
    assert measure_reference(nominal(1), zero, eager).floors == {"y": exact}


def test_integers_have_no_floor() -> None:
    counted: list[Arrays] = [{"n": np.arange(3), "y": np.ones(3)}]
    eager: list[Arrays] = [{"n": np.arange(3), "y": np.ones(3, np.float32)}]
    reference = measure_reference(nominal(1), counted, eager)
    assert list(reference.floors) == ["y"] and reference.outputs == ["n", "y"]


def test_magnitudes_are_shared_by_the_cases_of_a_kind_alone() -> None:
    cases = [*nominal(2), Case("large", "large", 1e3, {})]
    values = (1.0, 7.0, 1000.0)
    exact = [{"y": np.full(4, each)} for each in values]
    eager = [{"y": np.full(4, each, np.float32)} for each in values]
    reference = measure_reference(cases, exact, eager)
    magnitudes = [case.outputs["y"].magnitude for case in reference.cases]
    assert magnitudes == pytest.approx([5.0, 7.0, 1000.0])
    assert [each.case.name for each in reference.among(cases[1:]).cases] == [
        "nominal 1",
        "large",
    ]
