"""Stage export-onnx: the checkpoint as ONNX, at exactly the opset that was asked for.

    python -m pipeline.export_onnx

Reads artifacts/checkpoint; writes artifacts/onnx: model.onnx (past 2 GB with
model.onnx.data), the variants that params.yaml asks for, also of fixed shapes, and
config.json. torch is imported only where the model has no ONNX graph of its own.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from checkpoint_release.core import stage
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT, CheckpointFolder
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.manifest import Manifest, write_manifest
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.params import OnnxParams, load_params
from checkpoint_release.core.sources import make_importable
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.onnx.export import export_onnx


def main() -> None:
    """Write artifacts/onnx."""
    params = load_params()
    make_importable(params.model)
    target = stage.ARTIFACTS / ONNX.name
    with artifact_folder(target) as folder:
        if not params.formats.onnx:
            write_manifest(folder, ONNX.name, enabled=False)
            return
        manifest = _write(folder, params.onnx)
    print(f"{target}: {_summary(manifest)}")


def _write(folder: Path, params: OnnxParams) -> Manifest:
    """Write the files, config.json and the manifest."""
    checkpoint = CheckpointFolder.open(stage.ARTIFACTS / CHECKPOINT, OWN_ARTIFACTS)
    exported = export_onnx(
        checkpoint,
        folder,
        opset=params.opset,
        exporter=params.exporter,
        ir_version=params.ir_version,
        variants=params.variants,
        fixed=params.fixed,
    )
    model_config(checkpoint).write(folder)
    return write_manifest(
        folder,
        ONNX.name,
        made_from=checkpoint.manifest().sha256s,
        facts=asdict(exported),
    )


def _summary(manifest: Manifest) -> str:
    facts = manifest.facts
    return (
        f"opset {facts['opset']}, IR version {facts['ir_version']},"
        f" {facts['nodes']} nodes, {manifest.size / 1e6:,.1f} MB"
        f" ({facts['exporter']})"
    )


if __name__ == "__main__":
    stage.run(main)
