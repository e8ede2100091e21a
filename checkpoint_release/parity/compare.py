"""Any two models against each other, by the questions that the pipeline asks.

One is the reference, in double precision; the other is held against it. Either may be
anything that the loader opens. Both run in this process, one after the other, and a
model that has run is given up before the next one is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.errors import InferenceError, ModelError
from checkpoint_release.core.signature import Arrays, Dimension, Signature
from checkpoint_release.parity.candidates import NOISE, Candidate
from checkpoint_release.parity.cases import NOMINAL, Case, draw_cases
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.constants import Weights
from checkpoint_release.parity.graph_job import expected_of
from checkpoint_release.parity.graph_proof import DoubleResult
from checkpoint_release.parity.judge import judge
from checkpoint_release.parity.reference import Reference, measure_reference
from checkpoint_release.parity.rules import Limits
from checkpoint_release.parity.workers import JobResult
from checkpoint_release.runtimes.detect import PTH

MAGNITUDES = (0.0, 1e-3, 1e3)
SCALARS = Weights(largest_table=1)
"""Whose checkpoint isn't known: constants are single numbers, all else is weights."""

Run = Callable[[Sequence[Arrays]], list[Arrays]]
"""Opens a model, computes the outputs for each of several inputs, and gives it up."""


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        name: what it is called in the report.
        format: as the loader names it.
        file: the file or folder.
        signature: its inputs and outputs.
        run: computes in its own dtypes.
        run_in_double: computes in float64; None: it is ONNX, which is evaluated.
    """

    name: str
    format: str
    file: Path
    signature: Signature
    run: Run
    run_in_double: Run | None


def draw(reference: Side, other: Side, seed: int) -> list[Case]:
    """Inputs that both take, drawn from the signature that says more.

    Args:
        reference, other: an ONNX file without a description gives no range for its
            integers and no least size; the other's signature is taken in its place.
        seed: of the random values.

    Raises:
        InferenceError: the two name other inputs.
    """
    signature = _shared_signature(reference, other)
    dimensions = {}
    for name, dimension in signature.dimensions.items():
        dimensions[name] = _at_least_one(dimension)
    signature = replace(signature, dimensions=dimensions)
    return draw_cases(signature, seed=seed, sizes={}, magnitudes=MAGNITUDES)


def _shared_signature(reference: Side, other: Side) -> Signature:
    """The signature to draw from, with the inputs that both take.

    Args:
        reference, other: a .pth may take more, which its forward can do without.

    Raises:
        InferenceError: as draw.
    """
    first, second = reference.signature, other.signature
    mine, theirs = set(first.input_names), set(second.input_names)
    if reference.format == PTH and theirs <= mine:
        return first.taking(theirs)
    if other.format == PTH and mine <= theirs:
        return second.taking(mine)
    if mine != theirs:
        raise InferenceError(
            f"{reference.name} takes {sorted(mine)}, and {other.name} takes"
            f" {sorted(theirs)}",
            "compare models that take the same inputs by the same names",
        )
    return second if reference.format == ONNX.name else first


def given_case(inputs: Arrays) -> list[Case]:
    """The inputs of a file as the only case."""
    return [Case("the given inputs", NOMINAL, 1.0, inputs)]


def compare(
    reference: Side, other: Side, cases: Sequence[Case], limits: Limits
) -> ParityCheck:
    """Hold one model against another.

    Args:
        reference: computes what is expected.
        other: is held against it. Where its outputs have other names, they are taken by
            their order.
        cases: what to run them on.
        limits: what is close enough.

    Raises:
        InferenceError: one of them fails, or they have other numbers of outputs.
        ModelError: the reference gives NaN or infinity.
    """
    own = _run_all(reference.run, cases)
    names = list(own[0])
    got = _named(_run_all(other.run, cases), names, other)
    double = None
    if other.run_in_double is not None:
        double = _named(_run_all(other.run_in_double, cases), names, other)
    expected = _expected(reference, cases, own, double)
    _require_finite(reference, expected, cases)
    measured = measure_reference(cases, expected, own)

    candidate = Candidate(other.name, other.format, other.file, NOISE)
    result = JobResult(got)
    if double is not None:
        by_case = {}
        for case, outputs in zip(cases, double, strict=True):
            by_case[case.name] = outputs
        in_double = DoubleResult(by_case)
    else:
        alone = judge(candidate, result, measured, limits)
        in_double = _evaluate(other.file, measured, names, alone.beyond_floor)
    verdict = judge(candidate, result, measured, limits, in_double)
    return ParityCheck(limits, measured, [verdict])


def _expected(
    reference: Side,
    cases: Sequence[Case],
    own: Sequence[Arrays],
    other: Sequence[Arrays] | None,
) -> Sequence[Arrays]:
    """What the reference computes in double precision, by case.

    Args:
        reference: the reference.
        cases: the cases.
        own: what it computes in its own dtypes.
        other: what the other model computes in double precision, to which the constants
            of an ONNX reference are aligned; None: it is ONNX too.

    Raises:
        InferenceError: it can't be evaluated.
    """
    if reference.run_in_double is not None:
        return _run_all(reference.run_in_double, cases)
    names = list(own[0])
    if other is None:
        return _evaluate_as_stored(reference.file, cases, names)
    target = measure_reference(cases, other, own)
    found = _evaluate(reference.file, target, names, frozenset())
    if found.failure is not None:
        raise InferenceError(
            f"{reference.name} can't be evaluated in double precision: {found.failure}",
            "name the other model first",
        )
    return list(found.outputs.values())


def _evaluate_as_stored(
    file: Path, cases: Sequence[Case], names: Sequence[str]
) -> list[Arrays]:
    """An ONNX file in double precision, with its constants as they are."""
    from checkpoint_release.parity.double_graph import NO_WEIGHTS, DoubleGraph

    graph = DoubleGraph(file, NO_WEIGHTS, names)
    return [graph.run(case.inputs) for case in cases]


def _evaluate(
    file: Path, reference: Reference, names: Sequence[str], beyond: frozenset[str]
) -> DoubleResult:
    """An ONNX file in double precision, its outputs by the reference's names."""
    from checkpoint_release.parity.onnx_in_double import evaluate_onnx

    cases = [case.case.name for case in reference.cases]
    expected = expected_of(reference, cases)
    return evaluate_onnx(file, SCALARS, expected, beyond, names)


