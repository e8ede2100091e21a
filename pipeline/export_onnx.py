"""Stage export-onnx: the checkpoint as ONNX, at exactly the opset that was asked for.

    python -m pipeline.export_onnx

Reads artifacts/checkpoint; writes artifacts/onnx: model.onnx (past 2 GB with model.onnx.data), the variants that
params.yaml asks for, and config.json. torch is imported only where the model has no ONNX graph of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import stage
from pipeline.config import model_config
from pipeline.errors import ExportError
from pipeline.files import artifact_folder, read_json, write_json, write_manifest
from pipeline.files import sha256 as digest
from pipeline.params import OnnxParams, load_params


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
    """Write, verify and describe the ONNX files.

    Args:
        source: the folder that `load` wrote.
        params: the onnx section.
        target: the folder to replace, whole or not at all.

    Raises:
        OpsetError: the opset or IR version can't be had; raised before any work.
        ExportError: no route can export the model, or what was written isn't what was asked for.
    """
    from pipeline.models import Architecture
    from pipeline.onnx_check import check_onnx
    from pipeline.onnx_clean import finish
    from pipeline.onnx_file import write_onnx
    from pipeline.onnx_routes import plan
    from pipeline.onnx_variants import make_variant

    checkpoint = read_json(source / "checkpoint.json")
    architecture = Architecture.from_json(checkpoint["model"])
    routes, ir_version = plan(params, architecture)
    with artifact_folder(target) as folder:
        file = folder / "model.onnx"
        route, exported = _first_that_works(routes, source, params)
        config = model_config(checkpoint)
        model = finish(exported.model, ir_version=ir_version, facts={"exporter": route})
        write_onnx(file, model, exported.weights)
        check_onnx(file, architecture.signature, params.opset, ir_version, exported.eager)
        facts: dict[str, Any] = {
            "opset": params.opset,
            "ir_version": ir_version,
            "exporter": route,
            "nodes": len(model.graph.node),
            "variants": [],
        }
        for precision in params.variants:
            variant = make_variant(precision, model, exported.weights)
            smaller = finish(variant.model, ir_version=ir_version, facts={"exporter": route, "precision": precision})
            write_onnx(folder / variant.file, smaller, variant.weights)
            check_onnx(folder / variant.file, architecture.signature, params.opset, ir_version)
            facts["variants"].append({"file": variant.file, "precision": precision})
        write_json(folder / "config.json", config)
        write_manifest(
            folder,
            "onnx",
            made_from={name: digest(source / name) for name in ("checkpoint.json", "weights.safetensors")},
            facts=facts,
        )


def _first_that_works(routes: list[str], source: Path, params: OnnxParams) -> tuple[str, Any]:
    from pipeline.onnx_routes import export

    failures = []
    for route in routes:
        try:
            return route, export(route, source, params)
        except ExportError as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    raise ExportError("\n".join(error.problem for error in failures), failures[-1].remedy)


if __name__ == "__main__":
    stage.run(main)
