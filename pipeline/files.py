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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ArtifactError

MANIFEST = "manifest.json"


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
        temporary.rename(path)
        shutil.rmtree(retired, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: size in bytes, sha256 in lower-case hex."""

    size: int
    sha256: str


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


def digests(folder: Path) -> dict[str, FileEntry]:
    """Every file below the folder but its manifest (and DVC's own .gitignore), sorted by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".gitignore")
    return {
        path.relative_to(folder).as_posix(): FileEntry(path.stat().st_size, sha256(path))
        for path in paths
        if path != folder / MANIFEST
    }


def write_manifest(
    folder: Path,
    format: str,
    *,
    enabled: bool = True,
    made_from: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Manifest:
    """Digest what the folder holds and write its manifest.json."""
    manifest = Manifest(format, enabled, digests(folder), dict(made_from or {}), dict(facts or {}))
    write_json(folder / MANIFEST, asdict(manifest))
    return manifest


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
