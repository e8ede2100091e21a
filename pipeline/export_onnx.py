"""Stage export-onnx: the checkpoint as ONNX, at exactly the opset that was asked for.

    python -m pipeline.export_onnx

Reads artifacts/checkpoint; writes artifacts/onnx: model.onnx (past 2 GB with
model.onnx.data), the variants that params.yaml asks for, and config.json. torch is
imported only where the model has no ONNX graph of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.params import OnnxParams, load_params
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.exporting.shape_check import Run
from checkpoint_release.onnx.check import check_onnx
from checkpoint_release.onnx.clean import finish
from checkpoint_release.onnx.file import write_onnx
from checkpoint_release.onnx.routes import Exported, Weights, export, plan
from checkpoint_release.onnx.variants import make_variant


def main() -> None:
    """Write artifacts/onnx."""
    params = load_params()
    target = stage.ARTIFACTS / "onnx"
    if params.formats.onnx:
        export_onnx(stage.ARTIFACTS / "checkpoint", params.onnx, target)
    else:
        with artifact_folder(target) as folder:
            write_manifest(folder, "onnx", enabled=False)


def export_onnx(source: Path, params: OnnxParams, target: Path) -> None:
    """Write, check and describe the ONNX files.

    Args:
        source: the folder that `load` wrote.
        params: the onnx section.
        target: the folder to replace, whole or not at all.

    Raises:
        OpsetError: the opset or IR version can't be had; raised before any work.
        ExportError: no route can export the model, or what was written isn't what was
            asked for.
    """
    checkpoint = CheckpointFolder.open(source)
    request = Request(source, checkpoint.architecture, params)
    routes, ir_version = plan(params, request.architecture)
    with artifact_folder(target) as folder:
        route, exported = _first_that_works(routes, request, ir_version, folder)
        facts: dict[str, Any] = {
            "opset": params.opset,
            "ir_version": ir_version,
            "exporter": route,
            "nodes": len(exported.model.graph.node),
            "versions": _versions(route),
            "variants": [],
        }
        for precision in params.variants:
            variant = make_variant(precision, exported.model, exported.weights)
            finish(
                variant.model,
                ir_version=ir_version,
                facts=_metadata(request, route) | {"precision": precision},
            )
            _write(
                folder / variant.file,
                variant.model,
                variant.weights,
                request,
                ir_version,
            )
            facts["variants"].append({"file": variant.file, "precision": precision})
        model_config(checkpoint.facts).write(folder)
        manifest = write_manifest(
            folder, "onnx", made_from=checkpoint.manifest().sha256s, facts=facts
        )
    size = sum(entry.size for entry in manifest.files.values()) / 1e6
    print(
        f"{target}: opset {params.opset}, IR version {ir_version}, {facts['nodes']}"
        f" nodes, {size:,.1f} MB ({route})"
    )


@dataclass(frozen=True)
class Request:
    """What is to be exported, and how."""

    source: Path
    architecture: Architecture
    params: OnnxParams


def _first_that_works(
    routes: list[str], request: Request, ir_version: int, folder: Path
) -> tuple[str, Exported]:
    """Export by the first route whose file passes its check; what a general route can
    do shows only when it is tried.

    Raises:
        ExportError: none does.
    """
    failures = []
    for route in routes:
        try:
            exported = export(route, request.source, request.params)
            finish(
                exported.model, ir_version=ir_version, facts=_metadata(request, route)
            )
            _write(
                folder / "model.onnx",
                exported.model,
                exported.weights,
                request,
                ir_version,
                exported.eager,
            )
        except ExportError as error:
            failures.append(error)
            for left in folder.iterdir():
                left.unlink()
        else:
            return route, exported
    if len(failures) == 1:
        raise failures[0]
    raise ExportError(
        "; ".join(error.problem for error in failures), failures[-1].remedy
    )


def _write(
    file: Path,
    model: ModelProto,
    weights: Weights,
    request: Request,
    ir_version: int,
    eager: Run | None = None,
) -> None:
    write_onnx(file, model, weights)
    check_onnx(
        file, request.architecture.signature, request.params.opset, ir_version, eager
    )


def _metadata(request: Request, route: str) -> dict[str, str]:
    """What the file says of itself; with its signature it can be used alone."""
    return {
        "exporter": route,
        "signature": json.dumps(
            request.architecture.signature.to_json(), ensure_ascii=False
        ),
    }


def _versions(route: str) -> dict[str, str]:
    versions = {"onnx": onnx.__version__}
    if route != "direct":
        import torch

        # not what the machine has
        versions["torch"] = torch.__version__.partition("+")[0]
    return versions


if __name__ == "__main__":
    stage.run(main)
