"""Which git commit a release is made from, and whether the files differ from it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from checkpoint_release.core.artifacts.receipt import Checkout


def git_checkout(*, ignoring: Sequence[str] = ()) -> Checkout | None:
    """The git commit of the working directory, and whether the sources differ from it.

    Args:
        ignoring: paths whose changes don't count, because the run writes them itself.

    Returns:
        None outside git.
    """
    excluded = [f":(exclude){path}" for path in ignoring]
    return _checkout(["rev-parse", "HEAD"], [".", *excluded])


def sources_checkout(sources: Sequence[str]) -> Checkout | None:
    """The last git commit that changed the sources, and whether they differ from it.

    A commit that changes something else, such as documents or the parameters, leaves it
    as it is, and with it the release.

    Args:
        sources: paths in the working folder.

    Returns:
        None where there are no sources, or git doesn't know them.
    """
    if not sources:
        return None
    return _checkout(["log", "-1", "--format=%H", "--", *sources], sources)


def _checkout(commit: Sequence[str], paths: Sequence[str]) -> Checkout | None:
    """A commit, and whether paths differ from what is committed.

    Args:
        commit: the git command that prints it.
        paths: as git takes them.

    Returns:
        None where git isn't installed, doesn't know the folder, or prints no commit.
    """
    try:
        name = _git(*commit)
        changes = _git("status", "--porcelain", "--", *paths)
    except (OSError, subprocess.CalledProcessError):
        return None
    return Checkout(commit=name, dirty=bool(changes)) if name else None


def _git(*arguments: str) -> str:
    """What a git command prints, in the working folder.

    Raises:
        OSError: git isn't installed.
        subprocess.CalledProcessError: the command failed.
    """
    done = subprocess.run(
        ["git", *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
