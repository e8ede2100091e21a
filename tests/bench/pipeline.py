"""Speed of the whole: a cold `dvc repro` against a script that does the same work.

    python -m tests.bench.pipeline [--sizes medium large] [--rounds 3]

What DVC itself takes to find that nothing changed is measured beside it, on seven
stages of `echo`.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch

from checkpoint_release.models.stick_figure import build
from tests.bench.measuring import MODEL, SIZES
from tests.support.project import ROOT, Project

CHECKPOINT = "checkpoints/bench.pth"
# what is printed → ours, the other, and what is wanted
RATIOS = {
    "cold / script by hand": (
        "cold dvc repro",
        "script by hand",
        "   (wanted: at most 1.5)",
    ),
    "no-op / status": ("no-op dvc repro", "dvc status", "   (at most 1.2)"),
    "the same of seven echoes": ("no-op of seven echoes", "their dvc status", ""),
}


def write_checkpoint(path: Path, kwargs: Mapping[str, float]) -> None:
    """A training checkpoint with random weights."""
    torch.manual_seed(0)
    weights = build(**kwargs).state_dict()
    torch.save({"epoch": 1, "model_state_dict": weights, "train_loss": 0.5}, path)


def seven_echoes(path: Path) -> Project:
    """A pipeline as long as ours in which nothing happens."""
    path.mkdir()
    stages = {}
    for n in range(7):
        stages[f"stage-{n}"] = {
            "cmd": f"echo > {n + 1}",
            "deps": [str(n)],
            "outs": [str(n + 1)],
        }
    (path / "dvc.yaml").write_text(json.dumps({"stages": stages}))
    (path / "0").touch()
    project = Project(path)
    project.git("init", "-q")
    project.dvc("init", "-q")
    project.dvc("repro")
    return project


class Stopwatch:
    """How long commands take, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run(
        self,
        name: str,
        project: Project,
        *command: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        start = time.perf_counter()
        project.run(*command, environment=environment)
        self.seconds[name].append(time.perf_counter() - start)

    def ratio(self, one: str, other: str) -> float:
        """The median of the rounds' ratios: a machine that slows down slows both."""
        pairs = zip(self.seconds[one], self.seconds[other], strict=True)
        return statistics.median(ours / theirs for ours, theirs in pairs)


def bench(size: str, rounds: int, folder: Path) -> None:
    project = Project.checkout(folder / size)
    kwargs = {**MODEL, **SIZES[size]}
    write_checkpoint(project.path / CHECKPOINT, kwargs)
    megabytes = (project.path / CHECKPOINT).stat().st_size / 1e6
    project.set(checkpoint__path=CHECKPOINT)
    idle = seven_echoes(folder / f"{size}-idle")
    out = folder / f"{size}-by-hand"
    out.mkdir()
    script = str(ROOT / "tests/bench/by_hand.py")
    by_hand = (sys.executable, script, CHECKPOINT, str(out), json.dumps(kwargs))
    environment = {"PYTHONPATH": str(project.path), "OMP_NUM_THREADS": "2"}

    watch = Stopwatch()
    for _ in range(rounds):
        watch.run("script by hand", project, *by_hand, environment=environment)
        forget(project.path)
        watch.run("cold dvc repro", project, "dvc", "repro", environment=environment)
        watch.run("no-op dvc repro", project, "dvc", "repro")
        watch.run("dvc status", project, "dvc", "status")
        watch.run("no-op of seven echoes", idle, "dvc", "repro")
        watch.run("their dvc status", idle, "dvc", "status")
        project.set(formats__onnx=False)
        watch.run(
            "one format switched off", project, "dvc", "repro", environment=environment
        )
        project.set(formats__onnx=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"\n{size}: {megabytes:.0f} MB, medians of {rounds}")
    for name, seconds in watch.seconds.items():
        print(f"  {name:<26}{statistics.median(seconds):7.2f} s")
    for name, (ours, theirs, wanted) in RATIOS.items():
        print(f"  {name:<26}{watch.ratio(ours, theirs):7.2f}{wanted}")
    print(f"  peak memory of any child  {peak:7.0f} MB")


def forget(project: Path) -> None:
    """Remove all that DVC knows of earlier runs."""
    for name in (".dvc/cache", ".dvc/tmp", "artifacts"):
        shutil.rmtree(project / name, ignore_errors=True)
    (project / "dvc.lock").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", nargs="+", default=["medium", "large"], choices=SIZES
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            bench(size, options.rounds, Path(folder))


if __name__ == "__main__":
    main()
