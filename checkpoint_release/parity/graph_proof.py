"""Question one: does the graph compute what the model computes?

Every exported graph is evaluated in double precision and held against the eager model
in float64, where there is no noise for a mistake to hide in. A right graph agrees to
about 1e-15; what is allowed is 1e-12 of an output's magnitude. An ill-conditioned model
magnifies float64's rounding as it does float32's, so an output whose noise floor in
float32 is high may differ by up to 2⁻¹⁹ of that floor, half a millionth;
or by what steps of float64 on the way cost, where an output is what a cancellation
leaves.

TorchScript and exported programs are run by torch, each operation in double precision.
ONNX is evaluated as checkpoint_release.parity.double_graph does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import error_stats
from checkpoint_release.parity.reference import (
    NO_COST,
    Floor,
    KernelCost,
    OutputReference,
    Reference,
    ratio,
)
from checkpoint_release.parity.workers import JobResult

BAR = 1e-12
"""What a graph may differ by, as a share of an output's magnitude."""
SHARE_OF_FLOOR = 2.0**-19
"""The same as a share of float32's noise floor, where that allows more."""
FEWEST = 8
"""How many cases a graph is evaluated in whatever its size."""
LARGEST_PRODUCT = 1e11
"""Of the numbers of a case's inputs and of the model's weights: beyond, a case is left
out.
"""
STEPS = 4.0
"""The same in multiples of what kernels in float64 may cost."""


@dataclass(frozen=True)
class Expected:
    """What the graph should compute in a case.

    Attributes:
        case: the case.
        outputs: of the eager model, in float64.
        scales: float output → its magnitude; more where its noise is high, so that
            BAR of it is what may differ.
    """

    case: Case
    outputs: Arrays
    scales: dict[str, float]


@dataclass(frozen=True)
class DoubleResult:
    """What a graph computed in double precision.

    Attributes:
        outputs: name of a case → name → array; larger cases may be left out.
        narrow: operators that could be evaluated in float32 only.
        kernel_costs: name of a case → output → what kernels may cost there, where that
            was asked for.
        double_costs: likewise what double precision itself costs, where a graph differs
            by more than BAR.
        failure: why the graph could not be evaluated, or None.
    """

    outputs: dict[str, Arrays] = field(default_factory=dict)
    narrow: list[str] = field(default_factory=list)
    kernel_costs: dict[str, dict[str, KernelCost]] = field(default_factory=dict)
    double_costs: dict[str, dict[str, KernelCost]] = field(default_factory=dict)
    failure: str | None = None

    @classmethod
    def of(cls, result: JobResult, cases: Iterable[Case]) -> DoubleResult:
        """What a job computed that ran in float64.

        Args:
            result: of the job.
            cases: that it was to run, in order.
        """
        names = [case.name for case in cases]
        outputs = dict(zip(names, result.outputs, strict=False))
        return cls(outputs, failure=result.failure)


@dataclass(frozen=True)
class GraphProof:
    """The answer.

    Attributes:
        passed: whether the graph is the model's.
        error: the largest difference, as a share of the output's magnitude.
        limit: what is allowed there.
        output, case: where it is; None where nothing differs.
        cases: in how many it was evaluated.
        reason: why more than BAR is allowed, or why nothing was evaluated; None: it is
            not.
        evaluated: whether there is an answer at all.
    """

    passed: bool
    error: float = 0.0
    limit: float = BAR
    output: str | None = None
    case: Case | None = None
    cases: int = 0
    reason: str | None = None
    evaluated: bool = True

    def describe(self) -> str:
        """What is wrong, or how good it is, for a message."""
        if not self.evaluated:
            return f"its graph could not be evaluated in float64: {self.reason}"
        if self.passed:
            return f"in float64 it agrees to {self.error:.1g}"
        where = "" if self.case is None else f" in the case {self.case.name!r}"
        return (
            f"its graph is not the model's: evaluated in float64, {self.output} differs"
            f" by {self.error:.2g} of its magnitude{where}, and {self.limit:.1g} is"
            " allowed"
        )


