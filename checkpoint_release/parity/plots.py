"""Data for `dvc plots`: errors by output, and along the longest dynamic dimension."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.parity import rounded
from checkpoint_release.core.signature import Array, Signature, check_inputs
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.judge import OutputVerdict
from checkpoint_release.parity.reference import CaseReference, OutputReference

Row = Sequence[Any]
FLOOR = "noise floor"
"""What eager float32 is called among the formats."""


def write_plots(folder: Path, check: ParityCheck, signature: Signature) -> None:
    """Write the errors as CSV, as shares of the output's magnitude.

    outputs.csv holds the largest error by output and format; along.csv the error along
    the longest dynamic dimension, and no rows for a model without one.

    Args:
        folder: that doesn't exist yet.
        check: what was found, with all candidates run.
        signature: what the model takes and gives.
    """
    folder.mkdir(parents=True)
    _write_csv(
        folder / "outputs.csv",
        ["output", "format", "relative_error"],
        _rows_by_output(check),
    )
    _write_csv(
        folder / "along.csv",
        ["position", "output", "format", "relative_error"],
        _rows_along(check, signature),
    )


def _write_csv(path: Path, header: Row, rows: Iterator[Row]) -> None:
    """Write a CSV file, with "\\n" at the end of lines on every system.

    Args:
        path: of the file.
        header: the names of the columns.
        rows: a value for each column.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _rows_by_output(check: ParityCheck) -> Iterator[Row]:
    """Output, format, and the largest error, first that of eager float32."""
    for name, floor in check.reference.floors.items():
        yield name, FLOOR, rounded(floor.worst)
        for verdict in check.verdicts:
            error = _largest_share(verdict.outputs[name])
            yield name, verdict.candidate.name, rounded(error)


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


def _rows_along(check: ParityCheck, signature: Signature) -> Iterator[Row]:
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
            yield from _rows_of_output(check, case, spec.name, axis)


def _rows_of_output(
    check: ParityCheck, case: CaseReference, output: str, axis: int
) -> Iterator[Row]:
    """Position, output, format, and the error there.

    Args:
        check: what was found.
        case: the one to plot.
        output: its name.
        axis: of the output, along which positions are counted.
    """
    reference = case.outputs[output]
    runs = {FLOOR: reference.eager}
    for verdict in check.verdicts:
        runs[verdict.candidate.name] = _got(verdict.outputs[output], case)
    for name, got in runs.items():
        errors = _errors_along(axis, reference, got)
        for position, error in enumerate(errors):
            yield position, output, name, rounded(float(error))


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
