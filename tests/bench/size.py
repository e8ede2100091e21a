"""What a large checkpoint takes: memory, disk and time, stage by stage.

    python -m tests.bench.size [--megabytes 1500] [--wrappings pth shards dcp zero]
        [--alone load export_safetensors …] [--stages load …]

First each wrapping on its way through `load`, `export-safetensors` and the direct route
of `export-onnx`, or the stages that are named; memory is that above what a stage's
imports take, and what files are mapped counts. Then `dvc repro` through all stages,
with the whole family of processes (DVC's own, some 60 MB, included) and all that the
project's folder holds. Beside them: `cp` and `sha256sum` of the checkpoint.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict_saver import save as save_distributed

from checkpoint_release.models.stick_figure import build
from tests.bench.measuring import MODEL
from tests.bench.watching import Peaks, watch
from tests.support.project import Project
from tests.support.zero_files import save_zero

LAYER = 68e6  # bytes of one layer, of which a model has as many as it takes
WIDTH = {"d_model": 1024, "nhead": 16}
STREAMED = ("load", "export_safetensors", "export_onnx")
ALONE = (*STREAMED, "export_torchscript")
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


def write_pth(path: Path, weights: Weights) -> None:
    torch.save({"epoch": 1, "model_state_dict": dict(weights)}, path)


def write_shards(path: Path, weights: Weights) -> None:
    from huggingface_hub import save_torch_state_dict

    path.mkdir()
    save_torch_state_dict(dict(weights), path, max_shard_size="300MB")


def write_dcp(path: Path, weights: Weights) -> None:
    save_distributed({"model": dict(weights)}, checkpoint_id=path, no_dist=True)


def write_zero(path: Path, weights: Weights) -> None:
    trained = {name: each for name, each in weights.items() if each.is_floating_point()}
    save_zero(path, 3, 4, trained)


WRAPPINGS = {
    "pth": write_pth,
    "shards": write_shards,
    "dcp": write_dcp,
    "zero": write_zero,
}
NAMES = {"pth": "model.pth", "shards": "shards", "dcp": "distributed", "zero": "zero"}


def write_model(folder: Path, layers: int) -> None:
    """Write a model of so many layers as model.pth."""
    torch.manual_seed(0)
    path = folder / NAMES["pth"]
    write_pth(path, build(**MODEL, **WIDTH, num_layers=layers).state_dict())


def wrap(wrapping: str, folder: Path) -> None:
    """Write the weights of model.pth in another wrapping."""
    loaded = torch.load(folder / NAMES["pth"], mmap=True)
    WRAPPINGS[wrapping](folder / NAMES[wrapping], loaded["model_state_dict"])


def in_another_process(work: Callable[..., None], *arguments: Any) -> None:
    """Do something whose memory mustn't stay in this process."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"writing the checkpoint failed with {process.exitcode}")


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


def stream(project: Project, path: Path, stages: Sequence[str]) -> None:
    """Stages without DVC, each in a process of its own; what one exported goes before
    the next one runs.
    """
    project.set(checkpoint__path=str(path))
    size = size_of(path)
    shutil.rmtree(project.path / "artifacts", ignore_errors=True)
    for stage in stages:
        imports = f"import time, pipeline.{stage}; time.sleep(0.5)"
        idle = watch([sys.executable, "-c", imports], project.path).memory
        peaks = watch([sys.executable, "-m", f"pipeline.{stage}"], project.path)
        print_row(f"{path.name}: {stage}", peaks, size, idle)
        _, exports, format = stage.partition("export_")
        if exports:
            shutil.rmtree(project.path / "artifacts" / format)


def reproduce(project: Project, path: Path, stages: Sequence[str]) -> None:
    """All stages, by DVC, from nothing; disk is what the folder holds at the peak."""
    project.set(checkpoint__path=str(path))
    project.run(sys.executable, "-m", "checkpoint_release.core.dvc_files")
    shutil.rmtree(project.path / "artifacts", ignore_errors=True)
    (project.path / "dvc.lock").unlink(missing_ok=True)
    size, before = size_of(path), 0
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": programs, "DVC_NO_ANALYTICS": "1"}
    highest = 0
    for stage in stages:
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
    parser.add_argument("--megabytes", type=int, default=1500)
    parser.add_argument("--wrappings", nargs="+", default=WRAPPINGS, choices=WRAPPINGS)
    parser.add_argument("--alone", nargs="+", default=STREAMED, choices=ALONE)
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES)
    options = parser.parse_args()
    layers = max(1, round(options.megabytes * 1e6 / LAYER))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_another_process(write_model, folder, layers)
        path = folder / NAMES["pth"]
        project = Project.checkout(folder / "project")
        print_head(size_of(path))
        print_row("cp", watch(["cp", path, folder / "copy"], folder), size_of(path))
        (folder / "copy").unlink()
        print_row("sha256sum", watch(["sha256sum", path], folder), size_of(path))
        for wrapping in options.wrappings:
            wrapped = folder / NAMES[wrapping]
            if wrapped != path:
                in_another_process(wrap, wrapping, folder)
            stream(project, wrapped, options.alone)
            if wrapped != path:
                shutil.rmtree(wrapped)
        if options.stages:
            reproduce(project, path, options.stages)


if __name__ == "__main__":
    main()
