"""A new project, and what a later version would change in it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from checkpoint_release.core.params import Params, parse_section
from checkpoint_release.core.sources import watched_paths, watching
from checkpoint_release.core.yaml_text import parse_yaml
from checkpoint_release.project.params import (
    with_new_options,
    with_settings,
)
from checkpoint_release.project.place import git_root, within_git
from checkpoint_release.project.settings import Asked, check_options
from checkpoint_release.project.template import library_version, project_files
from checkpoint_release.project.update import (
    PARAMS,
    Plan,
    plan,
    read_project_record,
)


def plan_project(folder: Path, asked: Asked) -> tuple[Plan, bool]:
    """What writing a project into a folder would do.

    Args:
        folder: the project's, absolute; it may be missing.
        asked: what to fill in.

    Returns:
        The plan, and whether the project is there already.

    Raises:
        ParamsError: an option is wrong, or a path leads nowhere.
        CheckpointReleaseError: files of somebody else are in the way.
    """
    settings = asked.options(folder)
    record = read_project_record(folder)
    files = project_files(settings, within_git(folder))
    if record is not None and (folder / PARAMS).is_file():
        own = (folder / PARAMS).read_text(encoding="utf-8")
        params, _ = with_new_options(own, files[PARAMS])
        files[PARAMS] = with_settings(params, settings) if settings else params
    value = parse_yaml(files[PARAMS].encode())
    check_options(files[PARAMS], factory_given=bool(_factory(value)))
    files["dvc.yaml"] = watching(files["dvc.yaml"], _watched(value, folder))
    found = plan(folder, files, library_version(), record)
    return found, record is not None


def _factory(value: Any) -> Any:
    model = value.get("model") if isinstance(value, dict) else None
    return model.get("factory") if isinstance(model, dict) else None


def _watched(value: Any, folder: Path) -> tuple[str, ...]:
    """What dvc.yaml has to name as the model's code.

    Args:
        value: of params.yaml, which is right but for a factory that is left for later.
        folder: the project's.
    """
    if not _factory(value):
        return ()
    model = parse_section(Params, value).model
    return tuple(watched_paths(model, folder))


def begin(found: Plan) -> list[str]:
    """Write a new project, within a git repository if git can be had.

    Returns:
        What was done beside writing the files, a line each.
    """
    found.folder.mkdir(parents=True, exist_ok=True)
    found.apply()
    if git_root(found.folder) is not None:
        return []
    command = ["git", "init", "--quiet", "--initial-branch", "main"]
    try:
        subprocess.run([*command, str(found.folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        config = found.folder / ".dvc/config"
        text = config.read_text(encoding="utf-8")
        config.write_text(text.replace("[core]\n", "[core]\nno_scm = true\n", 1))
        return ["without git, which can't be run here"]
    return ["a git repository of its own"]
