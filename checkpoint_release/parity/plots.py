"""The tables of errors: by output, by case, and along the longest dynamic dimension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from checkpoint_release.core.artifacts.error_tables import (
    CASE_ERRORS,
    FLOOR,
    OUTPUT_ERRORS,
    POSITION_ERRORS,
    CaseError,
    OutputError,
    PositionError,
)
from checkpoint_release.core.artifacts.parity import rounded
from checkpoint_release.core.signature import Array, Signature, check_inputs
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.judge import CaseResult, OutputVerdict
from checkpoint_release.parity.reference import CaseReference, OutputReference


def write_plots(folder: Path, check: ParityCheck, signature: Signature) -> None:
    """Write the tables; that along a dimension has no rows for a model without one.

    Args:
        folder: that doesn't exist yet.
        check: what was found, with all candidates run.
        signature: what the model takes and gives.
    """
    folder.mkdir(parents=True)
    OUTPUT_ERRORS.write(folder, _rows_by_output(check))
    CASE_ERRORS.write(folder, _rows_by_case(check))
    POSITION_ERRORS.write(folder, _rows_along(check, signature))


def _rows_by_output(check: ParityCheck) -> Iterator[OutputError]:
    """The largest errors, in the order of the outputs."""
    for name in check.reference.outputs:
        for verdict in check.verdicts:
            output = verdict.outputs[name]
            yield OutputError(
                output=name,
                format=verdict.candidate.name,
                relative_error=rounded(_largest_share(output)),
                share_of_limit=rounded(output.worst.excess),
            )


def _rows_by_case(check: ParityCheck) -> Iterator[CaseError]:
    """The errors in each case, in the order of the formats, outputs and cases."""
    for verdict in check.verdicts:
        for name, output in verdict.outputs.items():
            for result in output.results:
                yield _case_error(verdict.candidate.name, name, result)


def _case_error(format: str, output: str, result: CaseResult) -> CaseError:
    """One output of one format in one case."""
    floors, index = result.times_floor, result.errors.index
    expected = got = 0.0
    if result.got.size:
        expected, got = (
            float(result.reference.expected[index]),
            float(result.got[index]),
        )
    return CaseError(
        case=result.case.name,
        output=output,
        format=format,
        share_of_limit=rounded(result.excess),
        times_floor=None if floors is None else rounded(floors),
        max_abs_error=rounded(result.errors.max_abs),
        index=",".join(map(str, index)),
        expected=_told_apart(expected),
        got=_told_apart(got),
    )


def _told_apart(value: float) -> float:
    """A number with as many digits as tell two of float32 apart."""
    return float(f"{value:.9g}")


def _largest_share(output: OutputVerdict) -> float:
    """The largest error of any case, as a share of the output's magnitude in it.

    Args:
        output: of a candidate. Cases in which it is zero throughout have no such share
            and are passed over.
    """
    largest = 0.0
    for result in output.results:
        scale = result.reference.magnitude
        if scale:
            largest = max(largest, result.errors.max_abs / scale)
    return largest


def _rows_along(check: ParityCheck, signature: Signature) -> Iterator[PositionError]:
    """The rows of all float outputs whose stated shape has the longest dimension.

    Args:
        check: what was found.
        signature: what the model takes and gives.
    """
    longest = _longest(check, signature)
    if longest is None:
        return
    dimension, case = longest
    for spec in signature.outputs:
        shape = spec.shape or ()
        if spec.name in check.reference.floors and dimension in shape:
            axis = shape.index(dimension)
            for row in _rows_of_output(check, case, spec.name, axis):
                format, position, error = row
                yield PositionError(
                    position=position,
                    dimension=dimension,
                    output=spec.name,
                    format=format,
                    relative_error=rounded(error),
                )


def _rows_of_output(
    check: ParityCheck, case: CaseReference, output: str, axis: int
) -> Iterator[tuple[str, int, float]]:
    """Format, position, and the error there.

    Args:
        check: what was found.
        case: the one to plot.
        output: its name.
        axis: of the output, along which positions are counted.
    """
    reference = case.outputs[output]
    runs = {FLOOR: reference.eager}
    for verdict in check.verdicts:
        if verdict.candidate.takes(case.case):
            runs[verdict.candidate.name] = _got(verdict.outputs[output], case)
    for name, got in runs.items():
        errors = _errors_along(axis, reference, got)
        for position, error in enumerate(errors):
            yield name, position, float(error)


def _longest(
    check: ParityCheck, signature: Signature
) -> tuple[str, CaseReference] | None:
    """The dimension that is the longest in any case, and the case.

    Args:
        check: what was found.
        signature: what the model takes and gives.

    Returns:
        None where the model has no dynamic dimensions.
    """
    cases = check.reference.cases
    sizes = [check_inputs(signature, case.case.inputs) for case in cases]
    found, largest = None, -1
    for dimension in signature.dimensions:
        for case, of_case in zip(cases, sizes, strict=True):
            if of_case[dimension] > largest:
                found, largest = (dimension, case), of_case[dimension]
    return found


def _got(output: OutputVerdict, case: CaseReference) -> Array:
    """What a candidate computed in a case.

    Args:
        output: the verdict on one of its outputs.
        case: the case.

    Raises:
        KeyError: it wasn't run on that case.
    """
    for result in output.results:
        if result.case is case.case:
            return result.got
    raise KeyError(case.case.name)


def _errors_along(axis: int, reference: OutputReference, got: Array) -> Array:
    """The root mean square error at each position of an axis, as a share of the
    output's magnitude.

    Args:
        axis: of the output.
        reference: what the checkpoint's own model computes.
        got: what is held against it, of the same shape.

    Returns:
        Float64, one number for each position. Where the magnitude is zero, the errors
        themselves.
    """
    distance = got.astype(np.float64) - reference.expected
    along = np.moveaxis(distance, axis, 0)
    rows = along.reshape(along.shape[0], -1)
    errors: Array = np.sqrt(np.mean(np.square(rows), axis=1))
    return errors / (reference.magnitude or 1.0)
