"""manifest.json: what an artifact folder holds, every file with its size and sha256.

Stages hand each other folders with manifests, and know nothing else of each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE, FileEntry, read_json, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What an artifact folder holds and what it was made from.

    Attributes:
        format: the artifact's kind, such as "onnx".
        enabled: False for a format that params.yaml switches off; its folder holds
            nothing else.
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

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def verify(self, folder: Path) -> None:
        """Check the folder against the manifest, byte for byte.

        Raises:
            ArtifactError: a file is missing, left over, or isn't what it was.
        """
        present = digests(folder)
        for name in sorted(self.files.keys() | present.keys()):
            if name not in present:
                raise ArtifactError(
                    f"{folder / name} is missing, and {folder / MANIFEST} lists it",
                    REMAKE,
                )
            if name not in self.files:
                raise ArtifactError(
                    f"{folder / name} is not in {folder / MANIFEST}", REMAKE
                )
            if present[name] != self.files[name]:
                raise ArtifactError(
                    f"{folder / name} was changed after it was written:"
                    f" {present[name].size} bytes with sha256"
                    f" {present[name].sha256[:12]}…, and {MANIFEST} says"
                    f" {self.files[name].size} bytes with"
                    f" {self.files[name].sha256[:12]}…",
                    REMAKE,
                )


def digests(
    folder: Path, known: Mapping[str, FileEntry] | None = None
) -> dict[str, FileEntry]:
    """Every file below the folder but its manifest (and DVC's own .gitignore), sorted
    by path.

    Args:
        folder: where to look.
        known: files that were digested when they were written, by relative path.
    """
    known = known or {}
    left_out = {folder / MANIFEST, *folder.rglob(".gitignore")}
    paths = sorted(
        path for path in folder.rglob("*") if path.is_file() and path not in left_out
    )
    names = [path.relative_to(folder).as_posix() for path in paths]

    def entry(name: str) -> FileEntry:
        return known.get(name) or FileEntry.of(folder / name)

    # hashing leaves the interpreter free
    with ThreadPoolExecutor(os.cpu_count()) as pool:
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
    """Digest what the folder holds and write its manifest.json; for `known` see
    digests.
    """
    manifest = Manifest(
        format,
        enabled,
        digests(folder, known),
        dict(made_from or {}),
        dict(facts or {}),
    )
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
    """Read a folder's manifest.json, without looking at the files (see
    Manifest.verify).

    Raises:
        ArtifactError: it is missing or isn't a manifest.
    """
    value = read_json(folder / MANIFEST)
    try:
        files = {name: FileEntry(**entry) for name, entry in value["files"].items()}
        return Manifest(
            value["format"], value["enabled"], files, value["made_from"], value["facts"]
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{folder / MANIFEST} is not a manifest: {error!r}", REMAKE
        ) from None
