"""The verdict on an artifact: what it computed, held against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.candidates import EXACT, Candidate
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import (
    ErrorStats,
    OverallErrors,
    error_stats,
    identical,
    overall_errors,
)
from checkpoint_release.parity.graph_proof import (
    DoubleResult,
    GraphProof,
    judge_graph,
)
from checkpoint_release.parity.reference import (
    NO_COST,
    CaseReference,
    KernelCost,
    OutputReference,
    Reference,
)
from checkpoint_release.parity.rules import Limits, OutputRule, rule_for
from checkpoint_release.parity.weights import WeightsReport
from checkpoint_release.parity.workers import JobResult


@dataclass(frozen=True)
class CaseResult:
    """One output of a candidate in one case.

    Attributes:
        case: the case.
        reference: what the checkpoint's own model computes.
        got: what the candidate computed.
        errors: of `got` against float64.
        error_ratio: the error in the rule's terms, to be held against `limit`:
            multiples of the noise floor, a share of the tolerance, or a share of the
            output's magnitude.
        limit: what is allowed.
        times_floor: the error in multiples of the noise floor, whatever the rule; None
            for whole numbers.
        identical: whether it has the same bits as eager float32.
        kernel_cost: what the floor was raised by.
    """

    case: Case
    reference: OutputReference
    got: Array
    errors: ErrorStats
    error_ratio: float
    limit: float
    times_floor: float | None
    identical: bool
    kernel_cost: KernelCost = NO_COST

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit."""
        return self.error_ratio <= self.limit

    @property
    def excess(self) -> float:
        """The error as a multiple of what is allowed, to compare cases by."""
        return self.error_ratio / (self.limit or 1.0)


@dataclass(frozen=True)
class OutputVerdict:
    """One output of a candidate over all cases.

    Attributes:
        name: of the output.
        rule: how it was judged.
        results: by case.
        passed: the verdict.
        failing: the cases beyond the limit.
        identical: how many cases have the same bits as eager float32.
        worst: the case that is furthest off, as a multiple of what is allowed there.
        errors: of all cases together.
    """

    name: str
    rule: OutputRule
    results: list[CaseResult]
    passed: bool
    failing: list[Case]
    identical: int
    worst: CaseResult
    errors: OverallErrors

    @classmethod
    def of(
        cls, name: str, rule: OutputRule, results: list[CaseResult], exact: bool
    ) -> OutputVerdict:
        """Sum up the cases.

        Args:
            name, rule: of the output.
            results: by case, at least one.
            exact: whether every case must also have eager float32's bits.
        """
        worst, count, failing = results[0], 0, []
        for result in results:
            count += result.identical
            if not result.passed:
                failing.append(result.case)
            if result.excess > worst.excess:
                worst = result
        passed = not failing
        if exact and count < len(results):
            passed = False
        return cls(
            name,
            rule,
            results,
            passed=passed,
            failing=failing,
            identical=count,
            worst=worst,
            errors=overall_errors(result.errors for result in results),
        )

    def describe(self) -> str:
        """What is wrong, for a message, where the output is furthest off.

        Returns:
            How far it is off, in which case, and the expected and the computed number
            at the index of the largest error.
        """
        worst = self.worst
        index = worst.errors.index
        expected, got = worst.reference.expected[index], worst.got[index]
        how = "doesn't have the bits that eager float32 computes"
        if not worst.passed:
            how = self.rule.describe(worst.error_ratio, worst.limit, worst.errors)
        return (
            f"{self.name} {how}, in the case {worst.case.name!r}:"
            f" expected {expected:.9g}, got {got:.9g} at {list(index)}"
        )


@dataclass(frozen=True)
class Evidence:
    """A case that shows what is wrong.

    Attributes:
        reference: the case, and what the checkpoint's own model computes in it.
        got: what the candidate computed; empty where it failed.
    """

    reference: CaseReference
    got: Arrays


@dataclass(frozen=True)
class Verdict:
    """One candidate.

    Attributes:
        candidate: what was judged.
        outputs: by name; empty where it didn't run.
        weights: how many it holds, where that was compared.
        graph: what its graph computes in float64; None: it was not asked.
        problem: what is wrong; None: nothing, it may be released.
        evidence: what shows the problem best; None: no case does.
    """

    candidate: Candidate
    outputs: dict[str, OutputVerdict] = field(default_factory=dict)
    weights: WeightsReport | None = None
    graph: GraphProof | None = None
    problem: str | None = None
    evidence: Evidence | None = None

    @property
    def passed(self) -> bool:
        """Whether the artifact may be released."""
        return self.problem is None

    @property
    def errs_in_runtime(self) -> bool:
        """Whether nothing is wrong but that the runtime errs by more than is allowed:
        the graph is the model's, and every weight is right.
        """
        proven = self.graph is not None and self.graph.evaluated and self.graph.passed
        held = self.weights is None or not self.weights.wrong
        return proven and held and bool(self.wrong_outputs)

    @property
    def beyond_floor(self) -> frozenset[str]:
        """The names of the cases in which an output errs by more than is allowed."""
        names: set[str] = set()
        for output in self.outputs.values():
            names.update(case.name for case in output.failing)
        return frozenset(names)

    @property
    def wrong_outputs(self) -> list[OutputVerdict]:
        """The outputs that failed."""
        wrong = []
        for output in self.outputs.values():
            if not output.passed:
                wrong.append(output)
        return wrong


