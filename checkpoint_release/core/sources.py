"""Where the model's code lies: made importable for a stage, and watched by DVC.

model.source names one path or several, also outside the project's folder, or none
where the code is an installed package. dvc.yaml can hold one path as ${model.source};
of several, or of none, it has a line each, which carry a mark:

    - ../src/tagger/net.py  # model.source

Folders outside the project are watched file by file: .dvcignore ends at the project's
folder, and DVC would take every __pycache__ beyond it for a change of the model.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core.errors import ParamsError, first_few

if TYPE_CHECKING:
    from checkpoint_release.core.params import ModelParams

DVC_YAML = Path("dvc.yaml")
MARK = "# model.source"
NOTHING_TO_WATCH = f"{MARK} is null: constraints.txt pins the installed package"
WATCH_COMMAND = "python -m checkpoint_release.core.dvc_files"
_SINGLE = "${model.source}"
_DEPENDENCY = "      - "
_MOST_FILES = 500
_FAMILIES = "checkpoint_release.models."
_PASSED_OVER = ("__pycache__", ".egg-info", ".pyc")


def source_paths(model: ModelParams) -> list[str]:
    """The paths of model.source, as params.yaml has them; none for null."""
    if model.source is None:
        return []
    return [model.source] if isinstance(model.source, str) else list(model.source)


def make_importable(model: ModelParams) -> None:
    """Let Python import what model.source names.

    The folders come last on sys.path, and replace nothing that is installed.

    Args:
        model: the options.
    """
    for path in source_paths(model):
        if not Path(path).is_dir() and not path.endswith(".py"):
            continue  # such as a configuration
        root = str(import_root(Path(path), model.factory))
        if root not in sys.path:
            sys.path.append(root)


def import_roots(model: ModelParams) -> list[Path]:
    """The folders from which Python imports what model.source names, each once."""
    roots: list[Path] = []
    for path in source_paths(model):
        root = import_root(Path(path), model.factory)
        if root not in roots:
            roots.append(root)
    return roots


def import_root(path: Path, factory: str) -> Path:
    """The folder from which Python imports what lies at a path; absolute.

    It is the one from which the factory's module can be imported, where the path
    belongs to it; otherwise the folder around the packages that the path is within.

    Args:
        path: a file or folder.
        factory: `package.module:callable`.
    """
    place = path.resolve()
    folder = place if place.is_dir() else place.parent
    module = factory.partition(":")[0]
    for root in (folder, *folder.parents):
        if module_file(root, module) is not None:
            return root
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def module_file(root: Path, module: str) -> Path | None:
    """The file of a module that Python would import from a folder; None: not from it.

    Args:
        root: the folder, as on sys.path.
        module: dotted name.
    """
    stem = root.joinpath(*module.split("."))
    for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
        if file.is_file():
            return file
    return None


# What DVC watches


def watched_paths(model: ModelParams, folder: Path = Path()) -> list[str]:
    """What dvc.yaml has to name, so that DVC watches the model's code: model.source,
    and the factory's own module where that lies in the project's folder and is not
    part of it.

    Args:
        model: the options.
        folder: the project's, which may be missing.

    Raises:
        ParamsError: a path isn't there, or a folder outside the project holds too many
            files.
    """
    watched: list[str] = []
    for path in source_paths(model):
        place = _place(path, folder)
        if not place.exists():
            raise ParamsError(
                f"model.source names {path}, and there is no such file or folder",
                "correct the path, which is relative to the folder of params.yaml",
            )
        if place.is_dir() and not place.is_relative_to(_place("", folder)):
            watched += _files_below(path, place)
        else:
            watched.append(path)
    return watched + _unnamed_code(model, folder)


def _unnamed_code(model: ModelParams, folder: Path) -> list[str]:
    """The path of the factory's module within the project, where model.source doesn't
    name it; at most one.

    Args:
        model: the options.
        folder: the project's.
    """
    module = model.factory.partition(":")[0]
    root = _place("", folder)
    file = module_file(root, module)
    if file is None:
        return []
    for path in source_paths(model):
        if file.is_relative_to(_place(path, folder)):
            return []
    if module.startswith(_FAMILIES):  # they share code, and the library is watched
        return [_FAMILIES.rstrip(".").replace(".", "/")]
    top = root / module.partition(".")[0]
    return [(top if top.is_dir() else file).relative_to(root).as_posix()]


def _place(path: str, folder: Path) -> Path:
    """Where a path of params.yaml leads; the project's folder may be missing."""
    return Path(os.path.normpath(Path.cwd() / folder / path))