def proof_cases(cases: Sequence[Case], numbers: int) -> list[Case]:
    """The cases that graphs are evaluated in: all, but of a large model only those that
    aren't large, since other shapes show the same graph. FEWEST are always among them.

    Args:
        cases: all cases.
        numbers: of the checkpoint's weights.
    """
    ascending = sorted(cases, key=lambda case: case.elements)
    few = {case.name for case in ascending[:FEWEST]}
    chosen = []
    for case in cases:
        if case.name in few or case.elements * numbers <= LARGEST_PRODUCT:
            chosen.append(case)
    return chosen


def judge_graph(result: DoubleResult, reference: Reference) -> GraphProof:
    """Hold what a graph computed in double precision against the eager model.

    Args:
        result: of the graph, with the model's outputs.
        reference: what the eager model computed, in the same cases.
    """
    if result.failure is not None:
        return GraphProof(True, reason=result.failure, evaluated=False)
    reaches = {name: _reach(name, reference) for name in reference.outputs}
    worst, worst_share = GraphProof(True), 0.0
    evaluated = [case for case in reference.cases if case.case.name in result.outputs]
    for expected in evaluated:
        got = result.outputs[expected.case.name]
        for name, output in expected.outputs.items():
            cost = result.double_costs.get(expected.case.name, {}).get(name, NO_COST)
            floor, reach = reference.floors.get(name), reaches[name]
            allowed = _Allowed(floor, reach, cost, result.narrow)
            found = _judge_output(output, got[name], allowed)
            share = ratio(found.error, found.limit)
            if share > worst_share or (share == worst_share and not found.passed):
                worst_share = share
                worst = replace(found, output=name, case=expected.case)
    return replace(worst, passed=worst_share <= 1, cases=len(evaluated))


@dataclass(frozen=True)
class _Allowed:
    """What an output may differ by in a case, beside the bar.

    Attributes:
        floor: the noise floor of a float output.
        reach: the output's largest magnitude in any case, which counts where all of it
            cancels.
        cost: of double precision.
        narrow: as of DoubleResult.
    """

    floor: Floor | None
    reach: float
    cost: KernelCost
    narrow: list[str]

    def limit(self, expected: OutputReference) -> tuple[float, str | None]:
        """An absolute difference, and why that is more than the bar."""
        noise = noise_of(self.floor, expected)
        if self.narrow:
            return noise, f"{', '.join(self.narrow)} can be evaluated in float32 only"
        wide = max(SHARE_OF_FLOOR * noise, STEPS * self.cost.worst)
        if expected.magnitude == 0:
            wide = max(wide, BAR * self.reach)
        return wide, "the model magnifies rounding"


def _reach(name: str, reference: Reference) -> float:
    """The largest magnitude of an output in any case."""
    return max(case.outputs[name].magnitude for case in reference.cases)


def noise_of(floor: Floor | None, expected: OutputReference) -> float:
    """How far float32 may be off in one number of an output, at the noise floor.

    Args:
        floor: of the output; None: it holds no floats.
        expected: the output in a case.
    """
    worst = floor.worst * expected.magnitude if floor else 0.0
    return max(worst, expected.eager_errors.max_abs)


def _judge_output(
    expected: OutputReference, got: Array, allowed: _Allowed
) -> GraphProof:
    """One output in one case.

    Args:
        expected: what the eager model computed.
        got: what the graph computed.
        allowed: where it differs by more than the bar.
    """
    if got.shape != expected.expected.shape:
        return GraphProof(False, error=np.inf)
    if not expected.is_float:
        # a decision between equals may go either way
        agrees = bool(((got == expected.expected) | (got == expected.eager)).all())
        return GraphProof(agrees, error=0.0 if agrees else np.inf)
    error = error_stats(expected.expected, got).max_abs
    limit, reason = BAR * expected.magnitude, None
    if error > limit:
        wide, why = allowed.limit(expected)
        if wide > limit:
            limit, reason = wide, why
    scale = expected.magnitude or 1.0
    return GraphProof(
        error <= limit, error=error / scale, limit=limit / scale, reason=reason
    )
