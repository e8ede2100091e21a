"""Where a project lies, and where what it needs lies from there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import FACTORY_PATTERN
from checkpoint_release.core.sources import module_file

PATH_OPTIONS = (
    "checkpoint.path",
    "checkpoint.adapter",
    "card.notes_dir",
    "publish.extra",
    "publish.signing_key",
)
"""Options that are paths, beside model.source."""
_FACTORY = re.compile(FACTORY_PATTERN)


def git_root(folder: Path) -> Path | None:
    """The folder of the git repository around a folder that may not exist yet.

    Args:
        folder: absolute.

    Returns:
        The nearest folder with a .git, the folder itself included; None: there is none.
    """
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            return place
    return None


def within_git(folder: Path) -> str:
    """A folder's path within its git repository, POSIX; empty: the repository itself,
    or none.

    Args:
        folder: absolute.
    """
    root = git_root(folder)
    if root is None or root == folder:
        return ""
    return folder.relative_to(root).as_posix()


def path_from(path: str, folder: Path) -> str:
    """A path that was given relative to the working folder, as one from a project.

    Args:
        path: relative, or absolute.
        folder: the project's, absolute.

    Returns:
        A relative path, POSIX; an absolute one stays absolute where it leads out of the
        git repository, because it then is of this machine anyway.
    """
    place = Path(path)
    root = git_root(folder) or folder
    target = Path(os.path.normpath(Path.cwd() / place))
    if place.is_absolute() and not target.is_relative_to(root):
        return place.as_posix()
    return Path(os.path.relpath(target, folder)).as_posix()


def require_there(path: str, option: str) -> None:
    """Make sure that a path leads somewhere.

    Raises:
        ParamsError: it doesn't.
    """
    if not Path(path).exists():
        raise ParamsError(
            f"{option} is {path}, and there is no such file or folder",
            "correct the path, which is relative to the working folder",
        )


def require_factory(factory: str) -> None:
    """Make sure that what was named as a factory can be one.

    Raises:
        ParamsError: it is no package.module:callable; the message has what is meant,
            where that is clear.
    """
    if _FACTORY.match(factory):
        return
    module, colon, name = factory.partition(":")
    path = module.removesuffix(".py").replace("/", ".").strip(".")
    if colon or path != module:
        meant = f"{path}:{name or 'build'}"
    else:
        meant = ":".join(path.rsplit(".", 1))
    such_as = f", such as {meant}" if _FACTORY.match(meant) else ""
    raise ParamsError(
        f"{factory!r} names no callable",
        f"name it as package.module:callable{such_as}",
    )


def locate_code(factory: str, folder: Path) -> Path | None:
    """Where the code of a factory lies; None: in an installed package.

    It is looked for in the working folder, the project's and those above it up to
    the git repository's, and in `src` in each of them. Nothing of it is imported.

    Args:
        factory: `package.module:callable`.
        folder: the project's, absolute.

    Returns:
        The top package's folder, or the file of a module without a package.

    Raises:
        ParamsError: it is nowhere.
    """
    module = factory.partition(":")[0]
    package = module.partition(".")[0]
    for root in _roots(folder):
        if module_file(root, module) is not None:
            return module_file(root, package) if module == package else root / package
    if _is_installed(package):
        return None
    raise ParamsError(
        f"model.factory is {factory}, and neither here, nor in {folder} and the folders"
        f" above it, nor among the installed packages is there a {module}",
        "name the folder or file of its code with --source",
    )


def _roots(folder: Path) -> Iterator[Path]:
    """Folders that code may be imported from, the nearest first."""
    last = git_root(folder) or folder
    around = [folder, *folder.parents]
    for place in (Path.cwd(), *around[: around.index(last) + 1]):
        yield place
        yield place / "src"


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # such as a module without a specification
        return False
