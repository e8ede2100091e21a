"""What small files that ask for much take: memory and time, as shares of what a file of
their size may take (64 MB and four times the file; 1 s and 1 s for each 10 MB).

    python -m tests.bench.hostile [--scales 1 10] [--worst 8]

The time is the processor's, of a process that does nothing else; a share above 1 is
marked. `tests/pth/test_budgets.py` holds the memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.metered import Metered
from tests.support.project import ROOT
from tests.support.tricks import tricks


def main() -> None:
    """Measure, and print the worst."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--worst", type=int, default=8)
    options = parser.parse_args()
    for scale in options.scales:
        with tempfile.TemporaryDirectory() as folder:
            report(scale, measured(scale, Path(folder)), options.worst)


def measured(scale: int, folder: Path) -> dict[str, Metered]:
    """Name → what reading it took."""
    paths = []
    for name, (content, _) in tricks(scale).items():
        (folder / name).write_bytes(content)
        paths.append(str(folder / name))
    command = [sys.executable, "-m", "tests.support.metered", "release", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)
    return {name: Metered(**result) for name, result in results.items()}


def report(scale: int, came: dict[str, Metered], worst: int) -> None:
    """The files with the largest shares of memory, and those of time."""
    print(f"{len(came)} files of scale {scale}")
    print(
        f"{'':40}{'file MB':>9}{'memory MB':>11}{'share':>7}{'seconds':>9}{'share':>7}"
    )
    by_memory = sorted(came, key=lambda name: came[name].memory_share)[-worst:]
    by_time = sorted(came, key=lambda name: came[name].time_share)[-worst:]
    for name in dict.fromkeys([*reversed(by_memory), *reversed(by_time)]):
        one = came[name]
        mark = "  over" if max(one.memory_share, one.time_share) > 1 else ""
        print(
            f"{name:40}{one.size / 1e6:9.2f}{one.memory / 1e6:11.1f}"
            f"{one.memory_share:7.2f}{one.seconds:9.2f}{one.time_share:7.2f}{mark}"
        )


if __name__ == "__main__":
    main()
