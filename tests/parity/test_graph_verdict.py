"""The proof of a graph on numbers that are written down: no model, no file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.signature import Array
from checkpoint_release.parity.graph_job import expected_of
from checkpoint_release.parity.graph_proof import (
    DoubleResult,
    GraphProof,
    judge_graph,
    noise_of,
    proof_cases,
)
from checkpoint_release.parity.reference import Floor, KernelCost, Reference
from checkpoint_release.parity.workers import JobResult
from tests.support.references import STEP, case, output, reference

QUIET = Floor(2.0**-24, 2.0**-24)


def of_y(*expected: Array, magnitude: float = 2.0, floor: Floor = QUIET) -> Reference:
    """A reference of one output, in the cases 0, 1, …"""
    cases = {}
    for number, each in enumerate(expected):
        cases[str(number)] = {"y": output(each, magnitude=magnitude)}
    return reference(cases, floor)


def proof(found: Reference, *got: Array, **result: Any) -> GraphProof:
    """The verdict on a graph that computes these y."""
    outputs = {str(number): {"y": each} for number, each in enumerate(got)}
    return judge_graph(DoubleResult(outputs, **result), found)


def test_a_graph_that_is_off_by_the_bar_passes_and_by_more_does_not() -> None:
    zeros = of_y(np.zeros(2), magnitude=2.0)
    exact = proof(zeros, np.zeros(2))
    assert exact == GraphProof(True, cases=1), "nothing differs"
    at_the_bar = proof(zeros, np.array([0.0, 2e-12]))
    assert at_the_bar.passed and at_the_bar.error == at_the_bar.limit == 1e-12
    assert at_the_bar.reason is None and at_the_bar.output == "y"
    assert at_the_bar.describe() == "in float64 it agrees to 1e-12"
    beyond = proof(zeros, np.array([0.0, -2.1e-12]))
    assert not beyond.passed and beyond.error == pytest.approx(1.05e-12)
    assert beyond.case is zeros.cases[0].case
    assert beyond.describe() == (
        "its graph is not the model's: evaluated in float64, y differs by 1e-12 of its"
        " magnitude in the case '0', and 1e-12 is allowed"
    )


def test_the_case_that_is_furthest_off_is_the_one_that_is_shown() -> None:
    zeros = of_y(np.zeros(1), np.zeros(1), np.zeros(1))
    found = proof(zeros, *(np.array([error]) for error in (1e-12, 6e-12, 4e-12)))
    assert not found.passed and found.cases == 3 and found.error == 3e-12
    assert found.case is zeros.cases[1].case
    equal = proof(zeros, *(np.array([error]) for error in (1e-12, 1e-12, 0.0)))
    assert equal.passed and equal.case is zeros.cases[0].case


def test_cases_that_were_not_evaluated_are_not_judged() -> None:
    zeros = of_y(np.zeros(1), np.zeros(1))
    found = proof(zeros, np.zeros(1))
    assert found.passed and found.cases == 1


def test_an_ill_conditioned_model_may_differ_by_a_share_of_its_floor() -> None:
    noisy = of_y(np.zeros(1), magnitude=2.0, floor=Floor(2.0**-10, 2.0**-9))
    allowed = 2.0**-19 * 2.0**-9 * 2.0
    found = proof(noisy, np.array([allowed]))
    assert found.passed and found.reason == "the model magnifies rounding"
    assert found.limit == found.error == allowed / 2.0
    assert not proof(noisy, np.array([allowed * 1.01])).passed
    assert proof(noisy, np.array([1e-12])).reason is None, "within the bar"


def test_steps_of_float64_may_cost_four_times_what_they_are() -> None:
    zeros = of_y(np.zeros(1), np.zeros(1))
    costs = {"1": {"y": KernelCost(typical=1.0, worst=1e-10)}}
    off = np.array([4e-10])
    assert proof(zeros, np.zeros(1), off, double_costs=costs).passed
    assert not proof(zeros, off, np.zeros(1), double_costs=costs).passed
    assert not proof(zeros, np.zeros(1), 1.01 * off, double_costs=costs).passed
    assert not proof(zeros, np.zeros(1), off).passed


def test_operators_in_float32_are_held_to_the_floor_and_named() -> None:
    found = of_y(np.zeros(1), magnitude=2.0, floor=Floor(1e-7, 1e-6))
    narrow = proof(found, np.array([2e-6]), narrow=["Erf", "Mish"])
    assert narrow.passed and narrow.limit == 1e-6
    assert narrow.reason == "Erf, Mish can be evaluated in float32 only"
    assert not proof(found, np.array([2.1e-6]), narrow=["Erf"]).passed


def test_what_cancels_altogether_is_held_to_the_largest_of_all_cases() -> None:
    of_nothing = output(np.zeros(1), magnitude=0.0)
    large = output(np.full(1, 3.0), magnitude=3.0)
    found = reference({"0": {"y": of_nothing}, "1": {"y": large}}, QUIET)
    three = np.full(1, 3.0)
    within = proof(found, np.array([3e-12]), three)
    assert within.passed and within.error == within.limit == 3e-12
    assert not proof(found, np.array([3.1e-12]), three).passed
    alone = reference({"0": {"y": of_nothing}}, QUIET)
    assert not proof(alone, np.array([1e-300])).passed


def test_another_shape_is_never_the_model_s() -> None:
    found = proof(of_y(np.zeros(2)), np.zeros((1, 2)))
    assert not found.passed and found.error == math.inf and found.output == "y"


def test_whole_numbers_agree_with_float64_or_float32_in_every_element() -> None:
    of = output(np.array([1, 2]), np.array([1, 3]))
    counted = reference({"0": {"y": of}})
    assert proof(counted, np.array([1, 3])).passed
    assert proof(counted, np.array([1, 2])).passed
    wrong = proof(counted, np.array([1, 4]))
    assert not wrong.passed and wrong.error == math.inf


def test_every_output_of_every_case_is_looked_at() -> None:
    outputs = {name: output(np.zeros(1)) for name in ("a", "b")}
    found = reference({"0": outputs, "1": outputs}, QUIET)
    for wrong_case in ("0", "1"):
        for wrong_output in ("a", "b"):
            got = {each: {"a": np.zeros(1), "b": np.zeros(1)} for each in ("0", "1")}
            got[wrong_case][wrong_output] = np.ones(1)
            verdict = judge_graph(DoubleResult(got), found)
            assert not verdict.passed and verdict.output == wrong_output
            assert verdict.case is not None and verdict.case.name == wrong_case


def test_a_graph_that_cannot_be_evaluated_is_neither_proven_nor_wrong() -> None:
    found = proof(of_y(np.zeros(1)), failure="no such operator")
    assert found.passed and not found.evaluated and found.error == 0
    assert found.describe() == (
        "its graph could not be evaluated in float64: no such operator"
    )


def test_results_belong_to_the_cases_in_their_order() -> None:
    first, second = {"y": np.zeros(1)}, {"y": np.ones(1)}
    cases = [case("a"), case("b"), case("c")]
    found = DoubleResult.of(JobResult([first, second], failure="killed"), cases)
    assert found.outputs == {"a": first, "b": second} and found.failure == "killed"
    assert found.narrow == [] and found.kernel_costs == found.double_costs == {}


def test_of_large_models_the_smallest_cases_are_evaluated_eight_at_least() -> None:
    sizes = [9, 1, 8, 2, 7, 3, 6, 4, 5, 10]
    cases = [case(str(size), size) for size in sizes]
    chosen = proof_cases(cases, 10**12)
    assert [each.name for each in chosen] == ["1", "8", "2", "7", "3", "6", "4", "5"]
    at_the_limit = proof_cases(cases, 10**11 // 9)
    assert [each.name for each in at_the_limit] == [
        str(size) for size in sizes if size != 10
    ]
    assert proof_cases(cases, 10**10) == cases
    assert len(proof_cases(cases, 10**10 + 1)) == 9
    equal = [case(str(number), 11) for number in range(10)]
    assert len(proof_cases(equal, 9_090_909_090)) == 10
    assert len(proof_cases(equal, 9_090_909_091)) == 8, "one more than 1e11"


def test_noise_is_the_floor_s_or_eager_s_own() -> None:
    exact, rough = output(np.ones(1), magnitude=3.0), output(np.zeros(1))
    assert noise_of(Floor(1.0, 0.5), exact) == 1.5
    assert noise_of(None, exact) == 0
    off = output(np.ones(1), np.full(1, 1.25, np.float32), magnitude=3.0)
    assert noise_of(Floor(1.0, 2.0**-4), off) == 0.25
    assert noise_of(Floor(1.0, 0.0), rough) == 0


def test_what_a_graph_should_compute_comes_with_the_scale_of_its_bar() -> None:
    outputs = {"y": output(np.zeros(1), magnitude=2.0), "n": output(np.arange(2))}
    quiet = reference({"a": outputs, "b": outputs}, QUIET)
    (expected,) = expected_of(quiet, ["b", "c"])
    assert expected.case.name == "b" and list(expected.outputs) == ["y", "n"]
    assert expected.outputs["y"] is outputs["y"].expected
    assert expected.scales == {"y": 2.0}
    noisy = reference({"a": outputs}, Floor(STEP, 2.0**-9))
    (wide,) = expected_of(noisy, ["a"])
    assert wide.scales == {"y": pytest.approx(2.0**-19 * 2.0**-8 / 1e-12)}
