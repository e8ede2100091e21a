"""What is held to which rule, and the verdict on it.

- safetensors holds the checkpoint's weights bit for bit, and a model built from it computes the same bits as eager.
- Every other float32 format may err, against float64, by `noise_multiple` times what eager float32 errs; where inputs
  have a magnitude above 1, by `large_multiple` times. Large inputs reach the tails of
  functions, where kernels differ:
  ONNX Runtime's sigmoid is right to 1e-7, but at −10 that is 2e-4 of its value and at
  −16 half of it, and torch's is right in every digit. A normalisation after it brings
  such an error up.
- Reduced precision is asked for and named as such; it is held to a share of the output's magnitude.
- parity.tolerances replaces the rule for the outputs that it names.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.params import ParityParams
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import (
    Arrays,
    ErrorStats,
    Floor,
    error_stats,
    identical,
)
from checkpoint_release.parity.workers import JobResult

EXACT, NOISE, REDUCED = "exact", "noise", "reduced"


@dataclass(frozen=True)
class Subject:
    """One artifact to be judged.

    Attributes:
        name: how reports call it, such as "onnx" or "onnx int8".
        format, path: as checkpoint_release.runtimes.open.open_runtime takes them.
        rule: EXACT, NOISE or REDUCED.
        precision: the dtype of a REDUCED one.
    """

    name: str
    format: str
    path: Path
    rule: str
    precision: str | None = None


@dataclass(frozen=True)
class Truth:
    """What the checkpoint itself computes: outputs by case, in float64 and in eager
    float32, and the noise floors.
    """

    reference: Sequence[Arrays]
    eager: Sequence[Arrays]
    floors: Mapping[str, Floor]


@dataclass(frozen=True)
class OutputVerdict:
    """One output of one artifact over all cases.

    Attributes:
        passed: the verdict.
        amount: the error in the rule's terms, to be held against `limit`: multiples of
            the noise floor, a share of the tolerance, or a share of the output's
            magnitude.
        limit: what is allowed.
        times_floor: the error in multiples of the noise floor, whatever the rule; None
            for whole numbers.
        identical: how many cases gave the same bits as eager float32.
        case: index of the worst case.
        failing: indices of all cases beyond the limit.
        worst: the errors of that case.
        largest, mean, cosine, ulps, max_ulps: over all cases; cosine is the smallest,
            ulps the median of medians.
    """

    passed: bool
    amount: float
    limit: float
    times_floor: float | None
    identical: int
    case: int
    failing: tuple[int, ...]
    worst: ErrorStats
    largest: float
    mean: float
    cosine: float
    ulps: float
    max_ulps: float


@dataclass(frozen=True)
class Verdict:
    """One artifact.

    Attributes:
        outputs: by output; empty where the artifact didn't run.
        problem: what is wrong beside numbers (or the sentence that sums the numbers
            up); None: nothing.
        case: index of the case that shows it best; None: no case does.
        ran: what came out of the artifact.
    """

    subject: Subject
    ran: JobResult
    outputs: Mapping[str, OutputVerdict] = field(default_factory=dict)
    problem: str | None = None
    case: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the artifact may be released."""
        return self.problem is None


def judge(
    subject: Subject,
    ran: JobResult,
    truth: Truth,
    cases: Sequence[Case],
    params: ParityParams,
) -> Verdict:
    """Hold what an artifact computed against the truth."""
    got = ran.outputs
    if ran.failure is not None or len(got) != len(cases):
        return Verdict(
            subject,
            ran,
            problem=ran.failure or "it gave no outputs",
            case=ran.failed_case,
        )
    for number, (found, expected) in enumerate(zip(got, truth.eager, strict=True)):
        if problem := _form(found, expected):
            return Verdict(
                subject,
                ran,
                problem=f"{problem}, in the case {cases[number].name!r}",
                case=number,
            )
    outputs = {
        name: _judge_output(name, subject, got, truth, cases, params)
        for name in truth.reference[0]
    }
    problem, case = _numbers(subject, outputs, got, truth, cases, params.tolerances)
    wrong = (
        [f"the weight {sentence}" for sentence in ran.weights.wrong]
        if ran.weights
        else []
    )
    if wrong := [*ran.faults, *wrong]:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        problem = f"{wrong[0]}{more}" + (f"; {problem}" if problem else "")
        case = (
            max(outputs.values(), key=lambda verdict: verdict.amount).case
            if case is None
            else case
        )
    return Verdict(subject, ran, outputs, problem, case)


def _form(found: Arrays, expected: Arrays) -> str | None:
    """What is wrong with names, order, dtypes or shapes."""
    if list(found) != list(expected):
        return f"its outputs are {list(found)}, and the model's are {list(expected)}"
    for name, array in found.items():
        want = expected[name]
        if array.dtype != want.dtype or array.shape != want.shape:
            return (
                f"{name} is {array.dtype} {list(array.shape)}, and the model's is"
                f" {want.dtype} {list(want.shape)}"
            )
    return None


