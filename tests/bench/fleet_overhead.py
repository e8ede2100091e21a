"""What a fleet costs over its members' own `dvc repro`, and what two workers gain:

    python -m tests.bench.fleet_overhead [--members 6] [--workers 1 2]

By hand, one checkout goes from checkpoint to checkpoint with `dvc repro` and
`dvc push`. The fleet does the same from an empty cache, once with each number of
workers. Wall time says how fast it is, on a quiet machine; processor time of all
processes together holds on a busy one too. What a run takes however many members there
are is printed beside.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from tests.support.fleets import FOLDER, Fleet, fleet_checkout
from tests.support.project import ROOT, Project


class Cost(NamedTuple):
    """What something took, in seconds."""

    wall: float
    processor: float


def cost_of(action: Callable[[], object]) -> Cost:
    """Of an action that waits for all processes it starts."""
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    action()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(time.perf_counter() - begun, processor)


def save_checkpoints(folder: Path, count: int) -> None:
    """Checkpoints of the demo's size, each with other weights."""
    folder.mkdir(parents=True)
    demo = torch.load(ROOT / "checkpoints/demo.pth", weights_only=False)
    weights = demo["model_state_dict"]
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    for step in range(1, count + 1):
        weights[name][0, 0] += 1e-3
        torch.save({**demo, "global_step": step}, folder / f"step-{step}.pth")


def by_hand(project: Project, members: int) -> None:
    """Release one checkpoint after the other in one checkout."""
    for step in range(1, members + 1):
        project.set(checkpoint__path=f"{FOLDER}/step-{step}.pth")
        project.dvc("repro")
        project.dvc("push", "--quiet")


def empty(folder: Path, members: int) -> Fleet:
    """A fleet of which nothing is built."""
    fleet = fleet_checkout(folder, steps=0, params={})
    save_checkpoints(fleet.path / FOLDER, members)
    return fleet


def bench(folder: Path, members: int, workers: list[int]) -> None:
    """Measure, and print."""
    project = Project.checkout(folder / "by-hand/project")
    save_checkpoints(project.path / FOLDER, members)
    alone = cost_of(lambda: by_hand(project, members))
    print(f"{members} members of the demo's size; a run's start is {fixed(folder)}")
    print(f"by hand       {alone.wall:7.1f} s wall  {alone.processor:7.1f} s processor")
    walls = {}
    for count in workers:
        fleet = empty(folder / f"workers-{count}", members)
        cost = cost_of(partial(fleet.command, "run", "--cluster", f"local:{count}"))
        walls[count] = cost.wall
        print(
            f"{count} workers     {cost.wall:7.1f} s wall  {cost.processor:7.1f} s"
            f" processor; over by hand: {cost.wall / alone.wall - 1:+.0%} wall,"
            f" {cost.processor / alone.processor - 1:+.0%} processor"
        )
    if 1 in walls:
        for count, wall in walls.items():
            print(f"rate of {count} over that of one: {walls[1] / wall:.2f}")


def fixed(folder: Path) -> str:
    """What a run takes around its members: one whose only member is bad at once."""
    fleet = fleet_checkout(folder / "start", steps=0, params={})
    (fleet.path / FOLDER).mkdir()
    (fleet.path / FOLDER / "step-1.pth").write_bytes(b"no checkpoint")
    run = ("run", "--cluster", "local:1")
    cost = cost_of(lambda: fleet.command(*run, check=False))
    return f"{cost.wall:.1f} s wall, {cost.processor:.1f} s processor"


def main() -> None:
    """Measure as asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=6)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench(Path(folder), asked.members, asked.workers)


if __name__ == "__main__":
    main()
