"""What the check reports: rows to print, metrics for DVC, and all figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from checkpoint_release.core.artifacts.parity import (
    FormatFigures,
    GraphFigures,
    Machine,
    NoiseFloor,
    OutputFigures,
    ParityMetrics,
    ParityReport,
    Rule,
    SampleFloor,
    WeightsHeld,
    rounded,
)
from checkpoint_release.parity.candidates import REDUCED
from checkpoint_release.parity.check import ParityCheck
from checkpoint_release.parity.graph_proof import BAR, GraphProof
from checkpoint_release.parity.judge import OutputVerdict, Verdict
from checkpoint_release.parity.rules import FixedTolerance
from checkpoint_release.parity.sample import sample_case

MAX_COLUMNS = 8
"""How many outputs have a column each; of more, the worst one is shown."""
MAX_FLOORS = 3
"""How many noise floors are listed where the outputs have no columns."""


def summary(check: ParityCheck) -> str:
    """The outcome for people: a row for each artifact, and notes on what rows mean.

    Each output has a column, which holds how many times the noise floor its error is.
    Of more than MAX_COLUMNS outputs, a single column names the worst.

    Args:
        check: what was found.

    Returns:
        Lines, the last without a newline.
    """
    outputs = check.reference.outputs
    columns = outputs if len(outputs) <= MAX_COLUMNS else []
    heads = ["graph", *(columns or ["worst output"]), "weights", ""]
    rows = [["× noise floor", *heads]]
    for verdict in check.verdicts:
        rows.append(_row(verdict, columns))
    return "\n".join([*_aligned(rows), *_notes(check, columns)])


def parity_metrics(check: ParityCheck) -> ParityMetrics:
    """The handful of figures that DVC shows.

    Args:
        check: what was found.
    """
    shares = {}
    for verdict in check.verdicts:
        excesses = [output.worst.excess for output in verdict.outputs.values()]
        shares[verdict.candidate.name] = rounded(max(excesses, default=0.0))
    return ParityMetrics(
        passed=not check.failed,
        cases=len(check.reference.cases),
        share_of_limit=shares,
    )


def parity_report(
    check: ParityCheck, machine: Machine, *, seed: int, checked: Mapping[str, str]
) -> ParityReport:
    """All figures of the check.

    Args:
        check: what was found.
        machine: that it was measured on; other runtimes that ran are added to it.
        seed: that the cases were drawn from.
        checked: format → sha256 of the manifest of the artifact that was checked.
    """
    limits, reference = check.limits, check.reference
    floors, sample_floors, formats = {}, {}, {}
    sample = sample_case(reference)
    for name, floor in reference.floors.items():
        in_sample = floor.in_case(sample.outputs[name])
        sample_floors[name] = SampleFloor(
            typical=rounded(in_sample.typical), worst=rounded(in_sample.worst)
        )
        floors[name] = NoiseFloor(
            typical=rounded(floor.typical), worst=rounded(floor.worst)
        )
    for verdict in check.verdicts:
        formats[verdict.candidate.name] = _format_figures(verdict)
    rule = Rule(
        noise_multiple=limits.noise_multiple,
        seed=seed,
        cases=len(reference.cases),
    )
    libraries = machine.libraries | check.versions
    return ParityReport(
        passed=not check.failed,
        machine=msgspec.structs.replace(machine, libraries=libraries),
        checked=dict(checked),
        rule=rule,
        noise_floor=floors,
        sample_floor=sample_floors,
        formats=formats,
    )


def _format_figures(verdict: Verdict) -> FormatFigures:
    """The figures of one candidate.

    A case counts as bit-identical by the output that has the fewest such cases.

    Args:
        verdict: on the candidate; of one that didn't run, there are no outputs.
    """
    held = verdict.weights
    weights = None
    if held is not None:
        weights = WeightsHeld(bit_for_bit=held.found, of=held.total)
    identical, counts, outputs = [], [], {}
    for name, output in verdict.outputs.items():
        identical.append(output.identical)
        counts.append(len(output.results))
        outputs[name] = _output_figures(verdict, output)
    return FormatFigures(
        passed=verdict.passed,
        rule=verdict.candidate.rule,
        reduced_precision=verdict.candidate.precision,
        weights=weights,
        graph=_graph_figures(verdict.graph),
        cases=min(counts, default=None) if verdict.candidate.sizes else None,
        bit_identical_cases=min(identical, default=0),
        outputs=outputs,
    )


def _graph_figures(graph: GraphProof | None) -> GraphFigures | None:
    """The figures of a graph, in two significant digits; None: it was not asked."""
    if graph is None:
        return None
    return GraphFigures(
        evaluated=graph.evaluated,
        error=rounded(graph.error),
        limit=rounded(graph.limit),
        reason=graph.reason,
        cases=graph.cases,
    )


def _output_figures(verdict: Verdict, output: OutputVerdict) -> OutputFigures:
    """The figures of one output, in two significant digits.

    The worst error is stated in the terms of its rule: a share of the tolerance, a
    share of the output, or a multiple of the noise floor. Of a fixed tolerance, error
    and limit are stated in multiples of the floor too, so that formats can be compared.

    Args:
        verdict: on the candidate.
        output: one of its outputs.
    """
    worst = output.worst
    error = rounded(worst.error_ratio)
    limit = worst.limit
    share_of_tolerance = share_of_output = times_floor = None
    if isinstance(output.rule, FixedTolerance):
        share_of_tolerance, times_floor = error, _times_floor(output)
        limit = _tolerance_in_floors(output)
    elif verdict.candidate.rule == REDUCED:
        share_of_output = error
    else:
        times_floor = error
    return OutputFigures(
        max_abs_error=rounded(output.errors.max_abs),
        mean_abs_error=rounded(output.errors.mean_abs),
        share_of_tolerance=share_of_tolerance,
        share_of_output=share_of_output,
        times_floor=times_floor,
        kernel_cost=rounded(worst.kernel_cost.worst) or None,
        limit=limit,
        cosine=round(output.errors.cosine, 6),
        ulps=rounded(output.errors.ulps),
        max_ulps=rounded(output.errors.max_ulps),
        worst_case=worst.case.name,
        worst_index=",".join(str(i) for i in worst.errors.index),
    )


def _times_floor(output: OutputVerdict) -> float:
    """The worst error in multiples of the noise floor; of whole numbers, 0 or 1.

    Args:
        output: judged by any rule but the one of reduced precision.
    """
    worst = output.worst
    if worst.times_floor is None:
        return rounded(worst.error_ratio)
    return rounded(worst.times_floor)


def _tolerance_in_floors(output: OutputVerdict) -> float:
    """A fixed tolerance in multiples of the floor, where the error is worst.

    The error is known both in floors and as a share of the tolerance, so their quotient
    is what the whole tolerance is in floors.

    Args:
        output: judged by a fixed tolerance.

    Returns:
        Where there is no error, and so no quotient, the limit as it is: 1.
    """
    worst = output.worst
    if worst.times_floor and worst.error_ratio:
        return rounded(worst.times_floor / worst.error_ratio)
    return worst.limit


# ------------------------------------------------------------------------------
# Rows


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, the first column flush left and the others flush right.

    Args:
        rows: of cells, the same number in each.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        for cell, width in zip(others, widths[1:], strict=True):
            cells.append(cell.rjust(width))
        lines.append("  ".join(cells).rstrip())
    return lines


def _cell(verdict: Verdict, name: str) -> str:
    """How far an output is off.

    Args:
        verdict: on a candidate.
        name: of the output.

    Returns:
        A multiple of the noise floor, or of the output's magnitude for reduced
        precision, with an exclamation mark where it is too much; an equals sign where
        all cases have eager float32's bits; a dash where the candidate didn't run.
    """
    if name not in verdict.outputs:
        return "–"
    output = verdict.outputs[name]
    if output.identical == len(output.results):
        return "="
    mark = "" if output.passed else "!"
    if verdict.candidate.rule == REDUCED:
        return f"{output.worst.error_ratio:.2%}{mark}"
    multiple = _times_floor(output)
    digits = ".1f" if multiple < 100 else ".1g"
    return f"{multiple:{digits}}{mark}"


def _graph_cell(verdict: Verdict) -> str:
    """How far the graph is off in float64, as a share of an output's magnitude.

    Returns:
        A dash where there is no graph to evaluate, or none that could be evaluated; an
        exclamation mark after what is too much.
    """
    graph = verdict.graph
    if graph is None or not graph.evaluated:
        return "–"
    mark = "" if graph.passed else "!"
    return f"{graph.error:.0e}{mark}"


def _row(verdict: Verdict, columns: Sequence[str]) -> list[str]:
    """The cells of a candidate.

    Args:
        verdict: on the candidate.
        columns: the outputs that have one; without any, the worst output has one.

    Returns:
        The name; how far the graph is off; a cell for each column; how many weights it
        holds bit for bit, a dash where they weren't compared; "ok" or "WRONG".
    """
    row = [verdict.candidate.name, _graph_cell(verdict)]
    for output in columns:
        row.append(_cell(verdict, output))
    if not columns:
        row.append(_worst_cell(verdict))
    held = verdict.weights
    row.append(f"{held.found}/{held.total}" if held else "–")
    row.append("ok" if verdict.passed else "WRONG")
    return row


def _worst_cell(verdict: Verdict) -> str:
    """The output that is furthest off, and by how much."""
    if not verdict.outputs:
        return "–"
    worst = max(verdict.outputs.values(), key=lambda output: output.worst.error_ratio)
    return f"{worst.name} {_cell(verdict, worst.name)}"


def _notes(check: ParityCheck, columns: Sequence[str]) -> list[str]:
    """What the rows mean, a line for each note.

    There are notes on what passes and on the noise floors, one on weights if any are
    lacking, and one for each candidate in reduced precision, whose cells are shares.

    Args:
        check: what was found.
        columns: the outputs that have one; without any, MAX_FLOORS floors are listed.
    """
    limits, reference = check.limits, check.reference
    shown = columns or reference.outputs[:MAX_FLOORS]
    floors = []
    for name, floor in reference.floors.items():
        if name in shown:
            floors.append(f"{name} {floor.typical:.1e}")
    notes = [
        f"{len(reference.cases)} cases; up to {limits.noise_multiple:g}× the floor"
        " passes; = is bit for bit",
        "floor: eager float32 against float64, as a share of the output:"
        f" {', '.join(floors)}",
    ]
    notes += _graph_notes(check)
    if _lacks_weights(check):
        notes.append(
            "weights: those held bit for bit; the others aren't in the file (no input"
            " needs them, or folded)"
        )
    for name, why in check.not_run.items():
        notes.append(f"{name}: not run, for {why}")
    for verdict in check.verdicts:
        candidate = verdict.candidate
        if candidate.precision:
            notes.append(
                f"{candidate.name}: reduced precision, error as a share of the output;"
                f" {limits.reduced[candidate.precision]:.0%} passes"
            )
        if candidate.sizes:
            sizes = [f"{name} {size}" for name, size in candidate.sizes.items()]
            notes.append(f"{candidate.name}: the cases of {', '.join(sizes)} alone")
    return notes


def _graph_notes(check: ParityCheck) -> Iterator[str]:
    """A note on what the graphs' figures mean, and one for each graph of which more is
    allowed than usual or that could not be evaluated.
    """
    graphs = {}
    for verdict in check.verdicts:
        if verdict.graph is not None:
            graphs[verdict.candidate.name] = verdict.graph
    if graphs:
        yield (
            "graph: evaluated in float64, against the model in float64, as a share of"
            f" the output; {BAR:g} passes"
        )
    for name, graph in graphs.items():
        if not graph.evaluated:
            yield f"{name}: {graph.describe()}"
        elif graph.reason is not None:
            yield f"{name}: up to {graph.limit:.1g} passes: {graph.reason}"


def _lacks_weights(check: ParityCheck) -> bool:
    """Whether any candidate lacks some of the checkpoint's weights."""
    for verdict in check.verdicts:
        held = verdict.weights
        if held is not None and held.found < held.total:
            return True
    return False
