"""Exports of a checkpoint, by the library or by a stage, and how far they are off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT, CheckpointFolder
from checkpoint_release.core.artifacts.formats import FORMATS, TORCH_EXPORT, TORCHSCRIPT
from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.config_json import model_config
from checkpoint_release.onnx.export import OnnxExport, export_onnx
from checkpoint_release.runtimes.open import open_runtime
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.project import ROOT, Project
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import sizes_of

TORCH_FORMATS = [TORCHSCRIPT.name, TORCH_EXPORT.name]
FIGURE_INPUTS = ["motion", "text_embedding", "action_sequence"]


def write_figure(folder: Path) -> Path:
    """Write the checkpoint of a small stick figure; returns its folder."""
    architecture = stick_figure(inputs=FIGURE_INPUTS)
    return write_checkpoint(folder, architecture, state_dict(architecture))


def export_to_onnx(checkpoint: Path, folder: Path, **options: Any) -> OnnxExport:
    """Write ONNX files to a new folder, at opset 17 unless the options name another."""
    folder.mkdir(parents=True)
    options = {"opset": 17, **options}
    return export_onnx(
        CheckpointFolder.open(checkpoint, OWN_ARTIFACTS), folder, **options
    )


def export_with_torch(format: str, checkpoint: Path, folder: Path) -> Path:
    """Write one of torch's own formats to a new folder; returns its file."""
    from checkpoint_release.exporting.torch_export import write_torch_export
    from checkpoint_release.exporting.torchscript import write_torchscript
    from checkpoint_release.exporting.tracing import Traceable

    folder.mkdir(parents=True)
    write = write_torchscript if format == TORCHSCRIPT.name else write_torch_export
    opened = CheckpointFolder.open(checkpoint, OWN_ARTIFACTS)
    config = model_config(opened)
    file = folder / FORMATS[format].file
    write(Traceable.open(opened), file, config.text())
    config.write(folder)
    return file


def run_stage(
    main: Callable[[], None], folder: Path, checkpoint: Path, **params: Any
) -> Path:
    """Run a stage in a folder of its own; returns its artifacts.

    Args:
        main: the stage's.
        folder: the folder.
        checkpoint: stands for artifacts/checkpoint.
        params: changes of params.yaml, as Project.set takes them.
    """
    prepare_stage(folder, checkpoint, **params)
    with chdir(folder):
        main()
    return folder / "artifacts"


def prepare_stage(folder: Path, checkpoint: Path, **params: Any) -> None:
    """Lay out what a stage reads: params.yaml and artifacts/checkpoint."""
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    Project(folder).set(**params)
    link = artifacts / CHECKPOINT
    link.unlink(missing_ok=True)
    link.symlink_to(checkpoint.resolve())


def largest_error(format: str, checkpoint: Path, artifact: Path, **sizes: int) -> float:
    """How far an export is off the eager model, relative to the largest value of each
    output.
    """
    eager = open_runtime("checkpoint", checkpoint, trust=OWN_ARTIFACTS)
    runtime = open_runtime(format, artifact, trust=OWN_ARTIFACTS)
    inputs = sample_inputs(
        runtime.signature, sizes_of(runtime.signature, **sizes), seed=3
    )
    expected, outputs = eager.run(inputs), runtime.run(inputs)
    assert list(expected) == list(outputs)
    errors = []
    for name, array in expected.items():
        error = np.abs(outputs[name] - array).max() / np.abs(array).max()
        errors.append(float(error))
    return max(errors)
