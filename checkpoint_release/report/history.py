"""The release before this one, as git has it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.parity import METRICS, ParityMetrics
from checkpoint_release.core.artifacts.receipt import RECEIPT
from checkpoint_release.core.artifacts.typed import R, Record, as_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.report.locked import LOCK, LockedStage, read_lock

_MOST_COMMITS = 30
"""How many changes of the receipt are looked at."""


class _Files(Record, frozen=True, kw_only=True):
    """The part of publish.json that every kind of it has."""

    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Commit:
    """A commit, its date as 2026-01-31, and its first line."""

    id: str
    date: str
    subject: str


@dataclass(frozen=True)
class EarlierRelease:
    """What git has of an earlier release.

    Attributes:
        commit: that holds it.
        files: path in the release → size and sha256.
        stages: of its dvc.lock, by name.
        metrics: of its parity check; None: there are none.
    """

    commit: Commit
    files: Mapping[str, FileEntry]
    stages: Mapping[str, LockedStage]
    metrics: ParityMetrics | None


def stated_files(content: bytes) -> dict[str, FileEntry]:
    """The files that a publish.json states; none where it isn't one."""
    stated = _record(content, _Files)
    return stated.files if stated else {}


def last_release(root: Path, artifacts: str) -> EarlierRelease | None:
    """The newest release in git whose files aren't those of the present one.

    Args:
        root: the project's folder.
        artifacts: the folder of all artifacts, relative to it.

    Returns:
        None where git has none, or there is no git.
    """
    receipt = f"{artifacts}/{RECEIPT}"
    path = root / receipt
    present = stated_files(path.read_bytes()) if path.is_file() else {}
    for commit in _commits(root, receipt):
        content = _show(root, commit.id, receipt)
        files = stated_files(content) if content else {}
        if files and files != present:
            lock = _show(root, commit.id, LOCK)
            metrics = _show(root, commit.id, f"{artifacts}/{METRICS}")
            return EarlierRelease(
                commit,
                files,
                read_lock(lock) if lock else {},
                _record(metrics, ParityMetrics) if metrics else None,
            )
    return None


def committed_lock(root: Path) -> dict[str, LockedStage]:
    """The stages of the dvc.lock that is committed, by name; may be empty."""
    content = _show(root, "HEAD", LOCK)
    return read_lock(content) if content else {}


def _record(content: bytes, kind: type[R]) -> R | None:
    """A record; None where the text is none, as that of an older version may be."""
    try:
        return as_record(parse_json(content), kind, "a file in git")
    except (JsonError, ArtifactError):
        return None


def _commits(root: Path, path: str) -> Iterator[Commit]:
    """The commits that changed a file, the newest first.

    Args:
        root: the project's folder.
        path: relative to it.
    """
    form = "--format=%h%x00%cs%x00%s"
    listed = _git(root, "log", form, f"-{_MOST_COMMITS}", "--", path)
    for line in (listed or b"").decode(errors="replace").splitlines():
        yield Commit(*line.split("\0"))


def _show(root: Path, revision: str, path: str) -> bytes | None:
    """A file at a revision; None: it isn't there."""
    return _git(root, "show", f"{revision}:./{path}")


def _git(root: Path, *arguments: Any) -> bytes | None:
    """What git prints; None where it fails or isn't installed."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, check=False
        )
    except OSError:
        return None
    return None if done.returncode else done.stdout