def judge(
    candidate: Candidate,
    result: JobResult,
    reference: Reference,
    limits: Limits,
    double: DoubleResult | None = None,
) -> Verdict:
    """Hold what a candidate computed against the reference.

    A candidate that failed, or whose outputs haven't the model's names, dtypes and
    shapes, has no numbers to judge. Of any other, both the file and the numbers are
    looked at, and the verdict states what is wrong with either.

    Args:
        candidate: what was run.
        result: what came of it.
        reference: what the checkpoint's own model computes, in the same cases.
        limits: what is close enough.
        double: what its graph computes in float64, where it has one.

    Returns:
        The verdict; its evidence is the case in which the candidate failed, or the one
        that is furthest off.
    """
    verdict = Verdict(candidate, weights=result.weights)
    if result.failure is not None:
        evidence = _evidence(result.failed_case, result, reference)
        return replace(verdict, problem=result.failure, evidence=evidence)
    for case, got in zip(reference.cases, result.outputs, strict=True):
        if mismatch := _form_mismatch(got, case):
            problem = f"{mismatch}, in the case {case.case.name!r}"
            return replace(verdict, problem=problem, evidence=Evidence(case, got))
    costs = {}
    if double is not None:
        costs = double.kernel_costs
        verdict = replace(verdict, graph=judge_graph(double, reference))
    for name in reference.outputs:
        output = _judge_output(name, candidate, result, reference, limits, costs)
        verdict.outputs[name] = output
    problems = _graph_problems(verdict) + _file_problems(result)
    problems += _number_problems(verdict)
    if not problems:
        return verdict
    evidence = _evidence(_shown_case(verdict), result, reference)
    return replace(verdict, problem="; ".join(problems), evidence=evidence)


def _shown_case(verdict: Verdict) -> str:
    """The name of the case that shows best what is wrong with a candidate that ran."""
    graph = verdict.graph
    if graph is not None and not graph.passed and graph.case is not None:
        return graph.case.name
    shown = _worst(verdict.wrong_outputs or list(verdict.outputs.values()))
    return shown.worst.case.name


def _evidence(
    case: str | None, result: JobResult, reference: Reference
) -> Evidence | None:
    """A case as evidence.

    Args:
        case: its name; None: no case shows the problem.
        result: what the candidate computed, up to the case in which it failed.
        reference: all cases.
    """
    for expected, got in zip_longest(reference.cases, result.outputs):
        if expected is not None and expected.case.name == case:
            return Evidence(expected, got or {})
    return None


def _form_mismatch(got: Arrays, reference: CaseReference) -> str | None:
    """What is wrong with names, order, dtypes or shapes; None: nothing.

    Args:
        got: a candidate's outputs in a case.
        reference: what the checkpoint's own model computes in it.

    Returns:
        A sentence on the first thing that is wrong, without its full stop.
    """
    if list(got) != list(reference.outputs):
        expected = list(reference.outputs)
        return f"its outputs are {list(got)}, and the model's are {expected}"
    for name, array in got.items():
        eager = reference.outputs[name].eager
        if array.dtype != eager.dtype or array.shape != eager.shape:
            return (
                f"{name} is {array.dtype} {list(array.shape)}, and the model's is"
                f" {eager.dtype} {list(eager.shape)}"
            )
    return None


def _judge_output(
    name: str,
    candidate: Candidate,
    result: JobResult,
    reference: Reference,
    limits: Limits,
    costs: Mapping[str, Mapping[str, KernelCost]],
) -> OutputVerdict:
    """Hold one output of a candidate against the reference, in all cases.

    Args:
        name: of the output.
        candidate, result, reference, limits: as for judge; the candidate ran on all
            cases, and its outputs have the model's dtypes and shapes.
        costs: as of DoubleResult.

    Returns:
        The verdict on the output; under the rule EXACT it passes only with the bits of
        eager float32.
    """
    rule = rule_for(name, candidate, reference, limits)
    floor = reference.floors.get(name)
    results = []
    for case, outputs in zip(reference.cases, result.outputs, strict=True):
        expected, got = case.outputs[name], outputs[name]
        errors = error_stats(expected.expected, got)
        cost = costs.get(case.case.name, {}).get(name, NO_COST)
        of_case = CaseResult(
            case.case,
            expected,
            got,
            errors,
            error_ratio=rule.error_ratio(expected, got, errors, cost),
            limit=rule.limit,
            times_floor=floor.multiple(expected, errors, cost) if floor else None,
            kernel_cost=cost,
            identical=identical(expected.eager, got),
        )
        results.append(of_case)
    return OutputVerdict.of(name, rule, results, exact=candidate.rule == EXACT)


def _graph_problems(verdict: Verdict) -> list[str]:
    """What is wrong with the graph.

    Args:
        verdict: on a candidate that ran.

    Returns:
        One sentence, or none.
    """
    if verdict.graph is None or verdict.graph.passed:
        return []
    return [verdict.graph.describe()]


def _file_problems(result: JobResult) -> list[str]:
    """What is wrong in the file whatever it computes.

    Args:
        result: of a candidate that ran.

    Returns:
        One sentence, or none.
    """
    problems = list(result.faults)
    if result.weights:
        problems += [f"the weight {sentence}" for sentence in result.weights.wrong]
    if len(problems) > 1:
        return [f"{problems[0]} (and {len(problems) - 1} more)"]
    return problems


def _number_problems(verdict: Verdict) -> list[str]:
    """What is wrong with the output that is furthest off.

    Args:
        verdict: on a candidate that ran.

    Returns:
        One sentence, or none.
    """
    wrong = verdict.wrong_outputs
    if not wrong:
        return []
    problem = _worst(wrong).describe()
    if len(wrong) > 1:
        problem += f" ({len(wrong)} of {len(verdict.outputs)} outputs are wrong)"
    return [problem]


def _worst(outputs: Sequence[OutputVerdict]) -> OutputVerdict:
    """The output that is furthest off, as a multiple of what is allowed."""
    return max(outputs, key=lambda output: output.worst.excess)
