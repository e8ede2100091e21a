"""The report on formats that don't pass, and what is left to look into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from checkpoint_release.core.errors import ParityError
from checkpoint_release.core.signature import Array
from checkpoint_release.parity.divergence import explain_divergence
from checkpoint_release.parity.evidence import write_evidence
from checkpoint_release.parity.judge import Verdict
from checkpoint_release.parity.search import search_isolated


def parity_error(
    failed: Sequence[Verdict], checkpoint: Path, scratch: Path
) -> ParityError:
    """The error that names every candidate that doesn't pass, how, and where its graph
    diverges or which kernel costs most.

    Args:
        failed: the verdicts, at least one.
        checkpoint: the folder of the checkpoint.
        scratch: where to leave a folder for each candidate, with a script that
            reproduces the error.
    """
    lines: list[str] = []
    for verdict in failed:
        lines += _lines(verdict, checkpoint, scratch)
    listed = "\n".join(f"  {line}" for line in lines)
    elsewhere = sorted({verdict.candidate.runtime or "" for verdict in failed})
    if all(elsewhere):
        return ParityError(
            f"{len(failed)} of the {{parity.runtimes}} don't compute what the"
            f" checkpoint computes, and ONNX Runtime does by the same file:\n{listed}",
            f"look into that runtime, or take it out of {{parity.runtimes}}:"
            f" {', '.join(elsewhere)}",
            options=["parity.runtimes"],
        )
    if all(verdict.errs_in_runtime for verdict in failed):
        return ParityError(
            f"{len(failed)} of the formats err by more than is allowed, although their"
            f" graphs are the model's:\n{listed}",
            "exporting again won't help; if that is close enough for what the model is"
            " for, state so in {parity.tolerances} or {parity.noise_multiple}",
            options=["parity.tolerances", "parity.noise_multiple"],
        )
    return ParityError(
        f"{len(failed)} of the formats don't compute what the checkpoint"
        f" computes:\n{listed}",
        "don't release it: export it again, by another exporter if need be",
    )


def _lines(verdict: Verdict, checkpoint: Path, scratch: Path) -> Iterator[str]:
    """What is wrong with a candidate, where, and how to reproduce it.

    Args:
        verdict: on the candidate.
        checkpoint, scratch: as for parity_error.
    """
    candidate = verdict.candidate
    yield f"{candidate.name}: {verdict.problem}"
    if verdict.errs_in_runtime and verdict.graph is not None:
        yield f"  the graph is the model's: {verdict.graph.describe()}"
    if candidate.runtime is not None:
        return
    if candidate.is_onnx_graph and verdict.evidence is not None:
        where = _in_onnx(verdict, checkpoint)
        if where is not None:
            yield f"  {where}"
    if verdict.evidence is not None:
        folder = scratch / candidate.name.replace(" ", "-")
        script = write_evidence(folder, candidate, verdict.evidence)
        yield f"  reproduce: python {script}"


def _in_onnx(verdict: Verdict, checkpoint: Path) -> str | None:
    """Where an ONNX graph diverges from the model, or which kernel costs most; None
    where its numbers are right.

    Args:
        verdict: on the graph.
        checkpoint: the folder of the checkpoint.
    """
    file, graph = verdict.candidate.file, verdict.graph
    if graph is not None and not graph.passed and graph.case and graph.output:
        return explain_divergence(checkpoint, file, graph.case.inputs, graph.output)
    if not verdict.wrong_outputs:
        return None
    output = max(verdict.wrong_outputs, key=lambda output: output.worst.error_ratio)
    if verdict.errs_in_runtime:
        inputs = output.worst.case.inputs
        what = "the kernel that costs most"
        return search_isolated(what, _name_costly_kernel, file, inputs)
    smallest = min(output.failing, key=lambda case: case.elements)
    return explain_divergence(checkpoint, file, smallest.inputs, output.name)


def _name_costly_kernel(file: Path, inputs: Mapping[str, Array]) -> str:
    """A sentence on the kernel that costs most, in a process that has torch.

    Args:
        file: the ONNX file.
        inputs: of the case that is furthest off.
    """
    from checkpoint_release.parity.costly_kernel import name_costly_kernel

    return name_costly_kernel(file, inputs)
