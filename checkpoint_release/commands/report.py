"""checkpoint-release report: draw what the pipeline made as one HTML file.

checkpoint-release report
checkpoint-release report --out /tmp/report.html

Run it in the folder of the pipeline, after `dvc repro`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checkpoint_release.core.errors import ArtifactError, CheckpointReleaseError

SUMMARY = "draw what the pipeline made as one HTML file, to be read offline"
FILE = "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=Path("artifacts"),
        metavar="FOLDER",
        help="what the pipeline wrote (default: artifacts)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"where to write the report (default: {FILE} among the artifacts)",
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Write the report, and what `dvc plots show` needs to draw offline.

    Raises:
        ArtifactError: there are no artifacts, or one isn't as it was written.
    """
    if not asked.artifacts.is_dir():
        raise ArtifactError(
            f"{asked.artifacts} is no folder",
            "run this where `dvc repro` runs, or name the folder with {artifacts}",
            options=["artifacts"],
        )
    from checkpoint_release.report.plots_library import write_plots_library
    from checkpoint_release.report.write import write_report

    out = asked.out or asked.artifacts / FILE
    size = write_report(out, Path(), asked.artifacts, _checkpoint())
    print(f"{out}: {size:,} bytes, for a browser; it needs no network")
    if write_plots_library(Path(".dvc")):
        print("`dvc plots show` now draws offline")
    return 0


def _checkpoint() -> Path | None:
    """The checkpoint that params.yaml names; None where it names none that is read."""
    from checkpoint_release.core.params import load_params

    try:
        return Path(load_params().checkpoint.path)
    except CheckpointReleaseError:
        return None
