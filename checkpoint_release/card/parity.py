"""The figures of the parity check, as a card shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from checkpoint_release.core.artifacts.parity import (
    FormatFigures,
    GraphFigures,
    Machine,
    OutputFigures,
    ParityReport,
    WeightsHeld,
)


@dataclass(frozen=True)
class ParityRow:
    """One output of the model.

    Attributes:
        output: its name.
        noise_floor: eager float32's own error as a share of the output; may be empty.
        cells: for each artifact its error; empty where it lacks the output.
    """

    output: str
    noise_floor: str
    cells: list[str]


def parity_rows(report: ParityReport) -> list[ParityRow]:
    """One row for each output, in the order in which the artifacts list them.

    Args:
        report: of the parity check; a row has a cell for each of its artifacts.

    Returns:
        Rows with text for the card; an output that several artifacts have is one row.
    """
    outputs: dict[str, None] = {}
    for figures in report.formats.values():
        outputs |= dict.fromkeys(figures.outputs)
    return [_row(report, output) for output in outputs]


def _row(report: ParityReport, output: str) -> ParityRow:
    """The figures of one output.

    Args:
        report: of the parity check.
        output: the output's name.
    """
    floor = report.noise_floor.get(output)
    noise_floor = str(floor.typical) if floor else ""
    cells = []
    for figures in report.formats.values():
        cells.append(_cell(figures.outputs.get(output)))
    return ParityRow(output, noise_floor, cells)


def _cell(figures: OutputFigures | None) -> str:
    """The largest absolute error, and what it comes to by the rule that applied.

    Args:
        figures: of one output of one artifact; None: the artifact lacks it.

    Returns:
        The error in the output's own units, and in brackets its share of a tolerance
        that was stated, the typical error's share of the output (reduced precision), or
        how many times the noise floor it is.
    """
    if figures is None:
        return ""
    error = f"{figures.max_abs_error:.2g}"
    if figures.share_of_tolerance is not None:
        return f"{error} ({figures.share_of_tolerance:.0%} of its tolerance)"
    if figures.share_of_output is not None:
        return f"{error} ({figures.share_of_output:.2%})"
    return f"{error} ({figures.times_floor:.2g}×)"


def measured_on(machine: Machine) -> str:
    """The machine that the figures are from, as a phrase."""
    libraries = [f"{name} {version}" for name, version in machine.libraries.items()]
    processor = f"{machine.architecture} ({machine.cpu_capability})"
    return f"{processor} with {', '.join(libraries)}"


def parity_remarks(report: ParityReport) -> dict[str, str]:
    """What else is known about each artifact.

    Args:
        report: of the parity check.

    Returns:
        Artifact → remarks, as one sentence without a full stop; may be empty.
    """
    cases = report.rule.cases
    return {
        name: "; ".join(_remarks(figures, cases))
        for name, figures in report.formats.items()
    }


def _remarks(figures: FormatFigures, cases: int) -> Iterator[str]:
    """What else is known about an artifact, one remark each, without full stops.

    Args:
        figures: of the artifact.
        cases: how many inputs the artifacts were compared on.
    """
    precision = figures.reduced_precision
    if figures.graph:
        yield _graph_remark(figures.graph)
    if figures.weights:
        yield _weights_remark(figures.weights, precision)
    if figures.bit_identical_cases:
        of_all = f"{figures.bit_identical_cases} of {figures.cases or cases} cases"
        yield (
            f"in {of_all} every output has the same bits as that of the eager model in"
            " float32"
        )
    if precision:
        yield _precision_remark(figures, precision)


def _graph_remark(graph: GraphFigures) -> str:
    """How far the artifact's graph is from the model in double precision."""
    if not graph.evaluated:
        return f"its graph could not be evaluated in double precision: {graph.reason}"
    remark = (
        f"evaluated in double precision in {graph.cases} cases, its graph differs from"
        f" the model by at most {graph.error:.0e} of an output"
    )
    if graph.reason:
        remark += f" ({graph.limit:.0e} passes: {graph.reason})"
    return remark


def _weights_remark(held: WeightsHeld, precision: str | None) -> str:
    """How many of the checkpoint's weights the artifact holds.

    Args:
        held: the counts.
        precision: the dtype that the artifact was rounded to on request; None: none.
    """
    how = f"rounded to {precision}" if precision else "bit for bit"
    remark = f"{held.bit_for_bit} of {held.of} weights are the checkpoint's, {how}"
    rest = held.of - held.bit_for_bit
    if rest:
        remark += (
            f"; the other {rest} are not in the file (its inputs don't need them, or"
            " they were folded into constants)"
        )
    return remark


def _precision_remark(figures: FormatFigures, precision: str) -> str:
    """How the figures of an artifact of reduced precision are to be read.

    Args:
        figures: of the artifact; the largest limit of its outputs is stated.
        precision: the dtype that was asked for.
    """
    limits = [
        output.limit
        for output in figures.outputs.values()
        if output.share_of_output is not None
    ]
    return (
        f"{precision} by request: the figure in brackets is the typical error as a"
        f" share of the output, and up to {max(limits, default=0.0):.0%} passes"
    )