def _files_below(path: str, place: Path) -> list[str]:
    """The files of a folder that are part of the model, POSIX, sorted.

    Empty ones, such as most __init__.py, are left out: they hold no code, and DVC warns
    of each before and after every stage. One that is filled is like one that is added.

    Args:
        path: of the folder, as params.yaml has it.
        place: where it leads.

    Raises:
        ParamsError: they are too many to name.
    """
    filled = [file for file in _walk(place) if _is_filled(file)]
    files = [Path(path, file.relative_to(place)).as_posix() for file in filled]
    if len(files) > _MOST_FILES:
        raise ParamsError(
            f"model.source names {path}, which holds {len(files):,} files, and DVC"
            f" watches at most {_MOST_FILES} outside the project's folder",
            "name the package's own folder, or its files",
        )
    return sorted(files)


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if _is_part(name)]
        for name in names:
            if _is_part(name):
                yield Path(place, name)


def _is_filled(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _is_part(name: str) -> bool:
    return not name.startswith(".") and not name.endswith(_PASSED_OVER)


def watching(dvc_yaml: str, paths: Sequence[str]) -> str:
    """A dvc.yaml that watches these paths wherever it watched model.source.

    Args:
        dvc_yaml: its text.
        paths: what watched_paths returned.
    """
    lines: list[str] = []
    within = False
    for line in dvc_yaml.splitlines():
        is_source = _is_source_line(line)
        if is_source and not within:
            lines += source_lines(paths)
        if not is_source:
            lines.append(line)
        within = is_source
    return "\n".join(lines) + "\n"


def source_lines(paths: Sequence[str]) -> list[str]:
    """The lines of a stage's dependencies that stand for model.source."""
    if not paths:
        return [f"      {NOTHING_TO_WATCH}"]
    return [f"{_DEPENDENCY}{_yaml(path)}  {MARK}" for path in paths]


def _yaml(path: str) -> str:
    """A path as YAML has it, in quotes where it isn't of letters, digits and / . - _"""
    bare = path.replace("/", "").replace(".", "").replace("-", "").replace("_", "")
    simple = bare.isascii() and bare.isalnum() and not path.startswith("-")
    return path if simple else json.dumps(path, ensure_ascii=False)


def _is_source_line(line: str) -> bool:
    stripped = line.strip()
    if stripped in (f"- {_SINGLE}", f'- "{_SINGLE}"'):
        return True
    return stripped.startswith(MARK) or stripped.endswith(f" {MARK}")


def follow_sources(model: ModelParams) -> bool:
    """Let dvc.yaml watch what model.source names, and return whether it changed.

    Raises:
        ParamsError: as of watched_paths.
    """
    changed = _needed_change(model)
    if changed is None:
        return False
    DVC_YAML.write_text(changed, encoding="utf-8", newline="\n")
    return True


def require_watched(model: ModelParams) -> None:
    """Make sure that DVC would notice a change of the model's code.

    Where no dvc.yaml is, nothing is watched and nothing is wrong.

    Raises:
        ParamsError: dvc.yaml doesn't watch what model.source names; or as of
            watched_paths.
    """
    if _needed_change(model) is None:
        return
    named = first_few(watched_paths(model), 3) or "null, an installed package"
    raise ParamsError(
        f"{DVC_YAML} watches other code than model.source names, or model.factory lies"
        f" in: {named}",
        f"run {WATCH_COMMAND}, which corrects it, and then dvc repro",
    )


def _needed_change(model: ModelParams) -> str | None:
    """The text that dvc.yaml should have; None where it is right, or isn't there."""
    if not DVC_YAML.is_file():
        return None
    text = DVC_YAML.read_text(encoding="utf-8")
    is_whole = _fits_single(model.source) and not _unnamed_code(model, Path())
    if _SINGLE in text and is_whole:
        return None
    changed = watching(text, watched_paths(model))
    return changed if changed.splitlines() != text.splitlines() else None


def _fits_single(source: str | list[str] | None) -> bool:
    """Whether ${model.source} is enough: one path, of a file or within the project."""
    if not isinstance(source, str):
        return False
    place = _place(source, Path())
    return not place.is_dir() or place.is_relative_to(Path.cwd())
