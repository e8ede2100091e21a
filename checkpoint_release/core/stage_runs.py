"""When a stage last ran in this working folder, how long it took, and what it made.

DVC doesn't keep it, and no artifact may hold it: it is another on every machine. It
lies in DVC's temporary folder, which git ignores.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.artifacts.release import RELEASE
from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import sha256

FOLDER = Path(".dvc/tmp/stage-runs")


class StageRun(Record, frozen=True, kw_only=True):
    """A run of a stage's command that ended well.

    Attributes:
        finished: when, in UTC, as 2026-01-31T12:00:00.000+00:00.
        seconds: how long it took, imports included.
        artifacts: path of each artifact there was at its end, the stage's own among
            them → sha256 of the file that stands for it.
    """

    finished: str
    seconds: float
    artifacts: dict[str, str] = msgspec.field(default_factory=dict)


def standing_file(artifact: Path) -> Path | None:
    """The file that stands for an artifact; None: it isn't there.

    Args:
        artifact: a file, which stands for itself, or a folder, which is described by
            its manifest.json or release.json.
    """
    for path in (artifact / MANIFEST, artifact / RELEASE, artifact):
        if path.is_file():
            return path
    return None


def record_run(
    stage: str, seconds: float, artifacts: Path, root: Path = Path()
) -> None:
    """Note that a stage ran. Where that can't be written, nothing is lost by it.

    Args:
        stage: its name in dvc.yaml.
        seconds: how long it took.
        artifacts: the folder of all artifacts, relative to the project's.
        root: the project's folder.
    """
    if not (root / ".dvc").is_dir():
        return
    finished = datetime.now(UTC).isoformat(timespec="milliseconds")
    with suppress(OSError):
        run = StageRun(
            finished=finished,
            seconds=round(seconds, 1),
            artifacts=_digests(artifacts, root),
        )
        run.write(root / FOLDER / f"{stage}.json")


def _digests(artifacts: Path, root: Path) -> dict[str, str]:
    found = {}
    for path in sorted((root / artifacts).iterdir()):
        standing = standing_file(path)
        if standing is not None:
            found[path.relative_to(root).as_posix()] = sha256(standing)
    return found


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
