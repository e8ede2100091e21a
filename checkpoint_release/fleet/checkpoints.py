"""The checkpoints of a fleet: what each is called, what identifies it, and how a
machine gets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import msgspec

from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.errors import ParamsError

Kind = Literal["files", "dvc", "s3", "hub"]
_LETTERS = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+="
)


class Checkpoint(Record, frozen=True, kw_only=True):
    """One checkpoint.

    Attributes:
        kind: of its source.
        address: a path, an address of S3, or organisation/name of a repository.
        digest: what identifies its bytes, led by the algorithm: sha256, md5 (DVC's),
            etag (S3's) or git (a blob's id).
        size: in bytes; 0 where it isn't known.
        file: its name in the clone; for a Hub, its path in the repository.
        values: what the pattern's names stand for.
        endpoint: of the S3 server; "" for AWS.
        revision: the commit of a Hub's repository.
        tracked: whether it is in the pipeline's commit, so that a clone has it.
    """

    kind: Kind
    address: str
    digest: str
    size: int
    file: str
    values: dict[str, str] = msgspec.field(default_factory=dict)
    endpoint: str = ""
    revision: str = ""
    tracked: bool = False

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.file).name


@dataclass
class Naming:
    """Gives each checkpoint a name that a git ref can have, and no other has.

    Attributes:
        taken: name → address of the checkpoint that has it.
    """

    taken: dict[str, str] = field(default_factory=dict)

    def name(self, text: str, address: str) -> str:
        """The name for a checkpoint.

        Args:
            text: what tells it from others, such as its path below the pattern's.
            address: of the checkpoint, for the message.

        Raises:
            ParamsError: another has the same.
        """
        name = "".join(each if each in _LETTERS else "-" for each in text).strip("-")
        name = name[:100] or "checkpoint"
        if name in self.taken:
            raise ParamsError(
                f"{address} and {self.taken[name]} would both be called {name}",
                "release them as two fleets, or rename one",
            )
        self.taken[name] = address
        return name


def stem(path: str) -> str:
    """A path without its last suffix: `run/step-1.pth` → `run/step-1`."""
    return str(PurePosixPath(path).with_suffix(""))


def below(path: str, folder: str) -> str:
    """The part of a path below a folder."""
    return path.removeprefix(folder).lstrip("/")


def require_some(found: Iterable[object], what: str, remedy: str) -> None:
    """Require that a source holds checkpoints.

    Args:
        found: what there is.
        what: the source, for the message.
        remedy: what to do about it.

    Raises:
        ParamsError: there is nothing.
    """
    if not any(True for _ in found):
        raise ParamsError(f"{what} stands for no checkpoint", remedy)


def identity(checkpoint: Checkpoint) -> Mapping[str, str]:
    """What of a checkpoint decides what is built of it."""
    return {"digest": checkpoint.digest, "file": checkpoint.name}
