"""Assembling a release: exactly the files of a Hub repository, taken from artifacts
whose parity was checked.

release.json is its manifest (path → size, sha256), and SHA256SUMS repeats it for
`sha256sum -c`. Neither holds a version, a time or a commit, so that the same artifacts
give the same bytes; the tag on the Hub names the version.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from checkpoint_release.core.artifacts.formats import FORMATS, ONNX
from checkpoint_release.core.artifacts.manifest import MANIFEST, Manifest, read_manifest
from checkpoint_release.core.artifacts.parity import (
    PARITY_FOLDER,
    RELEASED_REPORT,
    REPORT,
    Machine,
    read_report,
)
from checkpoint_release.core.artifacts.release import (
    CARD,
    RELEASE,
    SBOM,
    SIGNATURE,
    SUMS,
    Evidence,
    Listing,
    Release,
    Runnable,
    Sample,
    digest_of,
)
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import (
    REMAKE,
    FileEntry,
    artifact_folder,
    copy_file,
    sha256,
)
from checkpoint_release.page.files import FOLDER as PAGE
from checkpoint_release.page.files import page_files
from checkpoint_release.release.sbom import installed_versions, write_sbom
from checkpoint_release.release.signing import sign

FOLDER = "release"
"""The release's folder among the artifacts."""

_WRITTEN_HERE = frozenset({RELEASE, SUMS, SIGNATURE, SBOM})
_EVIDENCE = frozenset({RELEASED_REPORT, CARD})
"""The files of a release that hold measured figures."""


@dataclass(frozen=True)
class Source:
    """A file to release: where it is copied from, and what it must be."""

    path: Path
    entry: FileEntry


def assemble(
    artifacts: Path,
    *,
    card: Literal["replace", "keep"] = "replace",
    page: bool = False,
    pins: Path | None = None,
    signing_key: Path | None = None,
) -> Path:
    """Write artifacts/release, whole or not at all.

    Args:
        artifacts: the folder of all artifacts.
        card: "keep" leaves the card out of the manifest and the signature, because
            people may edit it on the Hub.
        page: whether a page that runs the ONNX model in browsers goes along; without
            that model there is none.
        pins: a constraints file; its packages go into a bill of materials. None: there
            is none.
        signing_key: a private key in PEM to sign with. None: the release isn't signed.

    Returns:
        The release's folder.

    Raises:
        ArtifactError: an artifact is missing, isn't what its manifest lists, or isn't
            what the parity check passed.
        PublishError: the release can't be written as asked.
    """
    formats = _enabled_formats(artifacts)
    report = read_report(artifacts / PARITY_FOLDER / REPORT)
    report.require_passed(artifacts, formats)
    sources = _sources(artifacts, formats)
    if page and ONNX.name in formats:
        _add_page(sources)
    left_to_people = [CARD] if card == "keep" else []
    folder = artifacts / FOLDER
    try:
        with artifact_folder(folder) as staging:
            files = _copy_all(sources, staging)
            if pins:
                write_sbom(staging / SBOM, files, installed_versions(pins))
                files[SBOM] = FileEntry.of(staging / SBOM)
            for name in left_to_people:
                del files[name]
            _describe(staging, formats, card, files, report.machine)
            if signing_key:
                sign(staging, signing_key, ignored=left_to_people)
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing", REMAKE) from None
    except OSError as error:
        raise _not_writable(folder, sources, error) from None
    return folder


def _enabled_formats(artifacts: Path) -> dict[str, Manifest]:
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


def _sources(artifacts: Path, formats: Mapping[str, Manifest]) -> dict[str, Source]:
    """Path in the release → the artifact that it is a copy of.

    Raises:
        ArtifactError: an artifact is missing or out of date.
        PublishError: two files would have one path.
    """
    sources: dict[str, Source] = {}
    for name, manifest in formats.items():
        for file, entry in manifest.files.items():
            path = FORMATS[name].path_in_release(file)
            _add(sources, path, Source(artifacts / name / file, entry))
    sample = Sample()
    for file in (sample.inputs, sample.outputs):
        _add(sources, file, _current_source(artifacts, PARITY_FOLDER, file))
    _add(sources, CARD, _current_source(artifacts, "model-card", CARD))
    report = _current_source(artifacts, PARITY_FOLDER, REPORT)
    _add(sources, RELEASED_REPORT, report)
    return sources


