"""What the benches share: ways that take turns in processes of their own, and medians.

A way is measured by a module of this package, run as a script that prints its figures
as one JSON object on its last line.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.support.project import ROOT

Figures = dict[str, float]

MODEL = {
    "input_dim": 48,
    "output_dim": 48,
    "embedding_dim": 1024,
    "num_actions": 64,
    "dropout": 0.1,
}
SIZES = {
    "tiny": {"d_model": 32, "num_layers": 2, "nhead": 4},
    "small": {"d_model": 256, "num_layers": 6, "nhead": 8},
    "medium": {"d_model": 384, "num_layers": 8, "nhead": 12},
    "large": {"d_model": 512, "num_layers": 10, "nhead": 16},
}


def in_own_process(script: str, *arguments: str | Path) -> Figures:
    """Run `tests.bench.<script>` in a process of its own; returns what it measured."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.bench.{script}", *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def take_turns(
    ways: Iterable[str], rounds: int, measure: Callable[[str, int], Figures]
) -> dict[str, Figures]:
    """Measure each way once a round, and return the medians of its figures.

    A busy minute hits all ways alike, and in each round another way begins, so that
    none always comes after the same neighbour.

    Args:
        ways: their names.
        rounds: how often each is measured.
        measure: a way and the number of the round → its figures.
    """
    order = list(ways)
    runs: dict[str, list[Figures]] = {way: [] for way in order}
    for number in range(rounds):
        for way in order:
            runs[way].append(measure(way, number))
        order = [*order[1:], order[0]]
    return {way: median(figures) for way, figures in runs.items()}


def median(runs: list[Figures]) -> Figures:
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}
