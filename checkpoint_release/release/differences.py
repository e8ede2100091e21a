"""Comparing a folder with the release that its release.json describes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from checkpoint_release.core.artifacts.attestation import ATTESTATIONS, is_rebuild
from checkpoint_release.core.artifacts.release import RELEASE, SUMS, Release
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry, sha256

FOLDERS_OF_TOOLS = (".git", ".cache/huggingface")
"""Folders that may lie in a release without being part of it: of a git clone, and of
`hf download --local-dir`.
"""


PEOPLE_SUFFIXES = frozenset(
    {
        *(".bib", ".cff", ".csv", ".md", ".pdf", ".rst", ".txt", ".yaml", ".yml"),
        *(".gif", ".jpeg", ".jpg", ".mp4", ".png", ".svg", ".webp"),
    }
)
"""Of files that people may put beside a release: nothing runs them or reads a model's
configuration from them.
"""


@dataclass(frozen=True)
class Differences:
    """Where a folder isn't the release that it describes.

    Attributes:
        problems: one line each.
        people_files: files that aren't of the release and harm nothing: documents,
            pictures, scores.
    """

    problems: list[str]
    people_files: list[str]


def differences(folder: Path, release: Release) -> Differences:
    """Where the folder isn't what release.json and SHA256SUMS describe.

    What is there without being listed is a problem, not files alone: a folder or a link
    called `model` would be imported in place of model.py. Only documents of people are
    none. A listed file may be a link, as in the Hub client's and DVC's caches: its
    bytes count.

    Args:
        folder: where the release should be.
        release: the folder's own release.json.

    Raises:
        ArtifactError: something in it can't be read.
    """
    allowed = release.files.keys() | release.unlisted
    try:
        present = set(_present(folder, [*allowed, *FOLDERS_OF_TOOLS]))
        problems = list(_missing_or_changed(folder, release, present))
        people_files = []
        for name in sorted(present - allowed):
            documents = _documents(folder, name)
            people_files += documents
            if not documents:
                problems.append(_unlisted(folder, name))
        problems += _wrong_checksums(folder, release)
        return Differences(problems, people_files)
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


def _documents(folder: Path, name: str) -> list[str]:
    """The files behind a path, if all of them are documents; otherwise none.

    Args:
        folder: where the release should be.
        name: the path in it; of a folder, it ends in /.

    Raises:
        OSError: a folder can't be read.
    """
    found = []
    for file in _files_below(folder / name):
        if not _is_document(file):
            return []
        found.append(file.relative_to(folder).as_posix())
    return found


def _files_below(path: Path) -> Iterator[Path]:
    """A file itself, or all files and links in a folder at any depth.

    Raises:
        OSError: a folder can't be read.
    """
    if path.is_symlink() or not path.is_dir():
        yield path
        return
    with os.scandir(path) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield from _files_below(Path(entry.path))


def _is_document(file: Path) -> bool:
    """Whether it is a file of people: a picture, a text, one such as LICENSE, or the
    attestation of somebody who made the release again; or a link to one, as in the Hub
    client's cache.
    """
    if not file.is_file() or not file.name.isprintable():
        return False
    if is_rebuild(file.name):
        return file.parent.name == ATTESTATIONS
    suffix = file.suffix.lower()
    return suffix in PEOPLE_SUFFIXES or (not suffix and file.name.isupper())


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
