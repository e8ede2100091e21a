"""Verdicts on numbers that are written down: no model, no file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.parity.candidates import EXACT, NOISE, REDUCED, Candidate
from checkpoint_release.parity.error_stats import error_stats
from checkpoint_release.parity.graph_proof import DoubleResult
from checkpoint_release.parity.judge import Verdict, judge
from checkpoint_release.parity.reference import NO_COST, Floor, KernelCost
from checkpoint_release.parity.rules import (
    Equality,
    FixedTolerance,
    Limits,
    MagnitudeShare,
    NoiseMultiple,
    Tolerance,
    rule_for,
)
from checkpoint_release.parity.weights import WeightsReport
from checkpoint_release.parity.workers import JobResult
from tests.support.references import STEP, case, ones, output, reference

LIMITS = Limits(10.0, {"float16": 0.01})
COUNTED = np.array([3, 5])
REFERENCE = reference(
    {
        name: {
            "y": output(np.ones(3), ones(1, 1, 1)),
            "z": output(np.full(1, 1.0), ones(0)),
            "n": output(COUNTED),
        }
        for name in ("first", "second")
    }
)
NO_ERRORS = error_stats(np.zeros(0), np.zeros(0, np.float32))


def computed(y: Sequence[float] = (0, 0, 0), z: float = 0, n: int = 3) -> Any:
    """Outputs; those of floats in steps above 1."""
    return {"y": ones(*y), "z": ones(z), "n": np.array([n, 5])}


def candidate(rule: str = NOISE, precision: str | None = None) -> Candidate:
    return Candidate("onnx", "onnx", Path("onnx"), rule, precision)


def verdict(
    first: Any,
    second: Any,
    rule: str = NOISE,
    double: DoubleResult | None = None,
    **result: Any,
) -> Verdict:
    """On what a candidate computed in both cases."""
    found = JobResult([first, second], **result)
    return judge(candidate(rule), found, REFERENCE, LIMITS, double)


def test_an_error_at_the_limit_passes_and_one_beyond_it_fails() -> None:
    at_it = verdict(computed(), computed((0, 10, 0)))
    assert at_it.passed and at_it.evidence is None and at_it.graph is None
    y = at_it.outputs["y"]
    assert [each.error_ratio for each in y.results] == [0, 10]
    assert [each.times_floor for each in y.results] == [0, 10]
    assert {each.limit for each in y.results} == {10}
    assert {each.kernel_cost for each in y.results} == {NO_COST}
    assert y.worst is y.results[1] and y.worst.excess == 1 and y.failing == []
    assert y.errors.max_abs == 10 * STEP and y.name == "y"
    assert y.worst.case.name == "second" and y.worst.got[1] == ones(10)[0]
    assert y.worst.reference is REFERENCE.cases[1].outputs["y"]

    beyond = verdict(computed(), computed((0, 11, 0)))
    assert not beyond.passed
    assert beyond.problem == (
        "y is off by 1e-05, 11 times the noise floor, and 10 is allowed, in the case"
        " 'second': expected 1, got 1.00001049 at [1]"
    )
    assert [each.name for each in beyond.outputs["y"].failing] == ["second"]
    assert beyond.beyond_floor == {"second"}
    assert [each.name for each in beyond.wrong_outputs] == ["y"]
    assert beyond.evidence is not None
    assert beyond.evidence.reference is REFERENCE.cases[1]
    assert list(beyond.evidence.got) == ["y", "z", "n"]


def test_of_several_wrong_outputs_the_one_that_is_furthest_off_is_described() -> None:
    found = verdict(computed((20, 0, 0)), computed((30, 0, 0), 40))
    assert str(found.problem).startswith("z is off by 3.8e-05, 40 times the noise")
    assert str(found.problem).endswith("at [0] (2 of 3 outputs are wrong)")
    assert found.outputs["y"].worst is found.outputs["y"].results[1]
    assert found.beyond_floor == {"first", "second"}
    assert found.evidence is not None
    assert found.evidence.reference.case.name == "second"
    earlier = verdict(computed((30, 0, 0)), computed((30, 0, 0)))
    assert earlier.outputs["y"].worst is earlier.outputs["y"].results[0]


def test_whole_numbers_may_differ_in_nothing() -> None:
    found = verdict(computed(n=4), computed())
    assert found.problem == ("n differs, in the case 'first': expected 3, got 4 at [0]")
    n = found.outputs["n"]
    assert n.worst.error_ratio == 1 and n.worst.limit == 0 and n.worst.excess == 1
    assert n.worst.times_floor is None and n.rule == Equality()


def test_the_bits_of_eager_float32_are_counted_and_where_asked_for_required() -> None:
    bits = (1.0, 1.0, 1.0)
    same = verdict(computed(bits), computed(bits), EXACT)
    assert same.passed and same.outputs["y"].identical == 2
    assert [each.identical for each in same.outputs["y"].results] == [True, True]
    other = verdict(computed(bits), computed(), EXACT)
    assert other.problem == (
        "y doesn't have the bits that eager float32 computes, in the case 'first':"
        " expected 1, got 1.00000095 at [0]"
    )
    assert other.outputs["y"].identical == 1 and other.outputs["y"].failing == []
    assert verdict(computed(bits), computed()).passed


def test_a_candidate_that_failed_is_shown_in_the_case_in_which_it_did() -> None:
    whole = computed()
    failed = JobResult([whole], failure="no memory", failed_case="second")
    found = judge(candidate(), failed, REFERENCE, LIMITS)
    assert found.problem == "no memory" and found.outputs == {} and not found.passed
    assert found.evidence is not None
    assert found.evidence.reference is REFERENCE.cases[1] and found.evidence.got == {}
    in_first = replace(failed, failed_case="first")
    shown = judge(candidate(), in_first, REFERENCE, LIMITS).evidence
    assert shown is not None and shown.got is whole
    unopened = JobResult(failure="no such file")
    assert judge(candidate(), unopened, REFERENCE, LIMITS).evidence is None


def test_outputs_of_another_form_have_no_numbers_to_judge() -> None:
    shuffled = {name: computed()[name] for name in ("z", "y", "n")}
    found = verdict(computed(), shuffled)
    assert found.problem == (
        "its outputs are ['z', 'y', 'n'], and the model's are ['y', 'z', 'n'],"
        " in the case 'second'"
    )
    assert found.outputs == {} and found.evidence is not None
    assert found.evidence.got is shuffled
    assert found.evidence.reference is REFERENCE.cases[1]
    wide = {**computed(), "y": np.ones(3)}
    assert verdict(wide, computed()).problem == (
        "y is float64 [3], and the model's is float32 [3], in the case 'first'"
    )
    long = {**computed(), "z": ones(0, 0)}
    assert verdict(long, computed()).problem == (
        "z is float32 [2], and the model's is float32 [1], in the case 'first'"
    )


def test_a_case_without_outputs_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="shorter"):
        judge(candidate(), JobResult([computed()]), REFERENCE, LIMITS)


def test_what_kernels_cost_is_allowed_in_their_case_and_output_alone() -> None:
    cost = KernelCost(typical=20 * STEP, worst=20 * STEP)
    double = DoubleResult({}, kernel_costs={"second": {"y": cost}})
    off = computed((20, 0, 0))
    assert verdict(computed(), off, double=double).passed
    y = verdict(computed(), off, double=double).outputs["y"]
    assert y.results[1].kernel_cost is cost and y.results[0].kernel_cost is NO_COST
    assert y.worst.times_floor == pytest.approx(20 / 21)
    assert not verdict(off, computed(), double=double).passed
    assert not verdict(computed(), computed(z=20), double=double).passed


def in_double(**changed: float) -> DoubleResult:
    """What a graph computes in both cases; y of one may be off."""
    outputs = {}
    for name in ("first", "second"):
        y = np.full(3, 1 + changed.get(name, 0.0))
        outputs[name] = {"y": y, "z": np.ones(1), "n": COUNTED}
    return DoubleResult(outputs)


def test_everything_that_is_wrong_is_listed_file_before_numbers() -> None:
    lost = WeightsReport(2, 1, ["w differs", "v differs"])
    found = verdict(
        computed((30, 0, 0)),
        computed(),
        double=in_double(second=1e-3),
        weights=lost,
        faults=["it asks for another opset"],
    )
    graph, file, numbers = str(found.problem).split("; ")
    assert graph.startswith("its graph is not the model's")
    assert file == "it asks for another opset (and 2 more)"
    assert numbers.startswith("y is off by")
    assert found.weights is lost
    assert found.evidence is not None, "the graph's case, not the worst number's"
    assert found.evidence.reference.case.name == "second"


def test_a_weight_that_is_wrong_fails_what_computes_right() -> None:
    lost = WeightsReport(2, 1, ["w differs"])
    found = verdict(computed(), computed((0, 3, 0)), weights=lost)
    assert found.problem == "the weight w differs" and not found.wrong_outputs
    assert found.evidence is not None
    assert found.evidence.reference.case.name == "second", "where it errs most"
    assert verdict(computed(), computed(), weights=WeightsReport(2, 1)).passed


def test_only_a_proven_graph_with_right_weights_errs_in_its_runtime() -> None:
    right, wrong = in_double(), in_double(first=1e-3)
    off, lost = computed((30, 0, 0)), WeightsReport(1, 0, ["w differs"])
    held = WeightsReport(1, 1)
    assert verdict(off, computed(), double=right).errs_in_runtime
    assert verdict(off, computed(), double=right, weights=held).errs_in_runtime
    assert not verdict(off, computed(), double=right, weights=lost).errs_in_runtime
    assert not verdict(off, computed(), double=wrong).errs_in_runtime
    assert not verdict(off, computed()).errs_in_runtime
    assert not verdict(computed(), computed(), double=right).errs_in_runtime
    unknown = DoubleResult(failure="an operator is missing")
    assert not verdict(off, computed(), double=unknown).errs_in_runtime


# ------------------------------------------------------------------------------
# The rules


def test_each_output_has_the_rule_that_comes_first() -> None:
    tolerances = {"y": Tolerance(1.0, 0.0), "n": Tolerance(1.0, 0.0)}
    limits = replace(LIMITS, tolerances=tolerances)
    reduced = candidate(REDUCED, "float16")

    def rule(name: str, of: Candidate) -> Any:
        return rule_for(name, of, REFERENCE, limits)

    assert rule("n", candidate()) == rule("n", reduced) == Equality()
    assert rule("y", reduced) == FixedTolerance(tolerances["y"])
    assert rule("y", reduced).limit == 1 and Equality().limit == 0
    assert rule("z", reduced) == MagnitudeShare(0.01)
    assert rule("z", candidate()) == NoiseMultiple(Floor(STEP, STEP), 10.0)
    assert rule("z", candidate(REDUCED)) == NoiseMultiple(Floor(STEP, STEP), 10.0)
    assert rule("z", candidate(NOISE, "float16")) == rule("z", candidate())


def share(expected: list[float], got: list[float], tolerance: Tolerance) -> float:
    of = output(np.array(expected, np.float64))
    found = np.array(got, np.float32)
    return FixedTolerance(tolerance).error_ratio(of, found, NO_ERRORS, NO_COST)


def test_a_tolerance_is_absolute_and_relative_together() -> None:
    both = Tolerance(atol=1.0, rtol=0.5)
    assert share([-8.0, 1.0], [-3.0, 1.0], both) == 1
    assert share([0.0, 4.0], [2.0, 4.0], both) == 2
    assert share([8.0, 0.0], [8.0, -0.5], both) == 0.5
    nothing = Tolerance(0.0, 0.0)
    assert share([1.0, 2.0], [1.0, 2.0], nothing) == 0
    assert share([1.0, 2.0], [1.0, 3.0], nothing) == math.inf
    assert share([], [], nothing) == 0
    for bad in (math.nan, math.inf, -math.inf):
        assert share([1.0, 2.0], [1.0, bad], Tolerance(1e300, 1e300)) == math.inf


def test_a_decision_may_go_as_float64_or_as_float32_decides() -> None:
    of = output(np.array([1, 2, 3]), np.array([1, 2, 4]))

    def ratio(*got: int) -> float:
        return Equality().error_ratio(of, np.array(got), NO_ERRORS, NO_COST)

    assert ratio(1, 2, 3) == ratio(1, 2, 4) == 0.0
    assert ratio(1, 2, 5) == ratio(2, 2, 3) == 1.0


def test_reduced_precision_is_a_share_of_the_magnitude() -> None:
    of, rule = output(np.ones(2), magnitude=4.0), MagnitudeShare(0.25)
    errors = replace(NO_ERRORS, rms=1.0, max_abs=3.0)
    assert rule.error_ratio(of, ones(0, 0), errors, NO_COST) == 0.25
    of_nothing = output(np.zeros(2), magnitude=0.0)
    assert rule.error_ratio(of_nothing, ones(0, 0), errors, NO_COST) == math.inf


def test_each_rule_says_how_far_an_output_is_off() -> None:
    errors = replace(NO_ERRORS, rms=1.0, max_abs=0.125)
    floor = NoiseMultiple(Floor(STEP, STEP), 10.0)
    assert Equality().describe(1.0, 0.0, errors) == "differs"
    assert FixedTolerance(Tolerance(1, 1)).describe(2.5, 1.0, errors) == (
        "is off by 0.12, 2.5 times its tolerance"
    )
    assert MagnitudeShare(0.01).describe(0.5, 0.01, errors) == (
        "is off by 0.5 of its magnitude, and 0.01 is allowed"
    )
    assert floor.describe(12.0, 10.0, errors) == (
        "is off by 0.12, 12 times the noise floor, and 10 is allowed"
    )


def test_a_candidate_runs_on_the_cases_of_its_sizes() -> None:
    sized = replace(candidate(), sizes={"batch": 2})
    assert sized.takes(replace(case("a"), sizes={"batch": 2, "length": 5}))
    assert not sized.takes(replace(case("a"), sizes={"batch": 3, "length": 5}))
    assert candidate().takes(case("a"))
