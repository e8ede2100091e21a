"""The whole check: run the checkpoint and every candidate, and judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.large import is_large
from checkpoint_release.parity.candidates import NOISE, Candidate
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.constants import weights_of
from checkpoint_release.parity.finite import require_finite
from checkpoint_release.parity.graph_job import evaluate_again
from checkpoint_release.parity.graph_proof import DoubleResult, proof_cases
from checkpoint_release.parity.judge import Verdict, judge
from checkpoint_release.parity.model_first import require_sound_model
from checkpoint_release.parity.other_runtimes import OtherRuntime, run_elsewhere
from checkpoint_release.parity.reference import Reference, measure_reference
from checkpoint_release.parity.rules import Limits
from checkpoint_release.parity.weights import compare_by_name
from checkpoint_release.parity.workers import Job, JobResult, run_isolated
from checkpoint_release.tensors.safetensors import open_sharded

DType = Literal["float64", "own"]
EAGER: tuple[DType, ...] = ("float64", "own")
"""What the checkpoint's own model is run in."""
_NAMES = {"float64": "float64", "own": "its own dtypes"}


@dataclass(frozen=True)
class ParityCheck:
    """What was found.

    Attributes:
        limits: what was allowed.
        reference: what the checkpoint's own model computes.
        verdicts: one for each candidate, and for each other runtime that ran one.
        versions: name of another runtime that ran → its version.
        not_run: name of another runtime → why it ran nothing.
    """

    limits: Limits
    reference: Reference
    verdicts: list[Verdict]
    versions: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> list[Verdict]:
        """The candidates that are wrong."""
        failed = []
        for verdict in self.verdicts:
            if not verdict.passed:
                failed.append(verdict)
        return failed


def check_parity(
    checkpoint: Path,
    candidates: Sequence[Candidate],
    cases: Sequence[Case],
    limits: Limits,
    runtimes: Sequence[OtherRuntime] = (),
    *,
    known_sound: bool = False,
) -> ParityCheck:
    """Run the checkpoint's own model and every candidate on every case, each in a
    process of its own, and judge the candidates.

    Scripts call this under `if __name__ == "__main__"`; see run_isolated.

    Args:
        checkpoint: the folder of the checkpoint.
        candidates: what to judge.
        cases: what to run them on.
        limits: what is close enough.
        runtimes: other runtimes to run ONNX graphs by, as far as they are installed.
        known_sound: whether an export has asked already what require_sound_model asks.

    Returns:
        The verdicts in the order of the candidates; one that fails to run, or kills its
        process, is a candidate that is wrong.

    Raises:
        ModelError: the checkpoint's own model fails, gives NaN or infinity, or isn't
            sound; see require_sound_model.
    """
    weights = weights_of(checkpoint)
    plans = [_Plan.of(candidate, cases, weights.numbers) for candidate in candidates]
    if known_sound:
        results = _run(checkpoint, plans, cases)
    else:
        results = _run_beside_soundness(checkpoint, plans, cases)
    reference = _reference(results, cases)
    check = ParityCheck(limits, reference, [])
    for plan in plans:
        candidate, own = plan.candidate, reference.among(plan.cases)
        result = _with_stored_weights(results[candidate.name], candidate, checkpoint)
        if not candidate.is_graph:
            check.verdicts.append(judge(candidate, result, own, limits))
            continue
        double = DoubleResult.of(results[_double_name(candidate)], plan.in_double)
        verdict = judge(candidate, result, own, limits, double)
        if candidate.is_onnx_graph and verdict.outputs and not verdict.passed:
            double = evaluate_again(verdict, double, weights, own, checkpoint)
            verdict = judge(candidate, result, own, limits, double)
        check.verdicts.append(verdict)
        if candidate.is_onnx_graph:
            _judge_elsewhere(check, plan, runtimes, double)
    return check


def _run(
    checkpoint: Path, plans: Sequence[_Plan], cases: Sequence[Case]
) -> dict[str, JobResult]:
    """Run the checkpoint's own model and every candidate.

    Args:
        checkpoint: as for check_parity.
        plans: of the candidates.
        cases: all of them.

    Returns:
        Name of a job, as of _jobs → its result.
    """
    # those of a large model hold its weights, each of them
    at_once = 1 if _is_large(checkpoint) else None
    return run_isolated(_jobs(checkpoint, plans), cases, at_once)


def _run_beside_soundness(
    checkpoint: Path, plans: Sequence[_Plan], cases: Sequence[Case]
) -> dict[str, JobResult]:
    """The same, for a model that may draw random numbers or remember calls.

    Raises:
        ModelError: the checkpoint's own model isn't sound.
    """
    if _is_large(checkpoint):
        require_sound_model(checkpoint)
        return _run(checkpoint, plans, cases)
    with ThreadPoolExecutor(1) as pool:
        alone = pool.submit(require_sound_model, checkpoint)
        results = _run(checkpoint, plans, cases)
        alone.result()
    return results