def _run_all(run: Run, cases: Sequence[Case]) -> list[Arrays]:
    """What a model computes in every case."""
    return run([dict(case.inputs) for case in cases])


def _named(outputs: Sequence[Arrays], names: Sequence[str], side: Side) -> list[Arrays]:
    """The outputs by the reference's names.

    Raises:
        InferenceError: there are more or fewer.
    """
    renamed = []
    for arrays in outputs:
        if len(arrays) != len(names):
            raise InferenceError(
                f"{side.name} gives {list(arrays)}, and the reference {list(names)}",
                "compare models that give the same outputs",
            )
        if set(arrays) == set(names):
            renamed.append({name: arrays[name] for name in names})
        else:
            renamed.append(dict(zip(names, arrays.values(), strict=True)))
    return renamed


def _require_finite(
    side: Side, outputs: Sequence[Mapping[str, np.ndarray]], cases: Sequence[Case]
) -> None:
    """Require that an error against the reference can be measured.

    Raises:
        ModelError: it holds NaN or infinity.
    """
    for case, arrays in zip(cases, outputs, strict=True):
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ModelError(
                    f"{side.name} gives NaN or infinity for {name!r} in the case"
                    f" {case.name!r}",
                    "look at its weights, or give {inputs} that it can take",
                    options=["inputs"],
                )


def _at_least_one(dimension: Dimension) -> Dimension:
    """A dimension that is never empty."""
    return replace(dimension, minimum=max(dimension.minimum, 1))
