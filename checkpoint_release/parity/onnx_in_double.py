"""An ONNX file in double precision on all cases, with its constants aligned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.errors import one_line
from checkpoint_release.core.large import is_large
from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.constants import Constant, Weights, align
from checkpoint_release.parity.double_graph import DoubleGraph
from checkpoint_release.parity.graph_proof import (
    BAR,
    STEPS,
    DoubleResult,
    Expected,
)
from checkpoint_release.parity.kernel_cost import FLOAT64_STEP, kernel_costs
from checkpoint_release.parity.reference import KernelCost

EXPLAINABLE = 1e-3
"""A share of an output's magnitude; no rounding of constants changes more."""


def evaluate_onnx(
    file: Path,
    weights: Weights,
    expected: Sequence[Expected],
    beyond_floor: frozenset[str] = frozenset(),
    names: Sequence[str] | None = None,
    checkpoint: Path | None = None,
) -> DoubleResult:
    """Evaluate a file on all cases.

    Args:
        file: the ONNX file, in float32.
        weights: as of DoubleGraph.
        expected: the cases, and what the model computes in them.
        beyond_floor: names of the cases in which the cost of kernels is wanted.
        names: what to call the outputs, in order; None: as the graph does.
        checkpoint: the folder of the checkpoint, whose model is asked which constants
            are tables that it computes; None: they count as they are. It needs torch.

    Returns:
        What it computed; a failure is no error here.
    """
    try:
        with np.errstate(all="ignore"):  # what is not finite is judged
            graph = DoubleGraph(file, weights, names)
            if checkpoint is not None:
                tables = _tables(graph, checkpoint, expected)
                graph = DoubleGraph(file, weights, names, tables) if tables else graph
            return _evaluate_all(graph, expected, beyond_floor)
    except Exception as error:  # a broken graph can fail in any way that libraries know
        return DoubleResult(failure=f"{type(error).__name__}: {one_line(error)}")


def _tables(
    graph: DoubleGraph, checkpoint: Path, expected: Sequence[Expected]
) -> Callable[[Array], Array | None] | None:
    """What gives the graph's tables in double precision; None: it has none.

    Nothing is asked of a large model, of which several copies would be held.

    Args:
        graph: the graph.
        checkpoint: the folder of the checkpoint.
        expected: the cases; the two smallest are run.
    """
    from checkpoint_release.parity.computed_tables import (
        computed_tables,
        in_their_place,
        sizes_of_tables,
    )

    if len(expected) < 2 or is_large((checkpoint / WEIGHTS_FILE).stat().st_size):
        return None
    sizes = sizes_of_tables(graph.tensors_beside_weights())
    if not sizes:
        return None
    few = sorted(expected, key=lambda each: each.case.elements)[:2]
    tables = computed_tables(checkpoint, [each.case.inputs for each in few], sizes)
    return partial(in_their_place, tables=tables) if tables else None


def _evaluate_all(
    graph: DoubleGraph,
    expected: Sequence[Expected],
    beyond_floor: frozenset[str],
) -> DoubleResult:
    """The work behind evaluate_onnx, which may raise anything."""
    found = _evaluate(graph, expected)
    smallest = min(expected, key=lambda each: each.case.elements)
    narrow = graph.narrow_operators(smallest.case.inputs)
    costs: dict[str, dict[str, KernelCost]] = {}
    double_costs: dict[str, dict[str, KernelCost]] = {}
    for each, got in zip(expected, found.outputs, strict=True):
        name, inputs = each.case.name, each.case.inputs
        if name in beyond_floor:
            costs[name] = kernel_costs(graph, inputs)
        if _largest_error([got], [each]) > BAR:
            double_costs[name] = kernel_costs(graph, inputs, FLOAT64_STEP)
    names = [each.case.name for each in expected]
    outputs = dict(zip(names, found.outputs, strict=True))
    return DoubleResult(outputs, narrow, costs, double_costs)


@dataclass(frozen=True)
class _Evaluation:
    """What a graph computes with its constants set in some way.

    Attributes:
        outputs: by case.
        error: the largest difference from the model; see _largest_error.
    """

    outputs: list[Arrays]
    error: float


