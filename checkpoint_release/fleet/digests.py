"""Digests of checkpoint files, each computed once for a state of the file."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.errors import ArtifactError, CheckpointError
from checkpoint_release.core.files import joint_sha256, read_json, sha256, write_json

_RECENT = 2_000_000_000  # ns: a file changed since may change again unnoticed


class _Known(Record, frozen=True, kw_only=True):
    """A digest, and the state of the file that it was computed of."""

    state: list[int]
    sha256: str


class Digests:
    """Digests of files, kept in a file between runs.

    A file is taken for unchanged while its size, its time of change and its number
    (inode) are the same.

    Args:
        path: where they are kept; what can't be read there is computed again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, _Known] = {}
        self._changed = False
        with suppress(ArtifactError, msgspec.ValidationError):
            limit = 1 << 30
            self._known = msgspec.convert(read_json(path, limit), dict[str, _Known])

    def of_all(self, paths: list[Path]) -> list[tuple[str, int]]:
        """sha256 and size in bytes of files and folders.

        Args:
            paths: of a folder, all files in it count together.

        Raises:
            CheckpointError: one can't be read.
        """
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return list(pool.map(self._of, paths))

    def keep(self) -> None:
        """Write what was computed, for the next run."""
        if not self._changed:
            return
        value = {name: known.to_json() for name, known in self._known.items()}
        with suppress(OSError):
            write_json(self._path, value)

    def _of(self, path: Path) -> tuple[str, int]:
        try:
            if not path.is_dir():
                return self._of_file(path)
            files = sorted(each for each in path.rglob("*") if each.is_file())
            entries = {
                each.relative_to(path).as_posix(): self._of_file(each) for each in files
            }
        except OSError as error:
            raise CheckpointError(
                f"{path} can't be read: {error.strerror}", "make it readable"
            ) from None
        together = joint_sha256({name: digest for name, (digest, _) in entries.items()})
        return together, sum(size for _, size in entries.values())

    def _of_file(self, path: Path) -> tuple[str, int]:
        found = path.stat()
        state = [found.st_size, found.st_mtime_ns, found.st_ino]
        known = self._known.get(str(path))
        if known is not None and known.state == state:
            return known.sha256, found.st_size
        digest = sha256(path)
        if _now() - found.st_mtime_ns > _RECENT:
            self._known[str(path)] = _Known(state=state, sha256=digest)
            self._changed = True
        return digest, found.st_size


def _now() -> int:
    import time

    return time.time_ns()
