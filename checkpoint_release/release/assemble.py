"""Assembling a release: exactly the files of a Hub repository, taken from artifacts
whose parity was checked.

release.json is its manifest (path → size, sha256), and SHA256SUMS repeats it for
`sha256sum -c`. Neither holds a version, a time or a commit, so that the same artifacts
give the same bytes; the tag on the Hub names the version.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from checkpoint_release.core.artifacts.attestation import (
    PROOF,
    PROVENANCE,
    Making,
)
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    CheckpointFacts,
)
from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.manifest import MANIFEST, Manifest, read_manifest
from checkpoint_release.core.artifacts.parity import (
    PARITY_FOLDER,
    RELEASED_REPORT,
    REPORT,
    Machine,
    ParityReport,
    read_report,
)
from checkpoint_release.core.artifacts.release import (
    CARD,
    CHANGES,
    RELEASE,
    SBOM,
    SIGNATURE,
    SUMS,
    Evidence,
    Listing,
    Release,
    Runnable,
    Sample,
    TensorEntry,
    digest_of,
)
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import (
    REMAKE,
    FileEntry,
    artifact_folder,
    copy_file,
    sha256,
)
from checkpoint_release.core.signing_keys import (
    fingerprint_of_signing_key,
    named_fingerprint,
)
from checkpoint_release.release.environment import Package
from checkpoint_release.release.extra import extra_files, require_linked_files
from checkpoint_release.release.making import write_attestations
from checkpoint_release.release.sbom import ModelFacts, front_matter, write_sbom
from checkpoint_release.release.signing import sign
from checkpoint_release.release.weights import tensor_entry, weight_file
from checkpoint_release.tensors.safetensors import open_sharded

FOLDER = "release"
"""The release's folder among the artifacts."""

Changes = Callable[[Path, Release], str | None]
"""Makes the text of CHANGELOG.md, or None, of the folder in which a release is made and
its description without that file.
"""

_WRITTEN_HERE = frozenset(
    name.casefold() for name in (RELEASE, SUMS, SIGNATURE, SBOM, PROVENANCE, PROOF)
)
_EVIDENCE = frozenset({RELEASED_REPORT, CARD, SBOM})
"""The files of a release that hold measured figures, or state what was installed."""
_GRAPH_FACTS = ("opset", "ir_version", "exporter", "nodes")
"""What a manifest says about a graph that a user of the release should know."""


@dataclass(frozen=True)
class Source:
    """A file to release.

    Attributes:
        path: where it is copied from.
        entry: what it must be; None: the author's own file, which may be anything.
    """

    path: Path
    entry: FileEntry | None


def assemble(
    artifacts: Path,
    *,
    card: Literal["replace", "keep"] = "replace",
    packages: Mapping[str, Package] | None = None,
    signing_key: Path | None = None,
    extra: Path | None = None,
    changes: Changes | None = None,
    making: Callable[[CheckpointFacts], Making] | None = None,
) -> Path:
    """Write artifacts/release, whole or not at all.

    Args:
        artifacts: the folder of all artifacts.
        card: "keep" leaves the card out of the manifest and the signature, because
            people may edit it on the Hub.
        packages: those that computed the release, by name, for a bill of materials.
            None: there is none.
        signing_key: a private key in PEM to sign with. None: the release isn't signed.
        extra: a folder whose files go along as they are. None: none do.
        changes: makes the text of CHANGELOG.md. None: there is none.
        making: how the release was made, given what is known of the checkpoint; it goes
            into a signed release as an attestation. None: there are no attestations.

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
    own_files = extra_files(extra) if extra else {}
    for name, path in own_files.items():
        _add(sources, name, Source(path, None))
    require_linked_files(_card_text(sources[CARD].path), sources)
    if signing_key:
        _require_right_key(_card_text(sources[CARD].path), signing_key)
    left_to_people = [CARD] if card == "keep" else []
    folder = artifacts / FOLDER
    try:
        with artifact_folder(folder) as staging:
            files = _copy_all(sources, staging)
            if packages is not None:
                facts = _model_facts(artifacts, report)
                write_sbom(staging / SBOM, files, packages, facts)
                files[SBOM] = FileEntry.of(staging / SBOM)
            for name in left_to_people:
                del files[name]
            release = _release(formats, card, files, report.machine, own_files)
            release = msgspec.structs.replace(release, tensors=_tensors(staging, files))
            if changes and CHANGES not in files:
                release = _with_changes(staging, release, changes(staging, release))
            if signing_key and making:
                made = making(_checkpoint_facts(artifacts))
                attested = write_attestations(
                    staging, release.files, made, report, signing_key
                )
                release = _with_evidence(release, attested)
            _describe(staging, release)
            if signing_key:
                sign(staging, signing_key, ignored=left_to_people)
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing", REMAKE) from None
    except OSError as error:
        raise _not_writable(folder, sources, error) from None
    return folder


def _require_right_key(card: str, signing_key: Path) -> None:
    """Require that the card doesn't name another key than the one that signs.

    Raises:
        ArtifactError: it does.
        PublishError: the key can't be used.
    """
    named = named_fingerprint(card)
    signer = fingerprint_of_signing_key(signing_key)
    if named is not None and named != signer:
        raise ArtifactError(
            f"the model card names the signing key {named[:12]}…, and {signing_key} is"
            f" {signer[:12]}…",
            "make the model card again: dvc repro --force --single-item model-card",
        )


def _model_facts(artifacts: Path, report: ParityReport) -> ModelFacts:
    """What the artifacts say of the model.

    Raises:
        ArtifactError: the checkpoint's folder is missing or incomplete.
        OSError: the card can't be read.
    """
    card = (artifacts / "model-card" / CARD).read_text(encoding="utf-8")
    return ModelFacts(_checkpoint_facts(artifacts), report, front_matter(card))


def _checkpoint_facts(artifacts: Path) -> CheckpointFacts:
    """What checkpoint.json holds.

    Raises:
        ArtifactError: the checkpoint's folder is missing or incomplete.
    """
    return read_record(artifacts / CHECKPOINT / FACTS_FILE, CheckpointFacts)


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


def _card_text(path: Path) -> str:
    """The card.

    Raises:
        ArtifactError: it is missing, or isn't text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ArtifactError(f"{path} can't be read", REMAKE) from None


