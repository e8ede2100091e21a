"""What every artifact is held against: the checkpoint's own model, and its noise floor.

The eager model in float32 errs against itself in float64, for float32 rounds at every
step. That error is the noise floor: no correct float32 format can be expected to do
much better, and one that does much worse computes something else. The floor of an
output is taken from all cases together, relative to the output's magnitude in each,
because a handful of rounding errors says little of how large they usually are. Every
case is then judged on its own, against its own magnitude, so that large values can't
hide an error in small ones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.error_stats import ErrorStats, error_stats

OUTLIER_FACTOR = 4.0  # times the median error
# of float32: the floor of outputs that eager float32 computes exactly
UNIT_ROUNDOFF = 2.0**-24


@dataclass(frozen=True)
class KernelCost:
    """What a runtime's kernels may cost in one output of one case, beside rounding; see
    checkpoint_release.parity.kernel_cost.

    Attributes:
        typical: root mean square of the error.
        worst: the largest error.
    """

    typical: float = 0.0
    worst: float = 0.0


NO_COST = KernelCost()


@dataclass(frozen=True)
class OutputReference:
    """What the checkpoint's own model computes for one output in one case.

    Attributes:
        expected: in float64; integers and booleans as they are.
        eager: in float32.
        eager_errors: of `eager` against `expected`.
        magnitude: what errors are relative to: root mean square of `expected`. Few
            numbers may all be close to zero by chance, so it is at least that of all
            cases of the same kind together.
    """

    expected: Array
    eager: Array
    eager_errors: ErrorStats
    magnitude: float

    @property
    def is_float(self) -> bool:
        """Whether there is rounding in it."""
        return self.expected.dtype.kind == "f"

    @property
    def rounded(self) -> Array:
        """`expected` in the model's own dtype."""
        return self.expected.astype(self.eager.dtype)


@dataclass(frozen=True)
class CaseReference:
    """What the checkpoint's own model computes in one case, by output."""

    case: Case
    outputs: dict[str, OutputReference]

    @property
    def rounded(self) -> Arrays:
        """The expected outputs in the model's own dtypes."""
        return {name: output.rounded for name, output in self.outputs.items()}


@dataclass(frozen=True)
class Floor:
    """The noise floor of one output over all cases.

    Attributes:
        typical: root mean square error of eager float32, relative to the output's
            magnitude.
        worst: largest error, relative likewise.
    """

    typical: float
    worst: float

    def multiple(
        self,
        reference: OutputReference,
        errors: ErrorStats,
        cost: KernelCost = NO_COST,
    ) -> float:
        """The errors in a case as a multiple of the floor.

        It is the larger of two multiples, that of the typical and that of the largest
        error. What kernels may cost comes on top of either floor.

        Args:
            reference: what the checkpoint's own model computes in the case.
            errors: of what a candidate computed in it.
            cost: of the kernels of the candidate's runtime in the case.

        Returns:
            At least 0; infinite where the candidate gives NaN or infinity.
        """
        if math.isinf(errors.max_abs):
            return math.inf
        floor = self.in_case(reference)
        typical, worst = floor.typical + cost.typical, floor.worst + cost.worst
        return max(ratio(errors.rms, typical), ratio(errors.max_abs, worst))

    def in_case(self, reference: OutputReference) -> Floor:
        """The floor in one case, as absolute errors.

        Where eager float32 itself errs by more than the floor in this case, its own
        errors take the place of the floor.

        The root mean square of n independent errors scatters around what is expected of
        it by about 1/√(2n), and three to four times that happens in some case or other
        of a few thousand. The factor 1 + 3/√n allows for it; for n independent normal
        errors it is exceeded about once in 10⁵.

        Args:
            reference: what the checkpoint's own model computes in the case.
        """
        scale, eager = reference.magnitude, reference.eager_errors
        scatter = 1 + 3 / math.sqrt(max(eager.count, 1))
        return Floor(
            typical=max(self.typical * scale * scatter, eager.rms),
            worst=max(self.worst * scale, eager.max_abs),
        )


