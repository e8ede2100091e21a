"""What goes into a release: files of artifacts, and the author's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from checkpoint_release.core.artifacts.attestation import PROOF, PROVENANCE, RECORD
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.manifest import MANIFEST, Manifest, read_manifest
from checkpoint_release.core.artifacts.parity import (
    PARITY_FOLDER,
    RELEASED_REPORT,
    REPORT,
)
from checkpoint_release.core.artifacts.release import (
    CARD,
    EXAMPLE_PICTURE,
    PICTURES,
    RELEASE,
    SBOM,
    SIGNATURE,
    SUMS,
    Sample,
)
from checkpoint_release.core.artifacts.released_files import released_files
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import REMAKE, FileEntry, sha256

Kind = Literal["built", "evidence", "extra"]
"""Where release.json lists a file; see Release."""

CARD_FOLDER = "model-card"
_EXAMPLE = f"{PICTURES}/{EXAMPLE_PICTURE}"
_WRITTEN_HERE = frozenset(
    name.casefold()
    for name in (RELEASE, SUMS, SIGNATURE, SBOM, PROVENANCE, PROOF, RECORD)
)


@dataclass(frozen=True)
class Source:
    """A file to release.

    Attributes:
        path: where it is copied from.
        entry: what it must be; None: the author's own file, which may be anything.
        kind: what it is to the release.
    """

    path: Path
    entry: FileEntry | None
    kind: Kind = "built"


Sources = dict[str, Source]
"""Path in the release → the file that it is a copy of."""


def enabled_formats(artifacts: Path) -> dict[str, Manifest]:
    """Name of each format that is switched on → its manifest.

    Raises:
        PublishError: there is none.
    """
    enabled = {}
    for name in FORMATS:
        manifest = read_manifest(artifacts / name)
        if manifest.enabled:
            enabled[name] = manifest
    if not enabled:
        raise PublishError(
            f"no format in {artifacts} is enabled",
            "enable at least one of {formats}, and export it",
            options=["formats"],
        )
    return enabled


def artifact_sources(artifacts: Path, formats: Mapping[str, Manifest]) -> Sources:
    """The files of the artifacts.

    Raises:
        ArtifactError: an artifact is missing or out of date.
        PublishError: two files would have one path.
    """
    sources: Sources = {}
    for released in released_files(formats):
        path = artifacts / released.format / released.path
        add_source(sources, released.name, Source(path, released.entry))
    sample = Sample()
    parity = _current_sources(
        artifacts, PARITY_FOLDER, (sample.inputs, sample.outputs, REPORT)
    )
    for file in (sample.inputs, sample.outputs):
        add_source(sources, file, parity[file])
    card = _current_sources(artifacts, CARD_FOLDER, (CARD,))
    for file, source in card.items():  # the card and its pictures
        kind: Kind = "built" if file == _EXAMPLE else "evidence"
        add_source(sources, file, replace(source, kind=kind))
    add_source(sources, RELEASED_REPORT, replace(parity[REPORT], kind="evidence"))
    return sources


def add_source(sources: Sources, path: str, source: Source) -> None:
    """Add a file under a path that must be free, also where case doesn't count.

    Raises:
        PublishError: it is taken.
    """
    if path.casefold() in _WRITTEN_HERE:
        raise PublishError(
            f"{source.path} would be {path} in the release, which is a file of the"
            " release itself",
            "rename the file",
        )
    for taken, other in sources.items():
        if taken.casefold() == path.casefold():
            raise PublishError(
                f"{source.path} would be {path} in the release, and so would"
                f" {other.path}",
                "rename the file",
            )
    sources[path] = source


def _current_sources(artifacts: Path, folder: str, needed: Iterable[str]) -> Sources:
    """The files of a folder that was derived from the artifacts that are released.

    Args:
        artifacts: the folder of all artifacts.
        folder: its name.
        needed: files that it must have.

    Raises:
        ArtifactError: it was derived from others, or its manifest lacks a needed file.
    """
    manifest = read_manifest(artifacts / folder)
    for name, digest in manifest.made_from.items():
        origin = artifacts / name
        if origin.is_dir():
            origin /= MANIFEST
        if origin.is_file() and sha256(origin) != digest:
            raise ArtifactError(
                f"{artifacts / folder} was made from another {origin} than the current"
                " one",
                REMAKE,
            )
    for file in needed:
        if file not in manifest.files:
            raise ArtifactError(
                f"{artifacts / folder / MANIFEST} does not list {file}", REMAKE
            )
    return {
        file: Source(artifacts / folder / file, entry)
        for file, entry in manifest.files.items()
    }
