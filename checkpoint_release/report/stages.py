"""The stages of the pipeline: what ran here, what DVC had cached, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.artifacts.release import RELEASE
from checkpoint_release.core.stage_runs import StageRun, last_run
from checkpoint_release.core.yaml_text import YamlError, parse_yaml
from checkpoint_release.report.history import committed_lock
from checkpoint_release.report.locked import LOCK, LockedStage, read_lock

_SLACK = 5.0
"""Seconds after the end of a run in which DVC may still link its outputs anew. Another
`dvc repro`, which could restore others, takes longer to get there.
"""
RAN = "ran here"
CACHED = "from DVC's cache"
MISSING = "not made"


class _Stage(msgspec.Struct):
    """A stage of dvc.yaml; what else it has is passed over."""

    desc: str = ""


class _Pipeline(msgspec.Struct):
    stages: dict[str, _Stage]


@dataclass(frozen=True)
class StageRow:
    """A stage, and where its outputs are from.

    Attributes:
        name, description: as dvc.yaml has them.
        origin: RAN, CACHED or MISSING.
        when: in local time; empty where it isn't known.
        seconds: that the run took; None: not known.
        changes: parameters and inputs that aren't those of the commit; None: no commit
            has the stage.
    """

    name: str
    description: str
    origin: str
    when: str = ""
    seconds: float | None = None
    changes: list[str] | None = field(default_factory=list)


def stage_rows(root: Path) -> list[StageRow]:
    """The stages of dvc.yaml that dvc.lock knows, in its order.

    Args:
        root: the project's folder.

    Returns:
        Nothing where there is no pipeline.
    """
    lock = root / LOCK
    stages = read_lock(lock.read_bytes()) if lock.is_file() else {}
    committed = committed_lock(root)
    rows = []
    for name, description in _descriptions(root / "dvc.yaml").items():
        if name in stages:
            rows.append(_row(root, name, description, stages[name], committed))
    return rows


def _descriptions(path: Path) -> dict[str, str]:
    """Stage → what it is for, as dvc.yaml says."""
    if not path.is_file():
        return {}
    try:
        pipeline = msgspec.convert(parse_yaml(path.read_bytes()), _Pipeline)
    except (YamlError, msgspec.ValidationError):
        return {}
    return {name: stage.desc for name, stage in pipeline.stages.items()}


def _row(
    root: Path,
    name: str,
    description: str,
    stage: LockedStage,
    committed: Mapping[str, LockedStage],
) -> StageRow:
    """One stage.

    Args:
        root: the project's folder.
        name, description: of the stage.
        stage: what it last ran from.
        committed: the stages of the commit.
    """
    before = committed.get(name)
    changes = None if before is None else stage.changes_since(before)
    written = _written(root, list(stage.outputs))
    if written is None:
        return StageRow(name, description, MISSING, changes=changes)
    run = last_run(name, root)
    if run is None or written > _finished(run) + _SLACK:
        return StageRow(name, description, CACHED, _clock(written), None, changes)
    when = _clock(_finished(run))
    return StageRow(name, description, RAN, when, run.seconds, changes)


def _written(root: Path, outputs: list[str]) -> float | None:
    """When the first of a stage's outputs was written, in seconds since 1970.

    Args:
        root: the project's folder.
        outputs: the paths; a folder goes by the file that describes it.

    Returns:
        None where one isn't there.
    """
    times: list[Any] = []
    for output in outputs:
        path = root / output
        for described in (path / MANIFEST, path / RELEASE, path):
            if described.exists():
                times.append(described.stat().st_mtime)
                break
        else:
            return None
    return min(times, default=None)


def _finished(run: StageRun) -> float:
    return datetime.fromisoformat(run.finished).timestamp()


def _clock(seconds: float) -> str:
    """A time for people, in the time zone of this machine."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
