"""The figures of the report are in the terms of the rule that an output is held to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from checkpoint_release.core.artifacts.parity import FormatFigures
from checkpoint_release.parity.candidates import REDUCED, Candidate
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.judge import judge
from checkpoint_release.parity.report import parity_report, summary
from checkpoint_release.parity.rules import Limits, Tolerance
from tests.support.parity_json import MACHINE
from tests.support.parity_world import LIMITS, World, with_output


def check_as(
    world: World, folder: Path, candidate: Candidate, limits: Limits = LIMITS
) -> ParityCheck:
    result = world.run("onnx", folder)
    verdict = judge(candidate, result, world.reference, limits)
    return ParityCheck(limits, world.reference, [verdict])


def figures(check: ParityCheck) -> FormatFigures:
    (of_format,) = parity_report(check, MACHINE, seed=0, checked={}).formats.values()
    return of_format


def test_a_fixed_tolerance_is_reported_as_a_share_and_in_multiples_of_the_floor(
    world: World, exported: dict[str, Path]
) -> None:
    limits = replace(LIMITS, tolerances={"pose": Tolerance(atol=1e-3, rtol=0.0)})
    candidate = world.candidate("onnx", exported["onnx"])
    found = figures(check_as(world, exported["onnx"], candidate, limits))
    pose, velocity = found.outputs["pose"], found.outputs["velocity"]
    assert pose.share_of_tolerance is not None and 0 < pose.share_of_tolerance < 0.1
    assert pose.times_floor is not None and pose.limit > 100 * LIMITS.noise_multiple
    assert velocity.share_of_tolerance is None and velocity.times_floor is not None


def test_reduced_precision_is_reported_as_a_share_of_the_output(
    world: World, exported: dict[str, Path]
) -> None:
    folder = exported["onnx"]
    candidate = Candidate("onnx float16", "onnx", folder, REDUCED, "float16")
    check = check_as(world, folder, candidate)
    found = figures(check)
    assert found.reduced_precision == "float16"
    pose = found.outputs["pose"]
    assert pose.share_of_output is not None and pose.times_floor is None
    assert pose.limit == LIMITS.reduced["float16"]
    assert "onnx float16: reduced precision" in summary(check)


def test_the_summary_marks_what_is_wrong(
    world: World, exported: dict[str, Path]
) -> None:
    result = world.run("onnx", exported["onnx"])
    wrong = with_output(result, 0, "pose", result.outputs[0]["pose"] + 1)
    verdicts = [
        world.judge_result("onnx", exported["onnx"], result),
        world.judge_result("onnx", exported["onnx"], wrong),
    ]
    header, good, bad, *_ = summary(
        ParityCheck(LIMITS, world.reference, verdicts)
    ).splitlines()
    assert header.split()[-2:] == ["environment", "weights"]
    assert good.endswith("ok") and "!" not in good
    assert bad.endswith("WRONG") and bad.count("!") == 1
