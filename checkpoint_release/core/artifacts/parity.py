"""The parity check's files: whether every format computes what the checkpoint computes,
and how exactly.

artifacts/parity.json           a handful of figures, which DVC shows as metrics
artifacts/parity/report.json    all figures; in a release it is parity.json
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import msgspec

from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import sha256

METRICS = "parity.json"
"""Among the artifacts: the figures that DVC shows."""
REPORT = "report.json"
"""In the parity check's folder: all figures."""
PARITY_FOLDER = "parity"
RELEASED_REPORT = "parity.json"
"""In a release: the copy of the report."""
EXAMPLE_INPUTS = "example/inputs.safetensors"
"""In the parity check's folder: inputs that mean something, where the model's family
has some.
"""
EXAMPLE_OUTPUTS = "example/outputs.safetensors"
"""Likewise: what the checkpoint makes of them in float64, rounded to its dtypes."""
SIGNIFICANT_DIGITS = 2
"""Of a figure in the report: for the most part they hide how machines differ in
rounding.
"""


class Rule(Record, frozen=True, kw_only=True):
    """What was allowed, and on how many cases it was tried; see the parity section of
    the parameters.
    """

    noise_multiple: float
    seed: int
    cases: int


class NoiseFloor(Record, frozen=True, kw_only=True):
    """Eager float32's error against float64, as a share of the output's magnitude."""

    typical: float
    worst: float


class SampleFloor(Record, frozen=True, kw_only=True):
    """The noise floor in the case that is the release's sample, as absolute errors.

    Attributes:
        typical: root mean square.
        worst: the largest.
    """

    typical: float
    worst: float


class WeightsHeld(Record, frozen=True, kw_only=True):
    """How many of the checkpoint's tensors an artifact holds bit for bit."""

    bit_for_bit: int
    of: int


class GraphFigures(Record, frozen=True, kw_only=True):
    """An artifact's graph in double precision, against the model in float64.

    Attributes:
        evaluated: whether it could be evaluated.
        error: the largest difference, as a share of an output's magnitude.
        limit: what is allowed there.
        reason: why more than usual is allowed, or why it could not be evaluated.
        cases: in how many it was evaluated; of a large model, in the smaller ones.
    """

    evaluated: bool
    error: float
    limit: float
    reason: str | None = None
    cases: int


class OutputFigures(Record, frozen=True, kw_only=True):
    """One output of one artifact over all cases.

    Attributes:
        max_abs_error, mean_abs_error: against float64.
        share_of_tolerance: of a fixed tolerance, where one replaces the rule.
        share_of_output: typical error as a share of the output, for reduced precision.
        times_floor: error in multiples of the noise floor.
        kernel_cost: the largest error that the floor was raised by, because correct
            kernels may cost as much.
        limit: what is allowed, in terms of the figure before it.
        cosine: of the angle between outputs and reference; the smallest.
        ulps, max_ulps: error in units in the last place: the median, and the largest.
        worst_case, worst_index: where the largest error is.
    """

    max_abs_error: float
    mean_abs_error: float
    share_of_tolerance: float | None = None
    share_of_output: float | None = None
    times_floor: float | None = None
    kernel_cost: float | None = None
    limit: float
    cosine: float
    ulps: float
    max_ulps: float
    worst_case: str
    worst_index: str

    @property
    def share_of_limit(self) -> float:
        """The worst error as a share of what is allowed; 1 is the limit.

        Of a fixed tolerance, error and limit are known in multiples of the floor.
        """
        error = self.times_floor
        if error is None:
            error = self.share_of_output or 0.0
        return error / (self.limit or 1.0)


