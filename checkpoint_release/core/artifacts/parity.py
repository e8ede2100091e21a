"""parity.json: whether every format computes what the checkpoint computes, and how
exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import sha256

PARITY = "parity.json"
SIGNIFICANT_DIGITS = 2
"""Of a figure in parity.json: for the most part they hide how machines differ in
rounding.
"""


class Rule(Record, frozen=True, kw_only=True):
    """What was allowed, and on how many cases it was tried; see the parity section of
    the parameters.
    """

    noise_multiple: float
    large_multiple: float
    seed: int
    cases: int


class NoiseFloor(Record, frozen=True, kw_only=True):
    """Eager float32's error against float64, as a share of the output's magnitude."""

    typical: float
    worst: float


class WeightsHeld(Record, frozen=True, kw_only=True):
    """How many of the checkpoint's tensors an artifact holds bit for bit."""

    bit_for_bit: int
    of: int


class OutputFigures(Record, frozen=True, kw_only=True):
    """One output of one artifact over all cases.

    Attributes:
        max_abs_error, mean_abs_error: against float64.
        share_of_tolerance: of a fixed tolerance, where one replaces the rule.
        share_of_output: typical error as a share of the output, for reduced precision.
        times_floor: error in multiples of the noise floor.
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
    limit: float
    cosine: float
    ulps: float
    max_ulps: float
    worst_case: str
    worst_index: str


class FormatFigures(Record, frozen=True, kw_only=True):
    """One artifact: a format, or a variant of one.

    Attributes:
        passed: whether it may be released.
        rule: exact, noise or reduced.
        reduced_precision: its dtype, where it was asked for in reduced precision.
        weights: how many it holds bit for bit, where that was compared.
        bit_identical_cases: in how many cases every output has eager float32's bits.
        outputs: name → figures.
    """

    passed: bool
    rule: str
    reduced_precision: str | None = None
    weights: WeightsHeld | None = None
    bit_identical_cases: int
    outputs: dict[str, OutputFigures]


class ParityReport(Record, frozen=True, kw_only=True):
    """parity.json.

    Attributes:
        passed: the verdict.
        checked: format → sha256 of the manifest of the artifact that was checked.
        rule: what was allowed.
        noise_floor: float output → eager float32's own error.
        formats: artifact (such as "onnx" or "onnx int8") → its figures.
    """

    passed: bool
    checked: dict[str, str]
    rule: Rule
    noise_floor: dict[str, NoiseFloor]
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
        path = artifacts / PARITY
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


def read_parity(folder: Path) -> ParityReport:
    """Read a folder's parity.json.

    Raises:
        ArtifactError: it is missing or isn't as it was written.
    """
    return read_record(folder / PARITY, ParityReport)


def rounded(value: float) -> float:
    """A measured value as parity.json holds it, with SIGNIFICANT_DIGITS."""
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
