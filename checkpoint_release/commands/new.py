"""checkpoint-release new: write a pipeline into a folder of one's own.

checkpoint-release new release
checkpoint-release new release --checkpoint runs/best.pth --factory tagger.net:build
checkpoint-release new release --update

The folder may be new, or a subfolder of a git repository. Where the pipeline is there
already, what would change is shown, and --update changes it; what was edited stays.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.commands.asking import add_model_arguments, asked_for

if TYPE_CHECKING:
    from checkpoint_release.project.update import Plan

SUMMARY = "write a pipeline into a folder of your own, or show what would change in it"
_MARKS = {"add": "add", "change": "change", "extend": "extend", "keep": "keep, edited"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("folder", help="the project's folder; made if it isn't there")
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="the checkpoint (checkpoint.path)"
    )
    parser.add_argument(
        "--repo-id", metavar="NAME", help="organisation/name on the Hub to publish to"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--update",
        action="store_true",
        help="change a project that is there already; what was edited stays",
    )


def run(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Write the project, or show what would change in it.

    Raises:
        CheckpointReleaseError: an option is wrong, or files are in the way.
    """
    from checkpoint_release.project.create import begin, plan_project

    folder = Path(os.path.normpath(Path.cwd() / asked.folder))
    options = asked_for(asked, asked.checkpoint, asked.repo_id)
    plan, exists = plan_project(folder, options)
    if exists:
        return _over_older(plan, asked)
    notes = begin(plan)
    print(f"{asked.folder}: {len(plan.files)} files")
    for change in plan.changes:
        print(f"  {change.path}")
    for note in notes:
        print(f"  and {note}")
    print(f"next: cd {asked.folder} && pip install -r requirements.txt && dvc repro")
    return 0


def _over_older(plan: Plan, asked: argparse.Namespace) -> int:
    """Show what would change in a project; change it where that is asked for."""
    if not plan.changes:
        print(f"{asked.folder}: nothing to change")
        return 0
    for change in plan.changes:
        print(f"{_MARKS[change.action]}: {change.path}")
    for change in plan.changes:
        if change.action != "add":
            print(f"\n{change.diff()}", end="")
    if asked.update:
        plan.apply()
        print(f"\n{asked.folder}: updated to checkpoint-release {plan.version}")
    else:
        print("\nnothing was changed; --update does it, and keeps what was edited")
    return 0
