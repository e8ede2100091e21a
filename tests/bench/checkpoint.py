"""How long a checkpoint of two gigabytes takes to become model.safetensors.

    python -m tests.bench.checkpoint [--megabytes 2048] [--rounds 5]

Side by side: `cp` of the file and its sha256, this project's reader and writer alone,
the whole stages `load` (which looks for NaN, and digests both the checkpoint and what
it writes) and `export-safetensors` (which digests its copy), and the usual script
(torch.load, then save_file). Each runs in a process of its own; time is that of the
work, without the interpreter's start. Processor time says more than elapsed time where
others use the machine.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.bench.conversion import KEY, WAYS
from tests.bench.measuring import Figures, in_own_process, take_turns
from tests.support.project import Project

WRITTEN = {"load": "checkpoint", "export-safetensors": "safetensors"}
# Of a model that is nobody's: the stages before the exports don't build it.
MODEL = {
    "model__factory": "builtins:dict",
    "model__source": "checkpoint_release/models/__init__.py",
    "model__inputs": None,
    "model__signature": {
        "inputs": [{"name": "x", "shape": ["batch", 2048]}],
        "outputs": [{"name": "y"}],
    },
}


@dataclass(frozen=True)
class Conversions:
    """A checkpoint in a folder, and a project that reads it."""

    folder: Path
    project: Project

    @classmethod
    def prepare(cls, folder: Path, megabytes: int) -> Conversions:
        source = folder / "checkpoint.pth"
        write_checkpoint(source, megabytes)
        project = Project.checkout(folder / "project")
        project.set(checkpoint__path=str(source), **MODEL)
        return cls(folder, project)

    @property
    def source(self) -> Path:
        return self.folder / "checkpoint.pth"

    def measure(self, way: str, _number: int) -> Figures:
        # before, as DVC does: new pages cost more than those just freed
        target = self.folder / "model.safetensors"
        target.unlink(missing_ok=True)
        if way in WRITTEN:
            target = self.project.path
            shutil.rmtree(target / "artifacts" / WRITTEN[way], ignore_errors=True)
        return in_own_process("conversion", way, self.source, target)


def write_checkpoint(path: Path, megabytes: int) -> None:
    """Layers of random float32 values, as a model of 500 million parameters has."""
    torch.manual_seed(0)
    layers = {}
    for number in range(megabytes // 16):
        layers[f"layer.{number}.weight"] = torch.rand(2048, 2048)
    torch.save({KEY: layers, "epoch": 3}, path)


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        conversions = Conversions.prepare(Path(folder), options.megabytes)
        size = conversions.source.stat().st_size
        medians = take_turns(WAYS, options.rounds, conversions.measure)
    print(
        f"a checkpoint of {size / 1e6:,.0f} MB becomes model.safetensors; medians of"
        f" {options.rounds} rounds"
    )
    print_medians(medians, size)


def print_medians(medians: Mapping[str, Figures], size: int) -> None:
    print(
        f"{'':26}{'seconds':>9}{'of cp':>8}{'processor':>11}{'peak MB':>9}"
        f"{'of file':>9}"
    )
    base = medians["cp"]["seconds"]
    for way, figures in medians.items():
        seconds, peak = figures["seconds"], figures["peak"]
        print(
            f"{way:26}{seconds:9.2f}{seconds / base:7.2f}×{figures['processor']:11.2f}"
            f"{peak / 1e6:9.0f}{peak / size:9.3f}"
        )


if __name__ == "__main__":
    main()
