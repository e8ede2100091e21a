"""Asking for an ONNX file to be evaluated in double precision.

That is done in a process of its own, which has torch and onnx: a graph that is broken
may break them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from checkpoint_release.parity.constants import Weights
from checkpoint_release.parity.graph_proof import (
    BAR,
    SHARE_OF_FLOOR,
    DoubleResult,
    Expected,
    noise_of,
)
from checkpoint_release.parity.judge import Verdict
from checkpoint_release.parity.reference import Reference
from checkpoint_release.parity.workers import WorkerError, call_isolated


def expected_of(reference: Reference, names: Collection[str]) -> list[Expected]:
    """What a graph should compute, without what only judges need.

    Args:
        reference: what the model computes.
        names: of the cases that are wanted.
    """
    expected = []
    for case in reference.cases:
        if case.case.name not in names:
            continue
        outputs, scales = {}, {}
        for name, output in case.outputs.items():
            outputs[name] = output.expected
            if output.is_float:
                noise = noise_of(reference.floors[name], output)
                allowed = max(BAR * output.magnitude, SHARE_OF_FLOOR * noise)
                scales[name] = allowed / BAR
        expected.append(Expected(case.case, outputs, scales))
    return expected


def evaluate_again(
    verdict: Verdict,
    first: DoubleResult,
    weights: Weights,
    reference: Reference,
    checkpoint: Path,
) -> DoubleResult:
    """What more is known of an ONNX graph that doesn't pass as it was evaluated.

    Where it isn't the model's with the likely numbers for its constants, others are
    looked for, and tables that the model computes. Where only its runtime errs beyond
    the floor, it is what kernels may cost in these cases. Of one that can't be
    evaluated, nothing more is known.

    Args:
        verdict: on the graph.
        first: what it computed with the likely numbers.
        weights: of the checkpoint.
        reference: what the model computes.
        checkpoint: the folder of the checkpoint.
    """
    if first.failure is not None:
        return first
    file, beyond = verdict.candidate.file, verdict.beyond_floor
    if verdict.graph is not None and verdict.graph.passed:
        expected = expected_of(reference, beyond)
        found = evaluate_isolated(file, weights, expected, beyond)
        return replace(first, kernel_costs=found.kernel_costs)
    expected = expected_of(reference, first.outputs.keys() | beyond)
    return evaluate_isolated(file, weights, expected, beyond, checkpoint)


def evaluate_isolated(
    file: Path,
    weights: Weights,
    expected: Sequence[Expected],
    beyond_floor: frozenset[str],
    checkpoint: Path | None = None,
) -> DoubleResult:
    """Evaluate a file in a process of its own.

    Args:
        file: the ONNX file, in float32.
        weights: of the checkpoint.
        expected: the cases, and what the model computes in them.
        beyond_floor: names of the cases in which the cost of kernels is wanted.
        checkpoint: as for evaluate_onnx.

    Returns:
        What it computed; a failure, also of the process, is no error here.
    """
    try:
        result: DoubleResult = call_isolated(
            _evaluate,
            file,
            weights,
            expected,
            beyond_floor,
            checkpoint,
            needs_torch=True,
        )
    except WorkerError as error:
        return DoubleResult(failure=f"the process that evaluated it {error}")
    return result


def _evaluate(
    file: Path,
    weights: Weights,
    expected: Sequence[Expected],
    beyond_floor: frozenset[str],
    checkpoint: Path | None,
) -> DoubleResult:
    """The work behind evaluate_isolated, in a process that has torch."""
    from checkpoint_release.parity.onnx_in_double import evaluate_onnx

    return evaluate_onnx(file, weights, expected, beyond_floor, checkpoint=checkpoint)
