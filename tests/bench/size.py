"""What a large checkpoint takes: memory, disk and time, stage by stage.

    python -m tests.bench.size [--megabytes 1100] [--wrappings pth shards dcp zero]

First each wrapping on its way through `load`, `export-safetensors` and the direct route
of `export-onnx`; memory is that above what a stage's imports take, and what files are
mapped counts. Then `dvc repro` through all stages, with the whole family of processes
(DVC's own, some 60 MB, included) and all that the project's folder holds. Beside them:
`cp` and `sha256sum` of the checkpoint.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from checkpoint_release.models.stick_figure import build
from tests.bench.measuring import MODEL
from tests.bench.watching import Peaks, watch
from tests.support.project import Project
from tests.support.zero_files import save_zero

LAYER = 50.4e6  # bytes of one layer, of which a model has as many as it takes
WIDTH = {"d_model": 1024, "nhead": 16}
STREAMED = ("load", "export_safetensors", "export_onnx")
STAGES = (
    "load",
    "export-safetensors",
    "export-onnx",
    "export-torchscript",
    "parity-check",
    "model-card",
    "publish",
)
Weights = Mapping[str, torch.Tensor]


def write_pth(folder: Path, weights: Weights) -> Path:
    path = folder / "model.pth"
    torch.save({"epoch": 1, "model_state_dict": dict(weights)}, path)
    return path


def write_shards(folder: Path, weights: Weights) -> Path:
    from huggingface_hub import save_torch_state_dict

    path = folder / "shards"
    path.mkdir()
    save_torch_state_dict(dict(weights), path, max_shard_size="300MB")
    return path


def write_dcp(folder: Path, weights: Weights) -> Path:
    path = folder / "distributed"
    save_distributed({"model": dict(weights)}, checkpoint_id=path, no_dist=True)
    return path


def write_zero(folder: Path, weights: Weights) -> Path:
    path = folder / "zero"
    trained = {name: each for name, each in weights.items() if each.is_floating_point()}
    save_zero(path, 3, 4, trained)
    return path


WRAPPINGS = {
    "pth": write_pth,
    "shards": write_shards,
    "dcp": write_dcp,
    "zero": write_zero,
}


def size_of(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files)


def print_row(name: str, peaks: Peaks, size: int, idle: int = 0) -> None:
    memory, private = max(0, peaks.memory - idle), max(0, peaks.private - idle)
    print(
        f"{name:34}{peaks.seconds:8.1f}{peaks.processor:8.1f}"
        f"{memory / 1e6:9.0f}{memory / size:7.2f}{private / size:7.2f}"
        f"{peaks.disk / size:7.2f}{peaks.left / size:7.2f}",
        flush=True,
    )


def print_head(size: int) -> None:
    print(f"\nN is {size / 1e6:,.0f} MB; the last four columns are shares of it")
    print(
        f"{'':34}{'seconds':>8}{'CPU s':>8}{'peak MB':>9}{'peak':>7}{'own':>7}"
        f"{'disk':>7}{'left':>7}"
    )


def stream(project: Project, path: Path) -> None:
    """The stages that read and write piece by piece, each in a process of its own."""
    project.set(checkpoint__path=str(path))
    size = size_of(path)
    shutil.rmtree(project.path / "artifacts", ignore_errors=True)
    for stage in STREAMED:
        imports = f"import time, pipeline.{stage}; time.sleep(0.5)"
        idle = watch([sys.executable, "-c", imports], project.path).memory
        peaks = watch([sys.executable, "-m", f"pipeline.{stage}"], project.path)
        print_row(f"{path.name}: {stage}", peaks, size, idle)


def reproduce(project: Project, path: Path) -> None:
    """All stages, by DVC, from nothing; disk is what the folder holds at the peak."""
    project.set(checkpoint__path=str(path))
    project.run(sys.executable, "-m", "checkpoint_release.core.dvc_files")
    shutil.rmtree(project.path / "artifacts", ignore_errors=True)
    (project.path / "dvc.lock").unlink(missing_ok=True)
    size, before = size_of(path), 0
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": programs, "DVC_NO_ANALYTICS": "1"}
    highest = 0
    for stage in STAGES:
        command = ["dvc", "repro", "--single-item", stage]
        peaks = watch(command, project.path, environment)
        highest = max(highest, before + peaks.disk)
        before += peaks.left
        peaks.disk, peaks.left = highest, before
        print_row(f"dvc repro: {stage}", peaks, size)


def main() -> None:
    """Measure, and print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1100)
    parser.add_argument("--wrappings", nargs="+", default=WRAPPINGS, choices=WRAPPINGS)
    options = parser.parse_args()
    layers = max(1, round(options.megabytes * 1e6 / LAYER))
    torch.manual_seed(0)
    weights = build(**MODEL, **WIDTH, num_layers=layers).state_dict()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_pth(folder, weights)
        project = Project.checkout(folder / "project")
        print_head(size_of(path))
        print_row("cp", watch(["cp", path, folder / "copy"], folder), size_of(path))
        (folder / "copy").unlink()
        print_row("sha256sum", watch(["sha256sum", path], folder), size_of(path))
        for wrapping in options.wrappings:
            wrapped = WRAPPINGS[wrapping](folder, weights)
            stream(project, wrapped)
            if wrapped != path:
                shutil.rmtree(wrapped)
        del weights
        reproduce(project, path)


if __name__ == "__main__":
    main()
