"""manifest.json: what an artifact folder holds, every file with its size and sha256."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE, FileEntry

MANIFEST = "manifest.json"


class Manifest(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What an artifact folder holds, and what it was made from.

    Attributes:
        format: the artifact's kind, such as "onnx".
        enabled: False for a format that is switched off; its folder holds nothing else.
        files: relative POSIX path → size and digest, sorted by path.
        made_from: name of an input → its sha256.
        facts: what else is known about it, such as the opset and library versions.
    """

    format: str
    enabled: bool
    files: dict[str, FileEntry]
    made_from: dict[str, str]
    facts: dict[str, Any]

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

        Args:
            folder: that the manifest was read from.

        Raises:
            ArtifactError: a file is missing, unlisted, or isn't what it was.
        """
        present = digests(folder)
        for name in sorted(self.files.keys() | present.keys()):
            if name not in present:
                problem = f"is missing, and {folder / MANIFEST} lists it"
            elif name not in self.files:
                problem = f"is not in {folder / MANIFEST}"
            elif present[name] != self.files[name]:
                problem = _change(self.files[name], present[name])
            else:
                continue
            raise ArtifactError(f"{folder / name} {problem}", REMAKE)


def _change(listed: FileEntry, present: FileEntry) -> str:
    """How a file differs from what the manifest lists, for a message.

    Args:
        listed: size and digest when it was written.
        present: size and digest now.
    """
    return (
        f"was changed after it was written: {present.size} bytes with sha256"
        f" {present.sha256[:12]}…, and {MANIFEST} says {listed.size} bytes with"
        f" {listed.sha256[:12]}…"
    )


def digests(
    folder: Path, known: Mapping[str, FileEntry] | None = None
) -> dict[str, FileEntry]:
    """Every file below the folder but its manifest and DVC's own .gitignore.

    Args:
        folder: where to look.
        known: files that were digested when they were written, by relative path.

    Returns:
        Relative POSIX path → size and digest, sorted by path.
    """
    entries = dict(known or {})
    left_out = {folder / MANIFEST, *folder.rglob(".gitignore")}
    paths = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in left_out:
            paths.append(path.relative_to(folder).as_posix())
    unknown = [path for path in paths if path not in entries]
    # Hashing leaves the interpreter free.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digested = pool.map(FileEntry.of, [folder / path for path in unknown])
        entries |= zip(unknown, digested, strict=True)
    return {path: entries[path] for path in paths}


def write_manifest(
    folder: Path,
    format: str,
    *,
    enabled: bool = True,
    made_from: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    known: Mapping[str, FileEntry] | None = None,
) -> Manifest:
    """Digest what the folder holds, and write its manifest.json.

    Args:
        folder: the artifact's folder, complete.
        format: the artifact's kind.
        enabled: see Manifest.
        made_from: see Manifest.
        facts: see Manifest; values that JSON has.
        known: see digests.
    """
    manifest = Manifest(
        format=format,
        enabled=enabled,
        files=digests(folder, known),
        made_from=dict(made_from or {}),
        facts=dict(facts or {}),
    )
    manifest.write(folder / MANIFEST)
    return manifest


def read_verified(artifacts: Path, names: Iterable[str]) -> dict[str, Manifest]:
    """The manifests of several folders, each verified.

    Args:
        artifacts: the folder of all artifacts.
        names: of the folders in it.

    Returns:
        Name → manifest, in the order of the names.

    Raises:
        ArtifactError: as read_manifest and Manifest.verify.
    """
    manifests = {name: read_manifest(artifacts / name) for name in names}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda name: manifests[name].verify(artifacts / name), manifests))
    return manifests


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.json; Manifest.verify looks at the files.

    Raises:
        ArtifactError: it is missing or isn't a manifest.
    """
    return read_record(folder / MANIFEST, Manifest)
