"""When a stage last ran in this working folder, and how long it took.

DVC doesn't keep it, and no artifact may hold it: it is another on every machine. It
lies in DVC's temporary folder, which git ignores.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError

FOLDER = Path(".dvc/tmp/stage-runs")


class StageRun(Record, frozen=True, kw_only=True):
    """A run of a stage's command that ended well.

    Attributes:
        finished: when, in UTC, as 2026-01-31T12:00:00.000+00:00.
        seconds: how long it took, imports included.
    """

    finished: str
    seconds: float


def record_run(stage: str, seconds: float, root: Path = Path()) -> None:
    """Note that a stage ran. Where that can't be written, nothing is lost by it.

    Args:
        stage: its name in dvc.yaml.
        seconds: how long it took.
        root: the project's folder.
    """
    if not (root / ".dvc").is_dir():
        return
    finished = datetime.now(UTC).isoformat(timespec="milliseconds")
    run = StageRun(finished=finished, seconds=round(seconds, 1))
    with suppress(OSError):
        run.write(root / FOLDER / f"{stage}.json")


def last_run(stage: str, root: Path = Path()) -> StageRun | None:
    """The last run of a stage; None where none is known.

    Args:
        stage: its name in dvc.yaml.
        root: the project's folder.
    """
    path = root / FOLDER / f"{stage}.json"
    if not path.is_file():
        return None
    try:
        return read_record(path, StageRun)
    except ArtifactError:
        return None
