"""Files that can be trusted: canonical JSON, digests, whole-or-nothing folders, and manifests.

A manifest says what an artifact folder holds: every file with its size and sha256. Stages hand each
other folders with manifests, and know nothing else of each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Any, Self

from checkpoint_release.core.errors import ArtifactError

MANIFEST = "manifest.json"
_BLOCK = 1 << 20  # bytes


def canonical_json(value: Any) -> str:
    """The one text that a value has: two spaces, UTF-8, insertion order, a newline at the end.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON doesn't have.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON, whole or not at all."""
    replace_file(path, canonical_json(value).encode())


def read_json(path: Path) -> Any:
    """Read JSON that a stage wrote.

    Raises:
        ArtifactError: the file is missing or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing", _REBUILD) from None
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON: {error}", _REBUILD) from None


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in place in one rename, so that a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """The file's sha256 in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def artifact_folder(path: Path) -> Iterator[Path]:
    """An empty folder to write to, which takes the place of `path` when all went well.

    On any error it is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o755)
        yield temporary
        retired = temporary.with_name(temporary.name + ".old")
        if path.exists():
            # A folder can't be renamed over one that holds files, so the old one steps aside first.
            path.rename(retired)
        try:
            temporary.rename(path)
        except BaseException:
            if retired.exists():
                retired.rename(path)
            raise
        shutil.rmtree(retired, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: size in bytes, sha256 in lower-case hex."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """Read a file and digest it."""
        return cls(path.stat().st_size, sha256(path))


class DigestedFile:
    """A file to write, digested on the way.

    A thread reads behind the writer, while the pages are still in memory: a digest takes as long as the writing, and
    so costs no time where there is a second core.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises OSError where it can't be written."""
        self._path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = self._unseen = 0
        self._more, self._ended = Event(), False
        self._pool = ThreadPoolExecutor(1)
        self._following = self._pool.submit(self._follow)

    def write(self, block: bytes | memoryview) -> int:
        """Append bytes, all of them; returns their number."""
        written = self._file.write(block)
        self._size += written
        self._unseen += written
        if self._unseen >= _BLOCK:
            self._file.flush()
            self._unseen = 0
            self._more.set()
        return written

    @property
    def entry(self) -> FileEntry:
        """Size and digest, once the file is closed."""
        return FileEntry(self._size, self._digest.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
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
                ended = self._ended  # seen before reading on, so that nothing comes after the last block
                while block := behind.read(_BLOCK):
                    self._digest.update(block)


def copy_file(source: Path, destination: Path) -> FileEntry:
    """Copy a file's bytes and digest them."""
    with source.open("rb") as read, DigestedFile(destination) as write:
        shutil.copyfileobj(read, write, _BLOCK)
    return write.entry


@dataclass(frozen=True)
class Manifest:
    """What an artifact folder holds and what it was made from.

    Attributes:
        format: the artifact's kind, such as "onnx".
        enabled: False for a format that params.yaml switches off; its folder holds nothing else.
        files: relative POSIX path → size and digest, sorted by path.
        made_from: name of an input → sha256 of it.
        facts: what else the maker says of it (the opset, versions of the libraries, …).
    """

    format: str
    enabled: bool
    files: dict[str, FileEntry]
    made_from: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256s(self) -> dict[str, str]:
        """Relative path → sha256, as `made_from` of what is made from this folder."""
        return {name: entry.sha256 for name, entry in self.files.items()}

    def verify(self, folder: Path) -> None:
        """Check the folder against the manifest, byte for byte.

        Raises:
            ArtifactError: a file is missing, left over, or isn't what it was.
        """
        present = digests(folder)
        for name in sorted(self.files.keys() | present.keys()):
            if name not in present:
                raise ArtifactError(f"{folder / name} is missing, and {folder / MANIFEST} lists it", _REBUILD)
            if name not in self.files:
                raise ArtifactError(f"{folder / name} is not in {folder / MANIFEST}", _REBUILD)
            if present[name] != self.files[name]:
                raise ArtifactError(
                    f"{folder / name} was changed after it was written: {present[name].size} bytes with sha256 "
                    f"{present[name].sha256[:12]}…, and {MANIFEST} says {self.files[name].size} bytes with "
                    f"{self.files[name].sha256[:12]}…",
                    _REBUILD,
                )


_REBUILD = "run `dvc repro`, or `dvc checkout` to bring the last good artifacts back"


def digests(folder: Path, known: Mapping[str, FileEntry] | None = None) -> dict[str, FileEntry]:
    """Every file below the folder but its manifest (and DVC's own .gitignore), sorted by path.

    Args:
        folder: where to look.
        known: files that were digested when they were written, by relative path.
    """
    known = known or {}
    left_out = {folder / MANIFEST, *folder.rglob(".gitignore")}
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path not in left_out)
    names = [path.relative_to(folder).as_posix() for path in paths]

    def entry(name: str) -> FileEntry:
        return known.get(name) or FileEntry.of(folder / name)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing leaves the interpreter free
        return dict(zip(names, pool.map(entry, names), strict=True))


def write_manifest(
    folder: Path,
    format: str,
    *,
    enabled: bool = True,
    made_from: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    known: Mapping[str, FileEntry] | None = None,
) -> Manifest:
    """Digest what the folder holds and write its manifest.json; for `known` see digests."""
    manifest = Manifest(format, enabled, digests(folder, known), dict(made_from or {}), dict(facts or {}))
    write_json(folder / MANIFEST, asdict(manifest))
    return manifest


def read_verified(artifacts: Path, names: Iterable[str]) -> dict[str, Manifest]:
    """The manifests of several of the artifacts' folders, by name, each verified.

    Raises:
        ArtifactError: as read_manifest and Manifest.verify.
    """
    manifests = {name: read_manifest(artifacts / name) for name in names}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: manifests[name].verify(artifacts / name), manifests))
    return manifests


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.json, without looking at the files (see Manifest.verify).

    Raises:
        ArtifactError: it is missing or isn't a manifest.
    """
    value = read_json(folder / MANIFEST)
    try:
        files = {name: FileEntry(**entry) for name, entry in value["files"].items()}
        return Manifest(value["format"], value["enabled"], files, value["made_from"], value["facts"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder / MANIFEST} is not a manifest: {error!r}", _REBUILD) from None
