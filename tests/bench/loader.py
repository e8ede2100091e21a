"""Load time and memory of each format, beside torch.load of the same weights.

    python -m tests.bench.loader [--size large] [--rounds 5]

Each figure comes from a process of its own, in which the library is imported and the
file in the page cache before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.bench.load_way import WAYS
from tests.bench.measuring import MODEL, SIZES, Figures, in_own_process, take_turns
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import FILES, write_tiny_release


def main() -> None:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    architecture = stick_figure({**MODEL, **SIZES[options.size]})
    kwargs = json.dumps(architecture.kwargs)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_release(Path(folder), architecture)
        megabytes = (Path(folder) / FILES["safetensors"]).stat().st_size / 1e6
        medians = take_turns(
            WAYS,
            options.rounds,
            lambda way, number: in_own_process("load_way", way, folder, kwargs),
        )
    print(
        f"{options.size}: {megabytes:.0f} MB of weights, medians of {options.rounds}"
        " processes each"
    )
    print_medians(medians)


def print_medians(medians: Mapping[str, Figures]) -> None:
    print(f"{'':32} {'milliseconds':>12} {'MB after':>9} {'MB after a run':>15}")
    for way, figures in medians.items():
        after_run = ""
        if "held after a run" in figures:
            after_run = f"{figures['held after a run'] / 1e6:15.0f}"
        print(
            f"{way:32} {1000 * figures['seconds']:12.1f}"
            f" {figures['held'] / 1e6:9.0f} {after_run}"
        )
    for way in ("torch.load", "torch.load into a model"):
        for other in ("safetensors load_file", "load safetensors"):
            factor = medians[way]["seconds"] / medians[other]["seconds"]
            print(f"{other} takes 1/{factor:.1f} of the time of {way}")


if __name__ == "__main__":
    main()