def _evaluate(graph: DoubleGraph, expected: Sequence[Expected]) -> _Evaluation:
    """The outputs in every case, with constants for which the graph is the model.

    The likely numbers are tried first. Where they don't do, constants are fitted: equal
    numbers as one constant at first; then with cases that count by what double
    precision is worth in them; and then with a number of its own for each place, for
    0.1 may be a decimal in one and a float32 in another.

    Args:
        graph: left with the constants that were tried last.
        expected: the cases.

    Returns:
        The first that agrees to BAR, or else the closest.
    """
    graph.set_likely_constants()
    best = _run_all(graph, expected)
    if best.error <= BAR or best.error > EXPLAINABLE:
        return best
    found = _align(graph, graph.constants(), expected, best)
    if found.error <= BAR:
        return found
    weighted = _weighted(graph, expected)
    best = replace(best, error=_largest_error(best.outputs, weighted))
    for by_value in (True, False):
        constants = graph.constants(by_value=by_value)
        found = _align(graph, constants, weighted, best)
        if found.error < best.error:
            best = found
        if best.error <= BAR:
            break
    return best


def _run_all(graph: DoubleGraph, expected: Sequence[Expected]) -> _Evaluation:
    """The outputs in every case, with the constants as they are set."""
    outputs = [graph.run(each.case.inputs) for each in expected]
    return _Evaluation(outputs, _largest_error(outputs, expected))


def _align(
    graph: DoubleGraph,
    constants: Sequence[Constant],
    expected: Sequence[Expected],
    before: _Evaluation,
) -> _Evaluation:
    """The outputs with the constants fitted, if there are any.

    Args:
        graph: left with these constants.
        constants: to align.
        expected: the cases.
        before: what it computes with other constants.
    """
    few = _representatives(expected, before.outputs)
    if not align(constants, lambda: _differences(graph, few)):
        return before
    return _run_all(graph, expected)


def _weighted(graph: DoubleGraph, expected: Sequence[Expected]) -> list[Expected]:
    """The cases with scales that are no less than double precision is worth there.

    Args:
        graph: the graph.
        expected: the cases.
    """
    weighted = []
    for each in expected:
        costs = kernel_costs(graph, each.case.inputs, FLOAT64_STEP)
        scales = {}
        for name, scale in each.scales.items():
            scales[name] = max(scale, STEPS * costs[name].worst / BAR)
        weighted.append(replace(each, scales=scales))
    return weighted


def _representatives(
    expected: Sequence[Expected], outputs: Sequence[Arrays]
) -> list[Expected]:
    """The smallest case of every kind, and the one that is furthest off: what a
    constant changes may show in one alone, such as an epsilon among zeros.

    Args:
        expected: the cases.
        outputs: what the graph computes in them with other constants.
    """
    chosen: dict[str, Expected] = {}
    for each in sorted(expected, key=lambda each: each.case.elements):
        chosen.setdefault(each.case.kind, each)
    errors = []
    for each, got in zip(expected, outputs, strict=True):
        errors.append(_largest_error([got], [each]))
    furthest = expected[int(np.argmax(errors))]
    return [*chosen.values(), furthest]


def _differences(graph: DoubleGraph, expected: Sequence[Expected]) -> Array:
    """How far the graph is from the model, each number as a share of its output's
    magnitude.
    """
    differences = []
    for each in expected:
        got = graph.run(each.case.inputs)
        differences += _relative(got, each)
    return np.concatenate(differences)


def _largest_error(outputs: Sequence[Arrays], expected: Sequence[Expected]) -> float:
    """The largest difference as a share of an output's magnitude; infinite where a
    shape differs.
    """
    largest = 0.0
    for each, got in zip(expected, outputs, strict=True):
        for name in each.scales:
            if got[name].shape != each.outputs[name].shape:
                return float("inf")
        for difference in _relative(got, each):
            largest = max(largest, float(np.abs(difference).max(initial=0.0)))
    return largest


def _relative(got: Arrays, expected: Expected) -> list[Array]:
    """The differences of a case's float outputs, flat, as shares of magnitudes."""
    differences = []
    for name, scale in expected.scales.items():
        difference = got[name].astype(np.float64) - expected.outputs[name]
        differences.append(difference.reshape(-1) / (scale or 1.0))
    return differences
