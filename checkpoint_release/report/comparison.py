"""What is another in this release than in the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from checkpoint_release.core.artifacts.parity import ParityMetrics
from checkpoint_release.core.files import FileEntry
from checkpoint_release.report.history import Commit, EarlierRelease
from checkpoint_release.report.locked import LockedStage, changed, shown_value


@dataclass(frozen=True)
class FileChange:
    """A file that differs; a size is None where the release doesn't have the file."""

    name: str
    before: int | None
    now: int | None


@dataclass(frozen=True)
class Comparison:
    """What changed since the release before.

    Attributes:
        commit: that holds it.
        params: (name, old value, new value).
        inputs: the paths of other inputs that changed: the checkpoint, code, pins.
        files: of the release.
        unchanged: how many files are the same.
        errors: (artifact, old and new worst error as a share of the limit); "" where
            there is none.
    """

    commit: Commit
    params: list[tuple[str, str, str]]
    inputs: list[str]
    files: list[FileChange]
    unchanged: int
    errors: list[tuple[str, str, str]]


def compare(
    before: EarlierRelease,
    files: Mapping[str, FileEntry],
    stages: Mapping[str, LockedStage],
    metrics: ParityMetrics | None,
) -> Comparison:
    """Hold this release against an earlier one.

    Args:
        before: the earlier one.
        files: path → size and sha256, of this one.
        stages: of the present dvc.lock.
        metrics: of the present parity check.
    """
    params: dict[str, tuple[str, str, str]] = {}
    inputs: dict[str, None] = {}
    made = {path for stage in stages.values() for path in stage.outputs}
    for name, stage in stages.items():
        earlier = before.stages.get(name, LockedStage())
        for param, old, new in changed(earlier.params, stage.params):
            params[param] = (param, shown_value(old), shown_value(new))
        for path, _, _ in changed(earlier.inputs, stage.inputs):
            if path not in made:
                inputs[path] = None
    differing = _files(before.files, files)
    return Comparison(
        before.commit,
        list(params.values()),
        list(inputs),
        differing,
        len(files) - sum(change.now is not None for change in differing),
        _errors(before.metrics, metrics),
    )


def _files(
    before: Mapping[str, FileEntry], now: Mapping[str, FileEntry]
) -> list[FileChange]:
    found = []
    for name, old, new in changed(before, now):
        found.append(
            FileChange(name, old.size if old else None, new.size if new else None)
        )
    return found


def _errors(
    before: ParityMetrics | None, now: ParityMetrics | None
) -> list[tuple[str, str, str]]:
    old = before.share_of_limit if before else {}
    new = now.share_of_limit if now else {}
    rows = []
    for name in dict.fromkeys([*old, *new]):
        shares = [
            f"{values[name]:.0%}" if name in values else "" for values in (old, new)
        ]
        rows.append((name, shares[0], shares[1]))
    return rows
