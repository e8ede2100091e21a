"""Every stage of the pipeline once, in a folder that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointReleaseError, ParamsError
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.trust import is_own_factory
from checkpoint_release.core.yaml_text import parse_yaml
from checkpoint_release.project.settings import Asked, check_options
from checkpoint_release.project.template import project_files
from checkpoint_release.project.update import PARAMS

RELEASE = Path("artifacts/release")
SCRATCH = "scratch"
DEFAULT_FACTORY = "checkpoint_release.models.stick_figure:build"
_NEEDED = ("params.yaml", "constraints.txt", "pipeline/", "checkpoints/")
_OF_A_PROJECT = ("DVC_STAGE", "DVC_ROOT", "PYTHONSAFEPATH")


def convert(asked: Asked, output: Path) -> int:
    """Release a checkpoint into a folder.

    Args:
        asked: what to release, and how.
        output: the folder; missing, or empty.

    Returns:
        The exit code: 0, or 1 where a stage failed. It has reported why, the folder is
        as it was, and files to look into are in a folder beside it.

    Raises:
        ParamsError: an option is wrong, or a path leads nowhere.
        CheckpointReleaseError: the folder isn't free.
    """
    _require_free(output)
    # the folder's name doesn't matter: all paths are absolute
    options = asked.options(Path.cwd(), absolute=True)
    if options.get("model.factory") is None:
        options["model.factory"] = DEFAULT_FACTORY
    if options.get("publish.repo_id") is not None:
        raise ParamsError(
            "publish.repo_id is set, and convert publishes nothing: its receipt would"
            " be lost",
            "make a project with checkpoint-release new, or leave it out",
        )
    files = project_files(options)
    check_options(files[PARAMS], factory_given=True)
    target = output.absolute()
    try:
        with artifact_folder(target) as folder:
            _release(files, folder, target)
    except StageFailedError as failure:
        print(f"no release: {failure}, as it says above", file=sys.stderr)
        return 1
    factory = str(options["model.factory"])
    trust = "" if is_own_factory(factory) else f" --trust {factory}"
    print(f"{output}: the release; checkpoint-release verify {output}{trust} checks it")
    return 0


class StageFailedError(Exception):
    """A stage reported an error and ended; the message names it."""


def _require_free(output: Path) -> None:
    """Make sure that the folder may become the release.

    Raises:
        CheckpointReleaseError: it holds something, or is a file.
    """
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists():
        raise CheckpointReleaseError(
            f"{output} is there already, and is no empty folder",
            "name another folder, or remove it",
        )


def _release(files: Mapping[str, str], folder: Path, target: Path) -> None:
    """Run the stages within a folder, and leave nothing in it but the release.

    Args:
        files: of the project.
        folder: empty.
        target: where the release will be; what a failed stage leaves to look into goes
            beside it.

    Raises:
        StageFailedError: a stage failed.
    """
    work = folder / ".project"
    try:
        run_project(files, work)
    except StageFailedError:
        if (work / SCRATCH).is_dir():
            _keep(work, target)
        raise
    for path in (work / RELEASE).iterdir():
        path.rename(folder / path.name)
    shutil.rmtree(work)


def run_project(
    files: Mapping[str, str], work: Path, python: str = sys.executable
) -> None:
    """Write a project into a folder, and run the commands of its dvc.yaml in order.

    Args:
        files: of the project: path → text.
        work: the folder; made if it isn't there.
        python: the interpreter that the stages run with.

    Raises:
        StageFailedError: one of them failed; it has reported why.
    """
    for name, text in files.items():
        if name.startswith(_NEEDED):
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_text(text, encoding="utf-8", newline="\n")
    environment = {**os.environ}
    for name in _OF_A_PROJECT:
        environment.pop(name, None)
    stages: dict[str, Any] = parse_yaml(files["dvc.yaml"].encode())["stages"]
    for name, stage in stages.items():
        _, *arguments = stage["cmd"].split()
        sys.stdout.flush()
        command = [python, *arguments]
        if subprocess.run(command, cwd=work, env=environment, check=False).returncode:
            raise StageFailedError(f"stage {name} failed")


def _keep(work: Path, target: Path) -> None:
    """Keep the folder in which a stage left what it takes to reproduce its error."""
    kept = target.with_name(f"{target.name}.failed")
    shutil.rmtree(kept, ignore_errors=True)
    work.rename(kept)
    print(f"what it names lies in {kept}", file=sys.stderr)