def _is_large(checkpoint: Path) -> bool:
    return is_large((checkpoint / WEIGHTS_FILE).stat().st_size)


def _judge_elsewhere(
    check: ParityCheck,
    plan: _Plan,
    runtimes: Sequence[OtherRuntime],
    double: DoubleResult,
) -> None:
    """Run an ONNX graph by other runtimes, and judge what they compute.

    Args:
        check: verdicts are added to it, and what could not be run.
        plan: for the graph.
        runtimes: which.
        double: what the graph computes in float64, whoever runs it.
    """
    candidate, reference = plan.candidate, check.reference.among(plan.cases)
    for runtime in runtimes:
        lack = runtime.lack
        if lack is not None:
            check.not_run[runtime.name] = lack
            continue
        found = run_elsewhere(runtime, candidate.file, plan.cases, reference.outputs)
        check.versions[runtime.name] = found.version
        elsewhere = candidate.on(runtime.name)
        verdict = judge(elsewhere, found.result, reference, check.limits, double)
        check.verdicts.append(verdict)


@dataclass(frozen=True)
class _Plan:
    """What a candidate is run on.

    Attributes:
        candidate: what is judged.
        cases: those that it takes.
        in_double: those of them that its graph is evaluated in.
    """

    candidate: Candidate
    cases: list[Case]
    in_double: list[Case]

    @classmethod
    def of(cls, candidate: Candidate, cases: Sequence[Case], numbers: int) -> _Plan:
        """The plan for a candidate.

        Args:
            candidate: what is judged.
            cases: all of them.
            numbers: of the checkpoint's weights.
        """
        own = [case for case in cases if candidate.takes(case)]
        return cls(candidate, own, proof_cases(own, numbers))


def _jobs(checkpoint: Path, plans: Sequence[_Plan]) -> dict[str, Job]:
    """What to run, by name: the model in each of EAGER, every candidate, and the graphs
    once more in float64.

    Args:
        checkpoint: as for check_parity.
        plans: of the candidates.
    """
    jobs: dict[str, Job] = {}
    for dtype in EAGER:
        jobs[dtype] = Job("checkpoint", checkpoint, dtype)
    for plan in plans:
        candidate = plan.candidate
        only = frozenset(case.name for case in plan.cases)
        # Weights that were stored are compared name by name (see _with_stored_weights),
        # and those in reduced precision aren't the checkpoint's.
        compared = checkpoint if candidate.rule == NOISE else None
        job = Job(candidate.format, candidate.path, only=only, checkpoint=compared)
        jobs[candidate.name] = job
        if candidate.is_graph:
            # ONNX needs to know which of its numbers are weights
            known = checkpoint if candidate.is_onnx_graph else None
            names = frozenset(case.name for case in plan.in_double)
            double = Job(candidate.format, candidate.path, "float64", names, known)
            jobs[_double_name(candidate)] = double
    return jobs


def _double_name(candidate: Candidate) -> str:
    """What the job is called that runs a candidate in float64."""
    return f"{candidate.name} in float64"


def _with_stored_weights(
    result: JobResult, candidate: Candidate, checkpoint: Path
) -> JobResult:
    """The result, with the comparison of weights that must have their own names.

    Args:
        result: of the candidate's job, which may have failed.
        candidate: of a format that holds weights alone; others' results stay.
        checkpoint: the folder of the checkpoint.
    """
    if not FORMATS[candidate.format].eager:
        return result
    stored = open_sharded(candidate.path)
    report = compare_by_name(stored, checkpoint, candidate.stored_dtype)
    return replace(result, weights=report)


def _reference(results: Mapping[str, JobResult], cases: Sequence[Case]) -> Reference:
    """What the checkpoint's own model computes.

    Args:
        results: of its jobs in each dtype, among others.
        cases: what it was run on.

    Raises:
        ModelError: it failed, or gave NaN or infinity.
    """
    for dtype in EAGER:
        _require_success(results[dtype], dtype)
        for case, outputs in zip(cases, results[dtype].outputs, strict=True):
            require_finite(outputs, case, _NAMES[dtype])
    float64, own = (results[dtype].outputs for dtype in EAGER)
    return measure_reference(cases, float64, own)


def _require_success(result: JobResult, dtype: str) -> None:
    """Require that the checkpoint's own model ran on all cases.

    Args:
        result: of its job.
        dtype: that it ran in, for the message.

    Raises:
        ModelError: it failed.
    """
    if result.failure is None:
        return
    where = f" in the case {result.failed_case!r}" if result.failed_case else ""
    raise ModelError(
        f"the checkpoint's own model, in {_NAMES[dtype]}, fails{where}:"
        f" {result.failure}",
        "correct the bounds in {model.signature} to what the model takes",
        options=["model.signature"],
    )
