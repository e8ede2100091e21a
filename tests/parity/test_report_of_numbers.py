"""The report on verdicts that are written down: no model, no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.artifacts.parity import WeightsHeld
from checkpoint_release.parity.candidates import NOISE, REDUCED, Candidate
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.graph_proof import DoubleResult, Expected
from checkpoint_release.parity.judge import Verdict, judge
from checkpoint_release.parity.onnx_in_double import (
    _largest_error,
    _relative,
    _representatives,
)
from checkpoint_release.parity.plots import _errors_along
from checkpoint_release.parity.report import parity_metrics, parity_report, summary
from checkpoint_release.parity.rules import Limits, Tolerance
from checkpoint_release.parity.weights import WeightsReport
from checkpoint_release.parity.workers import JobResult
from tests.support.parity_json import MACHINE
from tests.support.references import STEP, case, ones, output, reference

LIMITS = Limits(10.0, {"float16": 0.25})
NAMES = ("first", "second")
REFERENCE = reference(
    {
        name: {"y": output(np.ones(3), ones(1, 1, 1)), "n": output(np.array([3, 5]))}
        for name in NAMES
    }
)
CANDIDATE = Candidate("onnx", "onnx", Path("onnx"), NOISE)


def computed(*steps: float, n: int = 3) -> Any:
    return {"y": ones(*steps), "n": np.array([n, 5])}


def in_double(off: float = 0.0, **more: Any) -> DoubleResult:
    outputs = {"y": np.full(3, 1 + off), "n": np.array([3, 5])}
    return DoubleResult(dict.fromkeys(NAMES, outputs), **more)


def verdict(
    first: Any,
    second: Any,
    candidate: Candidate = CANDIDATE,
    limits: Limits = LIMITS,
    double: DoubleResult | None = None,
    weights: WeightsReport | None = None,
) -> Verdict:
    result = JobResult([first, second], weights=weights)
    return judge(candidate, result, REFERENCE, limits, double)


def check(*verdicts: Verdict, **more: Any) -> ParityCheck:
    return ParityCheck(LIMITS, REFERENCE, [*verdicts], **more)


GOOD = verdict(
    computed(0, 5, 0),
    computed(1, 1, 1),
    double=in_double(3e-14),
    weights=WeightsReport(4, 3),
)
BAD = verdict(
    computed(0, 0, 200),
    computed(1, 1, 1, n=4),
    replace(CANDIDATE, name="onnx fixed", sizes={"batch": 2, "length": 3}),
    double=in_double(2e-9),
)
UNKNOWN = verdict(
    computed(1, 1, 1),
    computed(1, 1, 1),
    replace(CANDIDATE, name="torchscript"),
    double=DoubleResult(failure="no such operator"),
)
HALF = verdict(
    computed(0, 0, 2**18),
    computed(1, 1, 1),
    replace(CANDIDATE, name="onnx float16", rule=REDUCED, precision="float16"),
)
DEAD = judge(
    replace(CANDIDATE, name="dead"), JobResult(failure="killed"), REFERENCE, LIMITS
)


def test_the_summary_of_a_check_is_this() -> None:
    found = check(GOOD, BAD, UNKNOWN, HALF, DEAD, not_run={"openvino": "it is missing"})
    assert summary(found).splitlines() == [
        "× noise floor   graph       y     n  weights",
        "onnx            3e-14     5.0     =      3/4     ok",
        "onnx fixed     2e-09!  2e+02!  1.0!        –  WRONG",
        "torchscript         –       =     =        –     ok",
        "onnx float16        –  14.43%     =        –     ok",
        "dead                –       –     –        –  WRONG",
        "2 cases; up to 10× the floor passes; = is bit for bit",
        "floor: eager float32 against float64, as a share of the output: y 9.5e-07",
        "graph: evaluated in float64, against the model in float64, as a share of the"
        " output; 1e-12 passes",
        "onnx fixed: up to 2e-12 passes: the model magnifies rounding",
        "torchscript: its graph could not be evaluated in float64: no such operator",
        "weights: those held bit for bit; the others aren't in the file (no input needs"
        " them, or folded)",
        "openvino: not run, for it is missing",
        "onnx fixed: the cases of batch 2, length 3 alone",
        "onnx float16: reduced precision, error as a share of the output; 25% passes",
    ]


def test_more_is_noted_where_more_than_the_bar_is_allowed() -> None:
    narrow = verdict(
        computed(1, 1, 1), computed(1, 1, 1), double=in_double(STEP, narrow=["Erf"])
    )
    notes = summary(check(narrow)).splitlines()
    allowed = f"{STEP:.1g}"
    assert notes[-1] == (
        f"onnx: up to {allowed} passes: Erf can be evaluated in float32 only"
    )
    assert "weights:" not in "\n".join(notes)


def test_of_many_outputs_the_worst_is_shown() -> None:
    names = [f"y{number}" for number in range(9)]
    wide = reference({"only": {name: output(np.ones(1)) for name in names}})
    got = {name: ones(2) for name in names} | {"y7": ones(4)}
    found = judge(CANDIDATE, JobResult([got]), wide, LIMITS)
    dead = judge(CANDIDATE, JobResult(failure="killed"), wide, LIMITS)
    lines = summary(ParityCheck(LIMITS, wide, [found, dead])).splitlines()
    assert lines[0].split() == [
        "×",
        "noise",
        "floor",
        "graph",
        "worst",
        "output",
        "weights",
    ]
    assert lines[1].split() == ["onnx", "–", "y7", "4.0", "–", "ok"]
    assert lines[2].split() == ["onnx", "–", "–", "–", "WRONG"]
    assert lines[4].endswith("y0 9.5e-07, y1 9.5e-07, y2 9.5e-07")


def test_the_metrics_are_shares_of_what_is_allowed() -> None:
    metrics = parity_metrics(check(GOOD, BAD, DEAD))
    assert not metrics.passed and metrics.cases == 2
    assert metrics.share_of_limit == {"onnx": 0.5, "onnx fixed": 20.0, "dead": 0.0}
    assert parity_metrics(check(GOOD)).passed


def test_the_report_has_the_figures_of_each_candidate() -> None:
    found = check(GOOD, BAD, HALF, DEAD, versions={"openvino": "2026.1"})
    report = parity_report(found, MACHINE, seed=7, checked={"onnx": "abc"})
    assert not report.passed and report.checked == {"onnx": "abc"}
    assert report.rule.seed == 7 and report.rule.cases == 2
    assert report.rule.noise_multiple == 10
    assert report.machine.libraries == {"torch": "2.13.0", "openvino": "2026.1"}
    assert report.noise_floor["y"].typical == report.noise_floor["y"].worst == 9.5e-07
    assert list(report.noise_floor) == ["y"]
    scattered = STEP * (1 + 3 / 3**0.5)
    assert report.sample_floor["y"].typical == pytest.approx(scattered, rel=0.05)
    assert report.sample_floor["y"].worst == 9.5e-07

    good = report.formats["onnx"]
    assert good.passed and good.rule == NOISE and good.reduced_precision is None
    assert good.weights == WeightsHeld(bit_for_bit=3, of=4)
    assert good.cases is None and good.bit_identical_cases == 1
    assert good.graph is not None and good.graph.evaluated
    assert good.graph.error == 3e-14 and good.graph.limit == 1e-12
    assert good.graph.cases == 2 and good.graph.reason is None
    y = good.outputs["y"]
    assert y.times_floor == 5 and y.limit == 10 and y.kernel_cost is None
    assert y.share_of_output is None and y.share_of_tolerance is None
    assert y.max_abs_error == 4.8e-06 and y.mean_abs_error == 1.3e-06
    assert y.worst_case == "first" and y.worst_index == "1" and y.cosine == 1
    assert y.max_ulps == 40 and y.ulps == 4

    bad = report.formats["onnx fixed"]
    assert bad.cases == 2 and bad.weights is None and not bad.passed
    assert bad.outputs["n"].times_floor == 1 and bad.outputs["n"].limit == 0
    half = report.formats["onnx float16"]
    assert half.reduced_precision == "float16" and half.graph is None
    assert half.outputs["y"].share_of_output == 0.14
    assert half.outputs["y"].limit == 0.25 and half.outputs["y"].times_floor is None
    dead = report.formats["dead"]
    assert dead.outputs == {} and dead.bit_identical_cases == 0 and not dead.passed


def test_a_tolerance_is_stated_in_floors_too() -> None:
    limits = replace(LIMITS, tolerances={"y": Tolerance(20 * STEP, 0.0)})
    found = check(verdict(computed(0, 5, 0), computed(0, 0, 0), limits=limits))
    y = parity_report(found, MACHINE, seed=0, checked={}).formats["onnx"].outputs["y"]
    assert y.share_of_tolerance == 0.25 and y.times_floor == 5 and y.limit == 20
    exact = check(verdict(computed(0, 0, 0), computed(0, 0, 0), limits=limits))
    same = parity_report(exact, MACHINE, seed=0, checked={}).formats["onnx"]
    assert same.outputs["y"].limit == 1 and same.outputs["y"].times_floor == 0


def test_errors_along_an_axis_are_shares_of_the_magnitude() -> None:
    of = output(np.zeros((2, 2)), magnitude=2.0)
    got = np.array([[3.0, 4.0], [0.0, 0.0]])
    assert _errors_along(0, of, got) == pytest.approx([12.5**0.5 / 2, 0])
    assert _errors_along(1, of, got) == pytest.approx([4.5**0.5 / 2, 8**0.5 / 2])
    nothing = output(np.zeros((2, 2)), magnitude=0.0)
    assert _errors_along(0, nothing, got) == pytest.approx([12.5**0.5, 0])


# ------------------------------------------------------------------------------
# How far a graph is from the model while its constants are looked for


def expected(name: str, kind: str, elements: int, scale: float = 2.0) -> Expected:
    of = replace(case(name, elements), kind=kind)
    outputs = {"y": np.zeros(2), "n": np.array([1])}
    return Expected(of, outputs, {"y": scale})


def test_differences_are_shares_of_each_output_s_scale() -> None:
    one = expected("a", "nominal", 1)
    got = {"y": np.array([1.0, -4.0], np.float32), "n": np.array([9])}
    (difference,) = _relative(got, one)
    assert difference.tolist() == [0.5, -2.0] and difference.dtype == np.float64
    assert _largest_error([got], [one]) == 2
    (bare,) = _relative(got, expected("a", "nominal", 1, scale=0.0))
    assert bare.tolist() == [1.0, -4.0]
    assert _largest_error([], []) == 0
    assert _largest_error([{"y": np.zeros((1, 2)), "n": got["n"]}], [one]) == np.inf
    with pytest.raises(ValueError, match="shorter"):
        _largest_error([], [one])


def test_the_smallest_case_of_each_kind_and_the_furthest_represent_all() -> None:
    cases = [
        expected("large", "nominal", 9),
        expected("small", "nominal", 1),
        expected("zeros", "zeros", 5),
        expected("off", "nominal", 7),
    ]
    outputs = [{"y": np.full(2, each), "n": np.array([1])} for each in (0, 1, 0, 3)]
    names = [each.case.name for each in _representatives(cases, outputs)]
    assert names == ["small", "zeros", "off"]
