"""What writing a project's files would change where some of them are there already.

A record in the project's folder holds the digest of each file as it was written. A file
that still has it was never edited and may be replaced; any other stays.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import CheckpointReleaseError, first_few
from checkpoint_release.core.files import replace_file
from checkpoint_release.core.sources import watching

RECORD = ".checkpoint-release.json"
PARAMS = "params.yaml"
_LINES_ADDED = (".gitignore", ".dvcignore")  # whoever wrote them, lines are added
_KEPT = ".dvc/"  # a DVC project that is there already stays as it is


class ProjectRecord(Record, frozen=True):
    """What was written into a project.

    Attributes:
        version: of the library that wrote it.
        files: path → sha256 of the text, in lower-case hex.
    """

    version: str
    files: dict[str, str]


def read_project_record(folder: Path) -> ProjectRecord | None:
    """The record of a project; None: it isn't one that `new` made.

    Raises:
        ArtifactError: the record isn't as it was written.
    """
    if not (folder / RECORD).is_file():
        return None
    return read_record(folder / RECORD, ProjectRecord)


Action = Literal["add", "change", "extend", "keep"]


@dataclass(frozen=True)
class Change:
    """What becomes of one file.

    Attributes:
        path: relative to the project, POSIX.
        action: add it, change it as nobody edited it, extend it and leave what is
            there, or keep it as it was edited although its template changed.
        before, after: its text now, and as the template has it.
    """

    path: str
    action: Action
    before: str
    after: str

    def diff(self) -> str:
        """The change as a unified diff; of a file that is kept, what is not done."""
        lines = difflib.unified_diff(
            self.before.splitlines(keepends=True),
            self.after.splitlines(keepends=True),
            f"{self.path} (here)",
            f"{self.path} (checkpoint-release)",
        )
        return "".join(lines)


@dataclass(frozen=True)
class Plan:
    """What writing a project would do.

    Attributes:
        folder: the project's.
        version: of the library.
        files: every file as the template has it: path → text.
        changes: those that aren't so already.
    """

    folder: Path
    version: str
    files: Mapping[str, str]
    changes: list[Change] = field(default_factory=list)

    def apply(self) -> None:
        """Write what isn't kept, and the record of it last."""
        for change in self.changes:
            if change.action != "keep":
                replace_file(self.folder / change.path, change.after.encode())
        digests = {path: digest(path, text) for path, text in self.files.items()}
        record = ProjectRecord(version=self.version, files=digests)
        record.write(self.folder / RECORD)


def plan(
    folder: Path, files: Mapping[str, str], version: str, record: ProjectRecord | None
) -> Plan:
    """Find out what would change.

    Args:
        folder: the project's.
        files: as the template has them; params.yaml with what was edited in it.
        version: of the library.
        record: of the project; None: it is new.

    Raises:
        CheckpointReleaseError: the project is new, and files are there that aren't its
            own; or one that is there can't be read.
    """
    changes = []
    for path, wanted in files.items():
        change = _change(folder, path, wanted, record)
        if change is not None:
            changes.append(change)
    if record is None:
        _require_free(folder, changes)
    return Plan(folder, version, files, changes)


def _change(
    folder: Path, path: str, wanted: str, record: ProjectRecord | None
) -> Change | None:
    """What becomes of a file; None: nothing."""
    recorded = record.files.get(path) if record else None
    before = _read(folder / path)
    if before is None:
        # whoever removed what was written doesn't want it
        return None if recorded else Change(path, "add", "", wanted)
    if before == wanted:
        return None
    if path in _LINES_ADDED:
        after = _with_lines(before, wanted.splitlines())
        return Change(path, "extend", before, after) if after != before else None
    if record is not None and path == PARAMS:
        return Change(path, "extend", before, wanted)
    if recorded == digest(path, before):
        return Change(path, "change", before, wanted)
    if recorded == digest(path, wanted):
        return None  # edited, and the template is what it was
    return Change(path, "keep", before, wanted)


def _read(path: Path) -> str | None:
    """A file's text; None: there is no such file.

    Raises:
        CheckpointReleaseError: it isn't text, or can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointReleaseError(
            f"{path} can't be read as text: {error}",
            "move it away, or name another folder",
        ) from None


def digest(path: str, text: str) -> str:
    """The sha256 of a file's text.

    Of dvc.yaml without the lines of model.source, which follow params.yaml.
    """
    nominal = watching(text, ()) if path == "dvc.yaml" else text
    return hashlib.sha256(nominal.encode()).hexdigest()


def _with_lines(text: str, lines: Iterable[str]) -> str:
    """A text with the lines that it lacks at its end."""
    own = text.splitlines()
    lacking = [line for line in lines if line not in own]
    return "\n".join([*own, *lacking]) + "\n" if lacking else text


def _require_free(folder: Path, changes: Iterable[Change]) -> None:
    """Make sure that a new project takes nobody's place.

    Raises:
        CheckpointReleaseError: it would.
    """
    kept = [each.path for each in changes if each.action == "keep"]
    taken = [path for path in kept if not path.startswith(_KEPT)]
    if taken:
        raise CheckpointReleaseError(
            f"{folder} holds files of other content already: {first_few(taken, 5)}",
            "name another folder, such as a subfolder of it",
        )
