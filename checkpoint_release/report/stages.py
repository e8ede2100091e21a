"""The stages of the pipeline: what ran here, what DVC had cached, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec

from checkpoint_release.core.files import sha256
from checkpoint_release.core.stage_runs import StageRun, last_run, standing_file
from checkpoint_release.core.yaml_text import YamlError, parse_yaml
from checkpoint_release.report.history import committed_lock
from checkpoint_release.report.locked import LOCK, LockedStage, read_lock

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
    standing = {path: standing_file(root / path) for path in stage.outputs}
    if None in standing.values():
        return StageRow(name, description, MISSING, changes=changes)
    made = {path: sha256(file) for path, file in standing.items() if file}
    run = last_run(name, root)
    if run is None or not made.items() <= run.artifacts.items():
        return StageRow(name, description, CACHED, changes=changes)
    when = _clock(_finished(run))
    return StageRow(name, description, RAN, when, run.seconds, changes)


def _finished(run: StageRun) -> float:
    return datetime.fromisoformat(run.finished).timestamp()


def _clock(seconds: float) -> str:
    """A time for people, in the time zone of this machine."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
