"""The report on formats that are wrong, and what is left to look into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from checkpoint_release.core.errors import ParityError
from checkpoint_release.parity.divergence import explain_divergence
from checkpoint_release.parity.evidence import write_evidence
from checkpoint_release.parity.judge import Verdict


def parity_error(
    failed: Sequence[Verdict], checkpoint: Path, scratch: Path
) -> ParityError:
    """The error that names every candidate that is wrong, how, and where its graph
    diverges.

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
    if candidate.is_float32_graph and verdict.wrong_outputs:
        yield f"  {_divergence(verdict, checkpoint)}"
    if verdict.evidence is not None:
        folder = scratch / candidate.name.replace(" ", "-")
        script = write_evidence(folder, candidate, verdict.evidence)
        yield f"  reproduce: python {script}"


def _divergence(verdict: Verdict, checkpoint: Path) -> str:
    """Where an ONNX graph whose numbers are wrong diverges from the model.

    Args:
        verdict: on the graph.
        checkpoint: the folder of the checkpoint.
    """
    output = max(verdict.wrong_outputs, key=lambda output: output.worst.error_ratio)
    smallest = min(output.failing, key=lambda case: case.elements)
    file, inputs = verdict.candidate.file, smallest.inputs
    return explain_divergence(checkpoint, file, inputs, output.name)
