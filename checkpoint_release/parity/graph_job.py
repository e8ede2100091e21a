"""Asking for an ONNX file to be evaluated in double precision.

That is done in a process of its own, which has torch and onnx: a graph that is broken
may break them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.parity.constants import Weights, is_small
from checkpoint_release.parity.graph_proof import (
    BAR,
    SHARE_OF_FLOOR,
    DoubleResult,
    Expected,
    noise_of,
)
from checkpoint_release.parity.reference import Reference
from checkpoint_release.parity.workers import WorkerError, call_isolated
from checkpoint_release.tensors.safetensors import open_safetensors


def weights_of(checkpoint: Path) -> Weights:
    """The tensors of a checkpoint.

    Args:
        checkpoint: its folder.
    """
    tensors = open_safetensors(checkpoint / WEIGHTS_FILE)
    small = set()
    for tensor in tensors.values():
        if is_small(math.prod(tensor.shape)):
            small.add(tensor.numpy().astype(np.float32).tobytes())
    return Weights(frozenset(tensors), frozenset(small))


def expected_of(reference: Reference) -> list[Expected]:
    """What a graph should compute in all cases, without what only judges need."""
    expected = []
    for case in reference.cases:
        outputs, scales = {}, {}
        for name, output in case.outputs.items():
            outputs[name] = output.expected
            if output.is_float:
                noise = noise_of(reference.floors[name], output)
                allowed = max(BAR * output.magnitude, SHARE_OF_FLOOR * noise)
                scales[name] = allowed / BAR
        expected.append(Expected(case.case, outputs, scales))
    return expected


def evaluate_isolated(
    file: Path,
    weights: Weights,
    reference: Reference,
    beyond_floor: frozenset[str],
) -> DoubleResult:
    """Evaluate a file on all cases, in a process of its own.

    Args:
        file: the ONNX file, in float32.
        weights: as of DoubleGraph.
        reference: the cases, and what the model computes in them.
        beyond_floor: names of the cases in which the cost of kernels is wanted.

    Returns:
        What it computed; a failure, also of the process, is no error here.
    """
    try:
        result: DoubleResult = call_isolated(
            _evaluate,
            file,
            weights,
            expected_of(reference),
            beyond_floor,
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
) -> DoubleResult:
    """The work behind evaluate_isolated, in a process that has torch."""
    from checkpoint_release.parity.onnx_in_double import evaluate_onnx

    return evaluate_onnx(file, weights, expected, beyond_floor)
