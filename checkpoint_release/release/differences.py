"""Comparing a folder with the release that its release.json describes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from checkpoint_release.core.artifacts.release import RELEASE, SUMS, Release
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry, sha256

FOLDERS_OF_TOOLS = (".git", ".cache/huggingface")
"""Folders that may lie in a release without being part of it: of a git clone, and of
`hf download --local-dir`.
"""


def differences(folder: Path, release: Release) -> list[str]:
    """Where the folder isn't what release.json and SHA256SUMS describe, one line each.

    Everything that is there without being listed is reported, not files alone: a folder
    or a link called `model` would be imported in place of model.py. A listed file may
    be a link, as in the Hub client's and DVC's caches: its bytes count.

    Args:
        folder: where the release should be.
        release: the folder's own release.json.

    Returns:
        Nothing, if the folder is exactly the release.

    Raises:
        ArtifactError: something in it can't be read.
    """
    allowed = release.files.keys() | release.unlisted
    try:
        present = set(_present(folder, [*allowed, *FOLDERS_OF_TOOLS]))
        changed = _missing_or_changed(folder, release, present)
        unlisted = [_unlisted(folder, name) for name in sorted(present - allowed)]
        return [*changed, *unlisted, *_wrong_checksums(folder, release)]
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or folder} can't be read: {error.strerror}",
            "make it readable, or get the release again",
        ) from None


def _missing_or_changed(
    folder: Path, release: Release, present: set[str]
) -> Iterator[str]:
    """Listed files that aren't there, or aren't what they were, one line each.

    Args:
        folder: where the release should be.
        release: lists the files with their size and sha256.
        present: paths that are there.

    Raises:
        OSError: a file can't be read.
    """
    for name, listed in release.files.items():
        if name not in present or not (folder / name).is_file():
            yield f"{name} is missing"
            continue
        found = FileEntry.of(folder / name)
        if found != listed:
            yield (
                f"{name} is not what was released: {found.size} bytes with sha256"
                f" {found.sha256[:12]}…, but {RELEASE} lists {listed.size} bytes with"
                f" {listed.sha256[:12]}…"
            )


def _wrong_checksums(folder: Path, release: Release) -> list[str]:
    """Hold SHA256SUMS against release.json, whose digests it repeats byte for byte.

    Returns:
        One line, if it is missing or says something else.

    Raises:
        OSError: a file can't be read.
    """
    path = folder / SUMS
    if not path.is_file():
        return [f"{SUMS} is missing"]
    expected = release.checksums(sha256(folder / RELEASE))
    if path.read_bytes() != expected.encode():
        return [f"{SUMS} and {RELEASE} do not agree"]
    return []


def _present(folder: Path, expected: Iterable[str], within: str = "") -> Iterator[str]:
    """Everything in the folder except what is in FOLDERS_OF_TOOLS, as paths.

    A folder that holds nothing expected counts as one entry, which ends in /.

    Args:
        folder: where to look.
        expected: paths that may be there.
        within: the part of the folder to look at, "" or ending in /.

    Raises:
        OSError: a folder can't be read.
    """
    with os.scandir(folder / within) as entries:
        for entry in entries:
            name = f"{within}{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                yield name
            elif any(path.startswith(f"{name}/") for path in expected):
                yield from _present(folder, expected, f"{name}/")
            elif name not in FOLDERS_OF_TOOLS:
                yield f"{name}/"


def _unlisted(folder: Path, name: str) -> str:
    """Why something that is there shouldn't be, as one line.

    Args:
        folder: where the release should be.
        name: the path in it; shown with escapes if it could confuse a terminal.
    """
    shown = name if name.isprintable() else repr(name)
    problem = f"{shown} is not in {RELEASE}"
    path = folder / name
    if path.is_symlink():
        return f"{problem} (a symbolic link to {str(path.readlink())!r})"
    if PurePosixPath(name).name == "__pycache__":
        return (
            f"{problem}: Python leaves it where a module is imported, and runs what it"
            " holds in place of the module, so it may be more than a leftover; delete"
            " it"
        )
    return problem
