"""Reading and writing the artifacts' JSON files as typed records."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE, read_json, write_json


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A JSON object with known keys; unknown ones are passed over, as of a later
    version.

    Keys that have a default are left out of the file where they hold it.
    """

    def to_json(self) -> dict[str, Any]:
        """The record as canonical_json writes it, keys in the order of the fields."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, self.to_json())


R = TypeVar("R", bound=Record)


def read_record(path: Path, kind: type[R]) -> R:
    """Read a file that Record.write wrote.

    Raises:
        ArtifactError: it is missing, isn't JSON, or isn't such a record; the message
            names the key.
    """
    return as_record(read_json(path), kind, str(path))


def as_record(value: Any, kind: type[R], source: str) -> R:
    """A parsed JSON value as the record that it should be.

    Args:
        value: what was read.
        kind: the record.
        source: where it is from, for the message.

    Raises:
        ArtifactError: it isn't such a record; the message names the key.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ArtifactError(
            f"{source} is not as it was written: {error}", REMAKE
        ) from None
