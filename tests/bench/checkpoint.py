"""A checkpoint of two gigabytes: how long it takes to become model.safetensors, and in
how much memory.

Runs side by side and round after round, so that a busy disk is busy for all: `cp` of
the file and its sha256, this pipeline's reader and writer alone, its whole stages
`load` (which looks for NaN, and digests both the checkpoint and what it writes) and
`export-safetensors` (which digests its copy), and the usual script (torch.load, then
save_file). Each in a process of its own; time is that of the work, without the
interpreter's start, memory is the peak above an interpreter that has imported what it
needs. Processor time tells more than elapsed time where others use the machine.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.project import Project

OURS = """
import io
from pathlib import Path
from checkpoint_release.tensors import safetensors as safetensors_file
from checkpoint_release.pth import read_checkpoint
class Undigested(io.BufferedWriter):
    entry = None
    def __init__(self, path):
        super().__init__(io.FileIO(path, "wb"))
safetensors_file.DigestedFile = Undigested
def convert(source, target):
    weights = read_checkpoint(Path(source)).value["model_state_dict"]
    safetensors_file.write_safetensors(Path(target), weights, {"format": "pt"})
"""
USUAL = """
import torch
from safetensors.torch import save_file
def convert(source, target):
    save_file(torch.load(source)["model_state_dict"], target, {"format": "pt"})
"""
MEASURED = """
import os, sys, time
from tests.support.watched import peak
def clock():
    return time.perf_counter(), sum(os.times()[:4])
before, begun = peak(), clock()
convert(sys.argv[1], sys.argv[2])
print(*(now - then for now, then in zip(clock(), begun)), (peak() - before) / 1e6)
"""
COPY = """
import subprocess
def convert(source, target):
    subprocess.run(["cp", source, target], check=True)
"""
DIGEST = """
from pathlib import Path
from checkpoint_release.core.files import sha256
def convert(source, target):
    sha256(Path(source))
"""
STAGE = """
import contextlib, os
from pipeline.{stage} import main
def convert(source, target):
    os.chdir("{project}")
    with contextlib.redirect_stdout(None):
        main()
"""
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


def main() -> None:
    """Print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, target = (
            Path(folder) / "checkpoint.pth",
            Path(folder) / "model.safetensors",
        )
        make(source, arguments.megabytes)
        megabytes = source.stat().st_size / 1e6
        project = Project.checkout(Path(folder) / "project")
        project.set(checkpoint__path=str(source), **MODEL)
        ways = {
            "cp": COPY,
            "sha256": DIGEST,
            "read and write": OURS,
            "load": STAGE.format(stage="load", project=project.path),
            "export-safetensors": STAGE.format(
                stage="export_safetensors", project=project.path
            ),
            "torch.load and save_file": USUAL,
        }
        found: dict[str, list[list[float]]] = {way: [] for way in ways}
        for number in range(arguments.rounds):
            for at in range(len(ways)):
                # nobody always comes after the same neighbour
                way = list(ways)[(number + at) % len(ways)]
                # before, as DVC does: new pages cost more than those just freed
                target.unlink(missing_ok=True)
                if way in WRITTEN:
                    shutil.rmtree(
                        project.path / "artifacts" / WRITTEN[way], ignore_errors=True
                    )
                command: list[str | Path] = [
                    sys.executable,
                    "-c",
                    ways[way] + MEASURED,
                    source,
                    target,
                ]
                out = subprocess.run(
                    command, check=True, capture_output=True, text=True
                ).stdout
                found[way].append([float(number) for number in out.split()])
    base = statistics.median(seconds for seconds, *_ in found["cp"])
    print(
        f"a checkpoint of {megabytes:,.0f} MB becomes model.safetensors; medians of"
        f" {arguments.rounds} rounds"
    )
    print(
        f"{'':26}{'seconds':>9}{'of cp':>8}{'processor':>11}{'peak MB':>9}{'of file':>9}"
    )
    for way, runs in found.items():
        seconds, processor, peak = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        print(
            f"{way:26}{seconds:9.2f}{seconds / base:7.2f}×{processor:11.2f}{peak:9.0f}{peak / megabytes:9.3f}"
        )


def make(path: Path, megabytes: int) -> None:
    """A checkpoint of that size: layers of random float32 values, as a model of 500
    million parameters has.
    """
    code = (
        "import sys, torch; torch.manual_seed(0)\nlayers = {f'layer.{n}.weight':"
        " torch.rand(2048, 2048) for n in range(int(sys.argv[2]) //"
        " 16)}\ntorch.save({'model_state_dict': layers, 'epoch': 3}, sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, path, str(megabytes)], check=True)


if __name__ == "__main__":
    main()
