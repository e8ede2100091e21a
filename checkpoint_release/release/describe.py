"""release.json, which lists a release's files by what they are, and what goes with it.

That is SHA256SUMS, and CHANGELOG.md where it is known what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.further_files import further_files
from checkpoint_release.core.artifacts.manifest import Manifest
from checkpoint_release.core.artifacts.parity import Machine
from checkpoint_release.core.artifacts.release import (
    CHANGES,
    RELEASE,
    SUMS,
    Evidence,
    Listing,
    Release,
    Runnable,
    Sample,
    TensorEntry,
    digest_of,
)
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.release.contents import Kind
from checkpoint_release.release.weights import tensor_entry, weight_file
from checkpoint_release.tensors.safetensors import open_sharded

_GRAPH_FACTS = ("opset", "ir_version", "exporter", "nodes")
"""What a manifest says about a graph that a user of the release should know."""


def description(
    folder: Path,
    formats: Mapping[str, Manifest],
    card: Literal["replace", "keep"],
    files: Mapping[str, FileEntry],
    kinds: Mapping[str, Kind],
    machine: Machine,
) -> Release:
    """What release.json will say.

    Args:
        folder: of the release, with its files.
        formats: the manifests of the enabled formats, by name.
        card: as for assemble.
        files: of the release, by path.
        kinds: of each of them.
        machine: that the figures were measured on.

    Raises:
        ArtifactError: a file with weights isn't whole.
    """
    groups: dict[Kind, dict[str, FileEntry]] = {
        "built": {},
        "evidence": {},
        "extra": {},
    }
    for name, entry in sorted(files.items()):
        groups[kinds[name]][name] = entry
    built, measured, extra = groups["built"], groups["evidence"], groups["extra"]
    return Release(
        formats=_runnables(formats),
        sample=Sample(),
        card=card,
        built=Listing(sha256=digest_of(built), files=built),
        evidence=Evidence(sha256=digest_of(measured), machine=machine, files=measured),
        extra=Listing(sha256=digest_of(extra), files=extra),
        tensors=_tensors(folder, files),
    )


def with_changes(folder: Path, release: Release, text: str) -> Release:
    """Write CHANGELOG.md, and list it.

    Args:
        folder: the release.
        release: its description without that file.
        text: what changed since the version before.
    """
    path = folder / CHANGES
    path.write_text(text, encoding="utf-8", newline="\n")
    return with_evidence(release, {CHANGES: FileEntry.of(path)})


def with_evidence(release: Release, added: Mapping[str, FileEntry]) -> Release:
    """A release's description with further files of evidence: path → file."""
    files = dict(sorted({**release.evidence.files, **added}.items()))
    evidence = Evidence(
        sha256=digest_of(files), machine=release.evidence.machine, files=files
    )
    return msgspec.structs.replace(release, evidence=evidence)


def write_description(folder: Path, release: Release) -> None:
    """Write release.json and SHA256SUMS."""
    release.write(folder / RELEASE)
    text = release.checksums(sha256(folder / RELEASE))
    (folder / SUMS).write_text(text, encoding="utf-8")


def _tensors(folder: Path, files: Mapping[str, FileEntry]) -> dict[str, TensorEntry]:
    """The tensors of the release's safetensors files, digested.

    Args:
        folder: the release.
        files: of the release, by path.

    Raises:
        ArtifactError: a file isn't whole.
    """
    if not any(weight_file(name) for name in files):
        return {}
    weights = open_sharded(folder)
    return {name: tensor_entry(weights[name]) for name in sorted(weights)}


def _runnables(formats: Mapping[str, Manifest]) -> dict[str, Runnable]:
    """What computes: each format, and the variants that its manifest names."""
    runnables = {}
    for name, manifest in formats.items():
        format = FORMATS[name]
        facts = {
            fact: manifest.facts[fact]
            for fact in _GRAPH_FACTS
            if isinstance(manifest.facts.get(fact), int | str)
        }
        path = format.path_in_release()
        runnables[name] = Runnable(format=name, path=path, facts=facts)
        for further in further_files(name, manifest):
            runnables[further.name] = Runnable(
                format=name,
                path=format.path_in_release(further.file),
                facts={f"fixed {key}": size for key, size in further.sizes.items()},
            )
    return runnables