@dataclass(frozen=True)
class Reference:
    """What the checkpoint's own model computes.

    Attributes:
        cases: all cases, in order.
        floors: the noise floor of every float output.
    """

    cases: list[CaseReference]
    floors: dict[str, Floor]

    @property
    def outputs(self) -> list[str]:
        """The names of all outputs, in order."""
        return list(self.cases[0].outputs)

    def among(self, cases: Collection[Case]) -> Reference:
        """The same, of some of the cases; the floor stays that of all."""
        names = {case.name for case in cases}
        chosen = [case for case in self.cases if case.case.name in names]
        return Reference(chosen, self.floors)


def measure_reference(
    cases: Sequence[Case], float64: Sequence[Arrays], float32: Sequence[Arrays]
) -> Reference:
    """Take the noise floor of what the eager model computed.

    Args:
        cases: what it was run on, at least one.
        float64, float32: its outputs in these dtypes, by case.

    Returns:
        The reference; its outputs are in the model's order.
    """
    references = [CaseReference(case, {}) for case in cases]
    floors = {}
    for name in float64[0]:
        outputs = []
        for expected, eager in zip(float64, float32, strict=True):
            outputs.append((expected[name], eager[name]))
        of_output = _output_references(cases, outputs)
        for reference, output in zip(references, of_output, strict=True):
            reference.outputs[name] = output
        if of_output[0].is_float:
            floors[name] = _own_floor(of_output)
    return Reference(references, _raised(floors))


def ratio(found: float, allowed: float) -> float:
    """The quotient of an error and what is allowed, both at least 0.

    Returns:
        Where nothing is allowed, infinity if there is an error and 0 if there is none.
    """
    if allowed > 0:
        return found / allowed
    return 0.0 if found == 0 else math.inf


def _output_references(
    cases: Sequence[Case], outputs: Sequence[tuple[Array, Array]]
) -> list[OutputReference]:
    """One output in all cases.

    Cases of one kind have inputs of the same standard deviation, so that their outputs
    have about one magnitude: the root of the mean of their mean squares.

    Args:
        cases: all of them.
        outputs: what eager computed in float64 and in float32, by case.

    Returns:
        One for each case; none has a magnitude below that of its kind.
    """
    errors = []
    squares = defaultdict(list)
    for case, (expected, eager) in zip(cases, outputs, strict=True):
        stats = error_stats(expected, eager)
        errors.append(stats)
        squares[case.kind].append(stats.magnitude**2)
    references = []
    for case, arrays, stats in zip(cases, outputs, errors, strict=True):
        of_kind = squares[case.kind]
        shared = math.sqrt(sum(of_kind) / len(of_kind))
        magnitude = max(stats.magnitude, shared)
        references.append(OutputReference(*arrays, stats, magnitude))
    return references


def _own_floor(references: Iterable[OutputReference]) -> Floor:
    """The floor of one output by its own cases alone.

    Cases in which eager float32 errs far more than usual, that is OUTLIER_FACTOR times
    the median, are left out: they speak for themselves alone.

    Args:
        references: of the output, by case. Where its magnitude is zero, errors can't be
            relative to it, and the case is passed over.

    Returns:
        Zero where no case is left.
    """
    typical, worst = [], []
    for reference in references:
        errors, scale = reference.eager_errors, reference.magnitude
        if scale:
            typical.append(errors.rms / scale)
            worst.append(errors.max_abs / scale)
    if not typical:
        return Floor(0.0, 0.0)
    usual = np.array(typical) <= OUTLIER_FACTOR * np.median(typical)
    mean_square = float(np.mean(np.square(typical)[usual]))
    largest = float(np.max(np.array(worst)[usual]))
    return Floor(typical=math.sqrt(mean_square), worst=largest)


def _raised(floors: Mapping[str, Floor]) -> dict[str, Floor]:
    """The floors of all outputs, none below what rounding makes of any of them.

    All outputs come out of one computation, so that an output of a few numbers, or one
    that happens to be exact, has at least the median floor of all of them; and none is
    below the unit roundoff 2⁻²⁴, by which rounding to float32 changes a number at most
    (IEEE 754, to nearest).

    Args:
        floors: by output, each of its own cases alone.
    """
    if not floors:
        return {}
    least_typical = float(np.median([floor.typical for floor in floors.values()]))
    least_worst = float(np.median([floor.worst for floor in floors.values()]))
    raised = {}
    for name, floor in floors.items():
        raised[name] = Floor(
            max(floor.typical, least_typical, UNIT_ROUNDOFF),
            max(floor.worst, least_worst, UNIT_ROUNDOFF),
        )
    return raised