def _judge_output(
    name: str,
    subject: Subject,
    got: Sequence[Arrays],
    truth: Truth,
    cases: Sequence[Case],
    params: ParityParams,
) -> OutputVerdict:
    table: list[ErrorStats] = []
    amounts: list[float] = []
    limits: list[float] = []
    multiples: list[float] = []
    same = 0
    for number, (case, arrays) in enumerate(zip(cases, got, strict=True)):
        expected, eager, found = (
            truth.reference[number][name],
            truth.eager[number][name],
            arrays[name],
        )
        same += identical(eager, found)
        measured = error_stats(expected, found)
        table.append(measured)
        if name not in truth.floors:
            # Whole numbers and booleans: float32 may tip a decision over (an argmax
            # between near equals), and an artifact may then agree with either.
            agrees = (found == expected) | (found == eager)
            amount, limit = float(not agrees.all()), 0.0
        else:
            multiples.append(truth.floors[name].multiple(number, measured))
            if tolerance := params.tolerances.get(name):
                amount, limit = (
                    _share_of_tolerance(
                        expected, found, tolerance.atol, tolerance.rtol
                    ),
                    1.0,
                )
            elif subject.rule == REDUCED:
                scale = truth.floors[name].magnitudes[number]
                amount = (
                    measured.rms / scale if scale else math.inf if measured.rms else 0.0
                )
                limit = getattr(params.reduced, subject.precision or "float16")
            else:
                amount = multiples[-1]
                limit = (
                    params.large_multiple
                    if case.magnitude > 1
                    else params.noise_multiple
                )
        amounts.append(amount)
        limits.append(limit)
    worst = max(
        range(len(amounts)),
        key=lambda number: amounts[number] / (limits[number] or 1.0),
    )
    failing = tuple(
        number for number, amount in enumerate(amounts) if not amount <= limits[number]
    )
    return OutputVerdict(
        passed=not failing and (same == len(got) or subject.rule != EXACT),
        amount=amounts[worst],
        limit=limits[worst],
        times_floor=multiples[worst] if multiples else None,
        identical=same,
        case=worst,
        failing=failing,
        worst=table[worst],
        largest=max(e.largest for e in table),
        mean=sum(e.mean * e.count for e in table) / max(sum(e.count for e in table), 1),
        cosine=min(e.cosine for e in table),
        ulps=float(np.median([e.ulps for e in table])),
        max_ulps=max(e.max_ulps for e in table),
    )


def _share_of_tolerance(expected: Any, found: Any, atol: float, rtol: float) -> float:
    """The largest |error| / (atol + rtol · |expected|); infinite where NaN or infinity
    turn up.
    """
    if expected.size == 0:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        distance = np.abs(found.astype(np.float64) - expected)
        share = np.where(
            distance == 0, 0.0, distance / (atol + rtol * np.abs(expected))
        )
    return float(np.max(np.where(np.isfinite(distance), share, np.inf)))


def _numbers(
    subject: Subject,
    outputs: Mapping[str, OutputVerdict],
    got: Sequence[Arrays],
    truth: Truth,
    cases: Sequence[Case],
    tolerances: Container[str],
) -> tuple[str | None, int | None]:
    """The sentence about the output that is furthest off, and the case that shows it."""
    failed = {name: verdict for name, verdict in outputs.items() if not verdict.passed}
    if not failed:
        return None, None
    name = max(failed, key=lambda n: failed[n].amount / (failed[n].limit or 1))
    verdict = failed[name]
    case, index = verdict.case, verdict.worst.index
    expected, found = truth.reference[case][name][index], got[case][name][index]
    if subject.rule == EXACT and verdict.amount <= verdict.limit:
        how = "doesn't have the bits that eager float32 computes"
    elif name not in truth.floors:
        how = "differs"
    elif name in tolerances:
        how = (
            f"is off by {verdict.worst.largest:.2g}, {verdict.amount:.3g} times its"
            " tolerance"
        )
    elif subject.rule == REDUCED:
        how = (
            f"is off by {verdict.amount:.2g} of its magnitude, and {verdict.limit:g} is"
            " allowed"
        )
    else:
        how = (
            f"is off by {verdict.worst.largest:.2g}, {verdict.amount:.3g} times the"
            f" noise floor, and {verdict.limit:g} is allowed"
        )
    others = (
        f" ({len(failed)} of {len(outputs)} outputs are wrong)"
        if len(failed) > 1
        else ""
    )
    at = f"expected {expected:.9g}, got {found:.9g} at {list(index)}"
    return f"{name} {how}, in the case {cases[case].name!r}: {at}{others}", case