def _add_page(sources: dict[str, Source]) -> None:
    """Add the page's own files.

    Raises:
        PublishError: an artifact has a file of that name.
    """
    for name, path in page_files().items():
        _add(sources, f"{PAGE}/{name}", Source(path, FileEntry.of(path)))


def _add(sources: dict[str, Source], path: str, source: Source) -> None:
    """Add a file under a path that must be free.

    Raises:
        PublishError: it is taken.
    """
    if path in _WRITTEN_HERE:
        raise PublishError(
            f"{source.path} would be {path} in the release, which is a file of the"
            " release itself",
            "rename the file",
        )
    if path in sources:
        raise PublishError(
            f"{source.path} would be {path} in the release, and so would"
            f" {sources[path].path}",
            "rename the file",
        )
    sources[path] = source


def _current_source(artifacts: Path, folder: str, file: str) -> Source:
    """A file of a folder that was derived from the artifacts that are released.

    Raises:
        ArtifactError: it was derived from others, or its manifest doesn't list it.
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
    if file not in manifest.files:
        raise ArtifactError(
            f"{artifacts / folder / MANIFEST} does not list {file}", REMAKE
        )
    return Source(artifacts / folder / file, manifest.files[file])


def _copy_all(sources: Mapping[str, Source], folder: Path) -> dict[str, FileEntry]:
    """Copy the files into a folder, digesting them on the way.

    Raises:
        ArtifactError: one isn't what its manifest lists.
    """
    files = {}
    for name, source in sorted(sources.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files[name] = copy_file(source.path, folder / name)
        if files[name] != source.entry:
            raise ArtifactError(
                f"{source.path} was changed after it was written: it has sha256"
                f" {files[name].sha256[:12]}…, but its manifest lists"
                f" {source.entry.sha256[:12]}…",
                REMAKE,
            )
    return files


def _describe(
    folder: Path,
    formats: Mapping[str, Manifest],
    card: Literal["replace", "keep"],
    files: Mapping[str, FileEntry],
    machine: Machine,
) -> None:
    """Write release.json and SHA256SUMS.

    Args:
        folder: the release.
        formats: the manifests of the enabled formats, by name.
        card: as for assemble.
        files: of the release, by path.
        machine: that the figures were measured on.
    """
    built: dict[str, FileEntry] = {}
    measured: dict[str, FileEntry] = {}
    for name, entry in sorted(files.items()):
        group = measured if name in _EVIDENCE else built
        group[name] = entry
    release = Release(
        formats=_runnables(formats),
        sample=Sample(),
        card=card,
        built=Listing(sha256=digest_of(built), files=built),
        evidence=Evidence(sha256=digest_of(measured), machine=machine, files=measured),
    )
    release.write(folder / RELEASE)
    text = release.checksums(sha256(folder / RELEASE))
    (folder / SUMS).write_text(text, encoding="utf-8")


def _runnables(formats: Mapping[str, Manifest]) -> dict[str, Runnable]:
    """What computes: each format, and the variants that its manifest names."""
    runnables = {}
    for name, manifest in formats.items():
        format = FORMATS[name]
        runnables[name] = Runnable(format=name, path=format.path_in_release())
        for variant in manifest.facts.get("variants", []):
            runnables[f"{name} {variant['precision']}"] = Runnable(
                format=name, path=format.path_in_release(variant["file"])
            )
    return runnables


def _not_writable(
    folder: Path, sources: Mapping[str, Source], error: OSError
) -> PublishError:
    problem = f"the release can't be written to {folder}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        size = sum(source.entry.size for source in sources.values())
        problem += f" (it takes {size:,} bytes)"
    return PublishError(
        problem,
        "make room on the disk or check it, and assemble the release again",
    )