class FormatFigures(Record, frozen=True, kw_only=True):
    """One artifact: a format, or a variant of one.

    Attributes:
        passed: whether it may be released.
        rule: exact, noise or reduced.
        reduced_precision: its dtype, where it was asked for in reduced precision.
        weights: how many it holds bit for bit, where that was compared.
        graph: what its graph computes in double precision; None: it has none of its
            own, or is in reduced precision.
        cases: how many it ran on; None: all.
        bit_identical_cases: in how many cases every output has eager float32's bits.
        outputs: name → figures.
    """

    passed: bool
    rule: str
    reduced_precision: str | None = None
    weights: WeightsHeld | None = None
    graph: GraphFigures | None = None
    cases: int | None = None
    bit_identical_cases: int
    outputs: dict[str, OutputFigures]


class Machine(Record, frozen=True, kw_only=True):
    """What the figures depend on beside the artifacts.

    Attributes:
        architecture: of the processor, such as x86_64.
        cpu_capability: the instructions that torch's kernels used, such as AVX2.
        libraries: distribution → version, of those whose kernels computed.
    """

    architecture: str
    cpu_capability: str
    libraries: dict[str, str]


class ParityMetrics(Record, frozen=True, kw_only=True):
    """parity.json among the artifacts: what `dvc metrics` and `dvc exp` show.

    Attributes:
        passed: the verdict.
        cases: how many inputs each format ran on.
        share_of_limit: artifact (such as "onnx") → its worst error as a share of what
            is allowed; 1 is the limit.
    """

    passed: bool
    cases: int
    share_of_limit: dict[str, float]


class ParityReport(Record, frozen=True, kw_only=True):
    """All figures of the check.

    Attributes:
        passed: the verdict.
        machine: that they were measured on.
        checked: format → sha256 of the manifest of the artifact that was checked.
        rule: what was allowed.
        noise_floor: float output → eager float32's own error.
        sample_floor: float output → what that is in the release's sample; empty in
            reports from before there was one.
        formats: artifact (such as "onnx" or "onnx int8") → its figures.
    """

    passed: bool
    machine: Machine
    checked: dict[str, str]
    rule: Rule
    noise_floor: dict[str, NoiseFloor]
    sample_floor: dict[str, SampleFloor] = msgspec.field(default_factory=dict)
    formats: dict[str, FormatFigures]

    def require_passed(self, artifacts: Path, formats: Iterable[str]) -> None:
        """Make sure that the verdict is good, and that it is about these very
        artifacts.

        Args:
            artifacts: the folder of all artifacts.
            formats: names of the formats that must have been checked.

        Raises:
            ArtifactError: it isn't, or they changed since.
        """
        path = artifacts / PARITY_FOLDER / REPORT
        if not self.passed:
            raise ArtifactError(
                f"{path} doesn't say that the formats passed",
                "correct what it names first",
            )
        for name in formats:
            current = sha256(artifacts / name / MANIFEST)
            checked = self.checked.get(name)
            if checked is None:
                raise ArtifactError(
                    f"{artifacts / name} was not checked: {path} doesn't name it",
                    "check it",
                )
            if checked != current:
                raise ArtifactError(
                    f"{artifacts / name} is not what was checked: its {MANIFEST} has"
                    f" sha256 {current[:12]}…, and {path} checked {checked[:12]}…",
                    "check it again",
                )


def read_report(path: Path) -> ParityReport:
    """Read a report.

    Args:
        path: of the file, among the artifacts or in a release.

    Raises:
        ArtifactError: it is missing or isn't as it was written.
    """
    return read_record(path, ParityReport)


def rounded(value: float) -> float:
    """A measured value as the report holds it, with SIGNIFICANT_DIGITS."""
    if not math.isfinite(value):
        return value
    return float(f"{value:.{SIGNIFICANT_DIGITS - 1}e}")


def upper_bound(figure: float) -> float:
    """The largest value that `rounded` turns into this figure."""
    if figure == 0 or not math.isfinite(figure):
        return figure
    leading_digit = math.floor(math.log10(abs(figure)))
    last_digit = leading_digit - SIGNIFICANT_DIGITS + 1
    return figure + 0.5 * 10.0**last_digit
