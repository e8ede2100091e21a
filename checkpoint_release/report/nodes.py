"""The errors of the ONNX graph's nodes, computed once for each graph and sample."""

from __future__ import annotations

from pathlib import Path

import msgspec

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.manifest import MANIFEST, read_manifest
from checkpoint_release.core.artifacts.parity import PARITY_FOLDER
from checkpoint_release.core.artifacts.release import Sample
from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import joint_sha256, sha256
from checkpoint_release.parity.workers import WorkerError, call_isolated
from checkpoint_release.report.modules import NodeError

CACHE = Path(".dvc/tmp/node-errors.json")
"""In the project's folder: what was computed last; git ignores it."""
LARGEST = 300_000_000
"""Bytes of a graph with its weights, of which double precision makes twice as many."""
_LIMIT = 300.0  # seconds


class NodeErrors(Record, frozen=True, kw_only=True):
    """The errors of a graph's nodes.

    Attributes:
        made_from: a digest of the graph, the checkpoint and the sample.
        nodes: in the graph's order.
        reason: why there are none; empty: there are.
    """

    made_from: str
    nodes: list[NodeError] = msgspec.field(default_factory=list)
    reason: str = ""


def node_errors(root: Path, artifacts: Path) -> NodeErrors | None:
    """The errors of the nodes, computed anew where the graph or the sample changed.

    Args:
        root: the project's folder.
        artifacts: the folder of all artifacts.

    Returns:
        None where there is no ONNX graph, or no sample to run it on.
    """
    sample = artifacts / PARITY_FOLDER / Sample().inputs
    graph = artifacts / ONNX.name / ONNX.file
    if not (graph.is_file() and sample.is_file()):
        return None
    made_from = inputs_digest(artifacts)
    known = _known(root / CACHE)
    if known is not None and known.made_from == made_from:
        return known
    found = _compute(artifacts, made_from)
    if (root / CACHE).parents[1].is_dir():
        found.write(root / CACHE)
    return found


def inputs_digest(artifacts: Path) -> str:
    """A digest of the graph, the checkpoint and the sample.

    Args:
        artifacts: the folder of all artifacts, with all three.

    Raises:
        ArtifactError: one can't be read.
    """
    sample = artifacts / PARITY_FOLDER / Sample().inputs
    digests = {sample.name: sha256(sample)}
    for folder in (CHECKPOINT, ONNX.name):
        digests[folder] = sha256(artifacts / folder / MANIFEST)
    return joint_sha256(digests)


def _known(path: Path) -> NodeErrors | None:
    try:
        return read_record(path, NodeErrors) if path.is_file() else None
    except ArtifactError:
        return None  # of another version


def _compute(artifacts: Path, made_from: str) -> NodeErrors:
    """Compute the errors, whatever onnx makes of the graph."""
    size = read_manifest(artifacts / ONNX.name).size
    if size > LARGEST:
        reason = (
            f"a graph of {size / 1e6:,.0f} MB isn't evaluated node by node; up to"
            f" {LARGEST / 1e6:,.0f} MB are"
        )
        return NodeErrors(made_from=made_from, reason=reason)
    try:
        found = call_isolated(_isolated, artifacts, needs_torch=False, timeout=_LIMIT)
    except WorkerError as error:
        return NodeErrors(made_from=made_from, reason=f"the process {error}")
    return NodeErrors(made_from=made_from, nodes=found)


def _isolated(artifacts: Path) -> list[NodeError]:
    from checkpoint_release.report.node_errors import compute_node_errors

    return compute_node_errors(artifacts)