def _add(sources: dict[str, Source], path: str, source: Source) -> None:
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
        if source.entry is not None and files[name] != source.entry:
            raise ArtifactError(
                f"{source.path} was changed after it was written: it has sha256"
                f" {files[name].sha256[:12]}…, but its manifest lists"
                f" {source.entry.sha256[:12]}…",
                REMAKE,
            )
    return files


def _release(
    formats: Mapping[str, Manifest],
    card: Literal["replace", "keep"],
    files: Mapping[str, FileEntry],
    machine: Machine,
    own_files: Collection[str],
) -> Release:
    """What release.json will say.

    Args:
        formats: the manifests of the enabled formats, by name.
        card: as for assemble.
        files: of the release, by path.
        machine: that the figures were measured on.
        own_files: the paths of the author's own files.
    """
    built: dict[str, FileEntry] = {}
    measured: dict[str, FileEntry] = {}
    extra: dict[str, FileEntry] = {}
    for name, entry in sorted(files.items()):
        if name in own_files:
            extra[name] = entry
        elif name in _EVIDENCE:
            measured[name] = entry
        else:
            built[name] = entry
    return Release(
        formats=_runnables(formats),
        sample=Sample(),
        card=card,
        built=Listing(sha256=digest_of(built), files=built),
        evidence=Evidence(sha256=digest_of(measured), machine=machine, files=measured),
        extra=Listing(sha256=digest_of(extra), files=extra),
    )


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


def _with_changes(folder: Path, release: Release, text: str | None) -> Release:
    """Write CHANGELOG.md, if there is a text for it, and list it.

    Args:
        folder: the release.
        release: its description without that file.
        text: what changed since the version before.
    """
    if text is None:
        return release
    path = folder / CHANGES
    path.write_text(text, encoding="utf-8", newline="\n")
    return _with_evidence(release, {CHANGES: FileEntry.of(path)})


def _with_evidence(release: Release, added: Mapping[str, FileEntry]) -> Release:
    """A release's description with further files of evidence."""
    files = dict(sorted({**release.evidence.files, **added}.items()))
    evidence = Evidence(
        sha256=digest_of(files), machine=release.evidence.machine, files=files
    )
    return msgspec.structs.replace(release, evidence=evidence)


def _describe(folder: Path, release: Release) -> None:
    """Write release.json and SHA256SUMS."""
    release.write(folder / RELEASE)
    text = release.checksums(sha256(folder / RELEASE))
    (folder / SUMS).write_text(text, encoding="utf-8")


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
        size = sum(source.path.stat().st_size for source in sources.values())
        problem += f" (it takes {size:,} bytes)"
    return PublishError(
        problem,
        "make room on the disk or check it, and assemble the release again",
    )
