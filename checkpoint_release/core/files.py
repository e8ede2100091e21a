"""Canonical JSON, digests, and files and folders written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.json_text import MAX_SIZE, JsonError, parse_json
from checkpoint_release.core.leftovers import (
    RETIRED,
    follow_umask,
    held,
    sweep_leftovers,
)

_BLOCK = 1 << 20  # bytes
REMAKE = "make it again, or get a whole copy of it"


def canonical_json(value: Any) -> str:
    """The one text of a value: indented by two, in insertion order, with a newline.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON lacks.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON, whole or not at all."""
    replace_file(path, canonical_json(value).encode())


def read_json(path: Path, max_size: int = MAX_SIZE) -> Any:
    """Read a JSON file of an artifact.

    Args:
        path: of the file.
        max_size: bytes that are read at most.

    Raises:
        ArtifactError: the file is missing, can't be read, or isn't JSON within the
            bounds of parse_json.
    """
    try:
        with path.open("rb") as file:
            return parse_json(file.read(max_size + 1), max_size)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", REMAKE) from None
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error.strerror}", REMAKE) from None
    except JsonError as error:
        raise ArtifactError(f"{path} is {error}", REMAKE) from None


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file by renaming, so that readers see either the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, held(file.fileno()):
            file.write(content)
            follow_umask(temporary)
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The file's sha256 in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(digests: Mapping[str, str]) -> str:
    """One line a file, sorted by path, as `sha256sum -c` reads them.

    Args:
        digests: path → sha256 in lower-case hex.
    """
    lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
    return "".join(lines)


def joint_sha256(digests: Mapping[str, str]) -> str:
    """One digest of many files: the sha256 of their checksums' text.

    Args:
        digests: path → sha256 in lower-case hex.
    """
    return hashlib.sha256(checksums(digests).encode()).hexdigest()


@contextmanager
def artifact_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write to, which replaces `path` at the end.

    After an error it is removed, and `path` stays as it was. What a run that was killed
    left of it is removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    handle = os.open(temporary, os.O_RDONLY)
    try:
        with held(handle):
            yield temporary
            follow_umask(temporary)
            _exchange(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _exchange(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another, or leave both as they are.

    A folder can't be renamed over one that holds files, so the old one steps aside. Of
    a run that is killed in between, `sweep_leftovers` brings it back.
    """
    retired = temporary.with_name(temporary.name + RETIRED)
    if path.exists():
        path.rename(retired)
    try:
        temporary.rename(path)
    except BaseException:
        if retired.exists():
            retired.rename(path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact.

    Attributes:
        size: in bytes.
        sha256: in lower-case hex.
    """

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Digest a file."""
        return cls(path.stat().st_size, sha256(path))


class DigestedFile:
    """A file that is digested while it is written.

    A thread reads behind the writer, while the pages are still in memory. A digest
    takes as long as the writing, so with a second core it costs no time.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError where it can't be written."""
        self._path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = self._unflushed = 0
        self._more, self._ended = Event(), False
        self._pool = ThreadPoolExecutor(1)
        self._following = self._pool.submit(self._follow)

    def write(self, block: bytes | memoryview) -> int:
        """Append all of the bytes, and return their number."""
        written = self._file.write(block)
        self._size += written
        self._unflushed += written
        if self._unflushed >= _BLOCK:
            self._file.flush()
            self._unflushed = 0
            self._more.set()
        return written

    @property
    def entry(self) -> FileEntry:
        """Size and digest, once the file is closed."""
        return FileEntry(self._size, self._digest.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
        finally:
            self._ended = True
            self._more.set()
            self._pool.shutdown()
        self._following.result()

    def _follow(self) -> None:
        with self._path.open("rb", buffering=0) as behind:
            ended = False
            while not ended:
                self._more.wait()
                self._more.clear()
                # Noted before reading on, so that nothing can follow the last block.
                ended = self._ended
                while block := behind.read(_BLOCK):
                    self._digest.update(block)


def copy_file(source: Path, destination: Path) -> FileEntry:
    """Copy a file, and digest it on the way."""
    with source.open("rb") as read, DigestedFile(destination) as write:
        shutil.copyfileobj(read, write, _BLOCK)
    return write.entry


def require_room(folder: Path, size: int, what: str) -> None:
    """Require room on a disk before anything is written to it.

    Some libraries end the process when a disk is full, and then nobody says why.

    Args:
        folder: where it will be written.
        size: in bytes.
        what: is written, for the message.

    Raises:
        ArtifactError: the disk has less left.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ArtifactError(
            f"{what} takes {size:,} bytes, and the disk of {folder} has {free:,} left",
            "make room, and run it again",
        )
