"""How much an output may err, and in what terms that is measured.

- safetensors holds the checkpoint's weights bit for bit, and a model built from it
  computes the same bits as eager.
- Every other float32 format may err, against float64, by `noise_multiple` times what
  eager float32 errs, and what its runtime's kernels may cost beside rounding: ONNX
  Runtime's sigmoid is right to 1e-7, but at −10 that is 2e-4 of its value and at −16
  half of it, and torch's is right in every digit.
- Reduced precision is asked for and named as such; it is held to a share of the
  output's magnitude.
- A fixed tolerance replaces these rules for the outputs that it is given for.
- Integers and booleans must be equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from checkpoint_release.core.signature import Array
from checkpoint_release.parity.candidates import REDUCED, Candidate
from checkpoint_release.parity.error_stats import ErrorStats
from checkpoint_release.parity.reference import (
    Floor,
    KernelCost,
    OutputReference,
    Reference,
    ratio,
)


@dataclass(frozen=True)
class Tolerance:
    """A fixed tolerance: |error| ≤ atol + rtol · |expected|."""

    atol: float
    rtol: float


@dataclass(frozen=True)
class Limits:
    """What is close enough.

    Attributes:
        noise_multiple: allowed error in multiples of the noise floor.
        reduced: dtype of reduced precision → allowed typical error, as a share of the
            output's magnitude.
        tolerances: output → the fixed tolerance that replaces the rule.
    """

    noise_multiple: float
    reduced: Mapping[str, float]
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)


class OutputRule(Protocol):
    """How one output of a candidate is judged."""

    @property
    def limit(self) -> float:
        """What is allowed in every case."""

    def error_ratio(
        self,
        reference: OutputReference,
        got: Array,
        errors: ErrorStats,
        cost: KernelCost,
    ) -> float:
        """The error in a case, in the rule's terms, to be held against the limit.

        Args:
            reference: what the checkpoint's own model computes.
            got: what the candidate computed, of the same shape and dtype.
            errors: of `got` against float64.
            cost: of the kernels of the candidate's runtime.
        """

    def describe(self, error_ratio: float, limit: float, errors: ErrorStats) -> str:
        """What is wrong, for a message: "is off by …".

        Args:
            error_ratio, limit: of the worst case.
            errors: of the worst case.
        """


@dataclass(frozen=True)
class Equality:
    """For integers and booleans.

    Float32 may tip a decision over (an argmax between near equals), and an artifact may
    then agree with either.
    """

    limit = 0.0

    def error_ratio(
        self,
        reference: OutputReference,
        got: Array,
        errors: ErrorStats,
        cost: KernelCost,
    ) -> float:
        """0 where all are equal, otherwise 1."""
        agrees = (got == reference.expected) | (got == reference.eager)
        return float(not agrees.all())

    def describe(self, error_ratio: float, limit: float, errors: ErrorStats) -> str:
        """What is wrong."""
        return "differs"


@dataclass(frozen=True)
class FixedTolerance:
    """For outputs that were given a tolerance."""

    tolerance: Tolerance
    limit = 1.0

    def error_ratio(
        self,
        reference: OutputReference,
        got: Array,
        errors: ErrorStats,
        cost: KernelCost,
    ) -> float:
        """The largest |error| / (atol + rtol · |expected|).

        Returns:
            Infinite where NaN or infinity turn up, or where there is an error and
            nothing is allowed; where there is none, 0 whatever is allowed.
        """
        expected, tolerance = reference.expected, self.tolerance
        if expected.size == 0:
            return 0.0
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            distance = np.abs(got.astype(np.float64) - expected)
            allowed = tolerance.atol + tolerance.rtol * np.abs(expected)
            quotient = distance / allowed
        share = np.where(distance == 0, 0.0, quotient)
        share = np.where(np.isfinite(distance), share, np.inf)
        return float(np.max(share))

    def describe(self, error_ratio: float, limit: float, errors: ErrorStats) -> str:
        """What is wrong."""
        return f"is off by {errors.max_abs:.2g}, {error_ratio:.3g} times its tolerance"


@dataclass(frozen=True)
class MagnitudeShare:
    """For reduced precision; the limit is a share of the output's magnitude."""

    limit: float

    def error_ratio(
        self,
        reference: OutputReference,
        got: Array,
        errors: ErrorStats,
        cost: KernelCost,
    ) -> float:
        """The typical error as a share of the output's magnitude."""
        return ratio(errors.rms, reference.magnitude)

    def describe(self, error_ratio: float, limit: float, errors: ErrorStats) -> str:
        """What is wrong."""
        return f"is off by {error_ratio:.2g} of its magnitude, and {limit:g} is allowed"


@dataclass(frozen=True)
class NoiseMultiple:
    """For all other floats; the limit is a multiple of the noise floor."""

    floor: Floor
    limit: float

    def error_ratio(
        self,
        reference: OutputReference,
        got: Array,
        errors: ErrorStats,
        cost: KernelCost,
    ) -> float:
        """The error in multiples of the noise floor."""
        return self.floor.multiple(reference, errors, cost)

    def describe(self, error_ratio: float, limit: float, errors: ErrorStats) -> str:
        """What is wrong."""
        return (
            f"is off by {errors.max_abs:.2g}, {error_ratio:.3g} times the noise floor,"
            f" and {limit:g} is allowed"
        )


def rule_for(
    output: str, candidate: Candidate, reference: Reference, limits: Limits
) -> OutputRule:
    """The rule that an output of a candidate is held to.

    Whole numbers are held to equality whatever is stated; a fixed tolerance comes
    before what the candidate's kind is allowed.

    Args:
        output: its name.
        candidate: what is judged.
        reference: what the checkpoint's own model computes.
        limits: what is close enough.
    """
    if output not in reference.floors:
        return Equality()
    if output in limits.tolerances:
        return FixedTolerance(limits.tolerances[output])
    if candidate.rule == REDUCED and candidate.precision is not None:
        return MagnitudeShare(limits.reduced[candidate.precision])
    return NoiseMultiple(reference.floors[output], limits.noise_multiple)
