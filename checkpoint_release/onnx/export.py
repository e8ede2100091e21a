"""A checkpoint as ONNX files: exported by the first route that can, and checked as they
lie on the disk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.errors import CheckpointReleaseError, ExportError
from checkpoint_release.core.fixed_sizes import at_sizes, require_allowed
from checkpoint_release.core.signature import Signature
from checkpoint_release.onnx.check import check_onnx
from checkpoint_release.onnx.clean import identify
from checkpoint_release.onnx.file import write_onnx
from checkpoint_release.onnx.fixed import FIXED_FILE, make_fixed, open_shapes
from checkpoint_release.onnx.routes import (
    AUTO,
    DIRECT,
    ExportedGraph,
    Plan,
    export_graph,
    other_plans,
    plan_export,
)
from checkpoint_release.onnx.variants import VARIANT_FILES, make_variant


@dataclass(frozen=True)
class OnnxVariant:
    """A smaller file: its name, and float16 or int8."""

    file: str
    precision: str


@dataclass(frozen=True)
class OnnxFixed:
    """The file with fixed shapes: its name, and dimension → size."""

    file: str
    sizes: dict[str, int]


@dataclass(frozen=True)
class OnnxExport:
    """What was written, as the manifest states it.

    Attributes:
        opset: of the default domain.
        ir_version: of the files.
        exporter: the route that was taken.
        nodes: of the main file's graph, without subgraphs.
        versions: library → version, of those that wrote the graph.
        variants: the smaller files.
        fixed: the file with fixed shapes; None: there is none.
    """

    opset: int
    ir_version: int
    exporter: str
    nodes: int
    versions: dict[str, str]
    variants: list[OnnxVariant] = field(default_factory=list)
    fixed: OnnxFixed | None = None


def export_onnx(
    checkpoint: CheckpointFolder,
    folder: Path,
    *,
    opset: int,
    exporter: str = AUTO,
    ir_version: int | None = None,
    variants: Sequence[str] = (),
    fixed: Mapping[str, int] | None = None,
) -> OnnxExport:
    """Write and check model.onnx (past 2 GB with model.onnx_data) and its variants.

    Args:
        checkpoint: the model and its weights.
        folder: an empty folder.
        opset: exactly the opset to write.
        exporter: direct, torchscript, dynamo, or auto: the first of them that can.
        ir_version: the IR version to write; None: the lowest that goes with the opset.
        variants: precisions of further files, float16 or int8.
        fixed: dimension → size in a further file; None: there is none.

    Raises:
        ParamsError: the model doesn't take the fixed sizes; raised before any work.
        OpsetError: the opset or IR version can't be had; raised before any work.
        ExportError: no route can export the model, or what was written isn't what was
            asked for.
    """
    signature = checkpoint.architecture.signature
    require_allowed(signature, fixed or {})
    plan = plan_export(checkpoint.architecture, opset, exporter, ir_version)
    writer = _Writer(folder, signature, plan)
    route, exported = _export_by_first_route(checkpoint, plan, writer)
    written = []
    for precision in variants:
        file = VARIANT_FILES[precision]
        variant = make_variant(precision, exported.model, exported.weights)
        writer.write(file, variant, {"exporter": route, "precision": precision})
        written.append(OnnxVariant(file, precision))
    written_fixed = None
    if fixed:
        writer = _Writer(folder, at_sizes(signature, fixed), plan)
        written_fixed = _write_fixed(writer, exported, route, fixed)
    return OnnxExport(
        opset,
        plan.ir_version,
        route,
        nodes=len(exported.model.graph.node),
        versions=_versions(route),
        variants=written,
        fixed=written_fixed,
    )


def _write_fixed(
    writer: _Writer, exported: ExportedGraph, route: str, sizes: Mapping[str, int]
) -> OnnxFixed:
    """Write and check the file with fixed shapes.

    Args:
        writer: by the signature at these sizes.
        exported: the graph that takes any sizes.
        route: by which it was exported.
        sizes: dimension → size.

    Raises:
        ExportError: it isn't what was asked for.
    """
    graph = make_fixed(exported, writer.signature)
    writer.write(FIXED_FILE, graph, {"exporter": route})
    still_open = open_shapes(graph.model)
    if still_open and not writer.signature.dimensions:
        print(
            f"note: {FIXED_FILE}: the shapes of {len(still_open)} values depend on"
            f" data, {still_open[0]!r} the first",
            file=sys.stderr,
        )
    return OnnxFixed(FIXED_FILE, dict(sizes))


@dataclass(frozen=True)
class _Writer:
    """Writes files that state where they come from and what they take, and checks
    them.
    """

    folder: Path
    signature: Signature
    plan: Plan

    def write(
        self, file: str, exported: ExportedGraph, metadata: dict[str, str]
    ) -> None:
        """Write and check one file; with its signature it can be used alone.

        Raises:
            ExportError: it isn't what was asked for.
        """
        signature = json.dumps(self.signature.to_json(), ensure_ascii=False)
        properties = metadata | {"signature": signature}
        identify(exported.model, self.plan.ir_version, properties)
        path = self.folder / file
        write_onnx(path, exported.model, exported.weights)
        check_onnx(
            path,
            self.signature,
            self.plan.opset,
            self.plan.ir_version,
            exported.eager,
            exported.decisions,
        )


def _export_by_first_route(
    checkpoint: CheckpointFolder, plan: Plan, writer: _Writer
) -> tuple[str, ExportedGraph]:
    """Export by the first route whose file passes its check: what a general route can
    do shows only when it is tried.

    Raises:
        ExportError: none does.
    """
    failures: list[ExportError] = []
    for route in plan.routes:
        try:
            exported = export_graph(route, checkpoint, plan.opset)
            writer.write(ONNX.file, exported, {"exporter": route})
        except ExportError as error:
            failures.append(error)
            for leftover in writer.folder.iterdir():
                leftover.unlink()
        else:
            return route, exported
    first, *others = failures
    failure = ExportError.combined(failures) if others else first
    raise _with_alternative(failure, checkpoint, plan)


def _with_alternative(
    error: ExportError, checkpoint: CheckpointFolder, plan: Plan
) -> ExportError:
    """The error, with an exporter and an opset that can export the model, if any can.

    Only what was tried is advised.

    Args:
        error: about all routes of the plan.
        checkpoint: the model and its weights.
        plan: what failed.
    """
    for other in other_plans(checkpoint.architecture, plan):
        (route,) = other.routes
        with TemporaryDirectory() as folder:
            signature = checkpoint.architecture.signature
            writer = _Writer(Path(folder), signature, other)
            try:
                exported = export_graph(route, checkpoint, other.opset)
                writer.write(ONNX.file, exported, {"exporter": route})
            except CheckpointReleaseError:
                continue
        remedy = f"set {{onnx.exporter}} to {route}, which exports this model"
        if other.opset != plan.opset:
            remedy = (
                f"set {{onnx.opset}} to {other.opset}, with {{onnx.exporter}} auto or"
                f" {route}: the {route} exporter exports this model there"
            )
        return error.advising(remedy, options=["onnx.opset", "onnx.exporter"])
    return error


def _versions(route: str) -> dict[str, str]:
    versions = {"onnx": onnx.__version__}
    if route != DIRECT:
        from checkpoint_release.exporting.tracing import torch_version

        versions["torch"] = torch_version()
    return versions
