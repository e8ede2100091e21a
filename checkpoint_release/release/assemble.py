"""Assembling a release: exactly the files of a Hub repository, taken from artifacts
whose parity was checked.

release.json is its manifest (path → size, sha256), and SHA256SUMS repeats it for
`sha256sum -c`. Neither holds a version, a time or a commit, so that the same artifacts
give the same bytes. What a Hub holds of earlier versions goes in as well: what changed
since then, and the front matter that people added to the card there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from checkpoint_release.core.artifacts.attestation import Making
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    CheckpointFacts,
)
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.parity import (
    PARITY_FOLDER,
    REPORT,
    ParityReport,
    read_report,
)
from checkpoint_release.core.artifacts.release import CARD, CHANGES, SBOM, Release
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.file_sharing import share_file
from checkpoint_release.core.files import REMAKE, FileEntry, artifact_folder
from checkpoint_release.core.signing_keys import (
    SigningKey,
    fingerprint,
    load_signing_key,
    named_fingerprint,
)
from checkpoint_release.page.files import FOLDER as PAGE
from checkpoint_release.page.files import page_files
from checkpoint_release.release.contents import (
    CARD_FOLDER,
    Kind,
    Source,
    Sources,
    add_source,
    artifact_sources,
    enabled_formats,
)
from checkpoint_release.release.describe import (
    description,
    with_changes,
    with_evidence,
    write_description,
)
from checkpoint_release.release.earlier_signatures import Elsewhere, remembering
from checkpoint_release.release.environment import Package
from checkpoint_release.release.extra import extra_files, require_linked_files
from checkpoint_release.release.front_matter import split_card
from checkpoint_release.release.making import write_attestations, write_record
from checkpoint_release.release.peoples_fields import with_fields
from checkpoint_release.release.sbom import ModelFacts, write_sbom
from checkpoint_release.release.signing import sign

FOLDER = "release"
"""The release's folder among the artifacts."""


class Earlier(Elsewhere, Protocol):
    """What a Hub holds of earlier versions, as far as it goes into this one."""

    def card_fields(self, card: str) -> Mapping[str, Any]:
        """The front matter that people added there, which a new card keeps."""

    def changes(self, folder: Path, release: Release) -> str | None:
        """The text of CHANGELOG.md, if there is to be one.

        Args:
            folder: in which the release is made.
            release: its description, without that file.
        """


def assemble(
    artifacts: Path,
    *,
    card: Literal["replace", "keep"] = "replace",
    page: bool = False,
    packages: Mapping[str, Package] | None = None,
    signing_key: str | Path | None = None,
    extra: Path | None = None,
    earlier: Earlier | None = None,
    making: Callable[[CheckpointFacts], Making] | None = None,
) -> Path:
    """Write artifacts/release, whole or not at all.

    Args:
        artifacts: the folder of all artifacts.
        card: "keep" leaves the card out of the manifest and the signature, because
            people may edit it on the Hub.
        page: whether a page that runs the ONNX model in browsers goes along; without
            that model there is none.
        packages: those that computed the release, by name, for a bill of materials.
            None: there is none.
        signing_key: a private key to sign with: a PEM file, or a pkcs11: URI. None: the
            release isn't signed.
        extra: a folder whose files go along as they are. None: none do.
        earlier: what a Hub holds of earlier versions. None: nothing is known of any.
        making: how the release was made, given what is known of the checkpoint; it goes
            into a signed release as an attestation, and into another as a record. None:
            the release doesn't say.

    Returns:
        The release's folder.

    Raises:
        ArtifactError: an artifact is missing, isn't what its manifest lists, or isn't
            what the parity check passed.
        PublishError: the release can't be written as asked.
    """
    formats = enabled_formats(artifacts)
    report = read_report(artifacts / PARITY_FOLDER / REPORT)
    report.require_passed(artifacts, formats)
    sources = artifact_sources(artifacts, formats)
    _add_further_files(sources, extra, page=page and ONNX.name in formats)
    folder = artifacts / FOLDER
    key = None
    if signing_key:
        key = remembering(load_signing_key(signing_key), folder, earlier)
        _require_right_key(_card_text(sources[CARD].path), key, str(signing_key))
    kinds: dict[str, Kind] = {name: source.kind for name, source in sources.items()}
    left_to_people = [CARD] if card == "keep" else []
    with _writing(folder, sources) as staging:
        files = _copy_all(sources, staging)
        if earlier and not left_to_people:
            files[CARD] = _keep_fields(staging / CARD, earlier)
        if packages is not None:
            facts = _model_facts(artifacts, report)
            write_sbom(staging / SBOM, files, packages, facts)
            files[SBOM], kinds[SBOM] = FileEntry.of(staging / SBOM), "evidence"
        for name in left_to_people:
            del files[name]
        release = description(staging, formats, card, files, kinds, report.machine)
        if earlier and CHANGES not in files:
            release = _since(earlier, staging, release)
        made = making(_checkpoint_facts(artifacts)) if making else None
        _describe(staging, release, report, made, key)
        if key:
            sign(staging, key, ignored=left_to_people)
    return folder


@contextmanager
def _writing(folder: Path, sources: Sources) -> Iterator[Path]:
    """A folder that takes the release's place in the end.

    Args:
        folder: the release's.
        sources: what it is made of, for messages.

    Raises:
        ArtifactError: a file is missing.
        PublishError: the release can't be written.
    """
    try:
        with artifact_folder(folder) as staging:
            yield staging
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing", REMAKE) from None
    except OSError as error:
        raise _not_writable(folder, sources, error) from None


def _add_further_files(sources: Sources, extra: Path | None, *, page: bool) -> None:
    """Add what goes along as it is, and require the licence that the card links.

    Args:
        sources: the artifacts' files, by their path in the release.
        extra: a folder of the author's own files, if there is one.
        page: whether the page that runs the model in browsers is wanted.

    Raises:
        ArtifactError: the card can't be read.
        PublishError: a file can't be of the release, or the licence isn't there.
    """
    for name, path in (extra_files(extra) if extra else {}).items():
        add_source(sources, name, Source(path, None, "extra"))
    if page:
        for name, path in page_files().items():
            add_source(sources, f"{PAGE}/{name}", Source(path, FileEntry.of(path)))
    require_linked_files(_card_text(sources[CARD].path), sources)


def _since(earlier: Earlier, folder: Path, release: Release) -> Release:
    """Write what changed since the version before, if there is one, and list it."""
    text = earlier.changes(folder, release)
    return with_changes(folder, release, text) if text else release


def _keep_fields(path: Path, earlier: Earlier) -> FileEntry:
    """Add the front matter that people added on the Hub to the card in the release."""
    card = path.read_text(encoding="utf-8")
    text = with_fields(card, earlier.card_fields(card))
    path.write_text(text, encoding="utf-8", newline="\n")
    return FileEntry.of(path)


def _describe(
    folder: Path,
    release: Release,
    report: ParityReport,
    making: Making | None,
    key: SigningKey | None,
) -> None:
    """Write release.json, what goes with it, and how the release was made: in
    attestations, where it is signed.

    Args:
        folder: the release.
        release: its description, without attestations.
        report: of the parity check.
        making: how the release was made.
        key: to sign with, if the release is signed.
    """
    if making and key:
        files = write_attestations(folder, release.files, making, report, key)
        release = with_evidence(release, files)
    elif making:
        release = with_evidence(release, write_record(folder, release.files, making))
    write_description(folder, release)


def _require_right_key(card: str, key: SigningKey, signing_key: str) -> None:
    """Require that the card doesn't name another key than the one that signs.

    Args:
        card: its text.
        key: the one that signs.
        signing_key: how it is named.

    Raises:
        ArtifactError: it does.
    """
    named = named_fingerprint(card)
    signer = fingerprint(key.public_key)
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
    card = (artifacts / CARD_FOLDER / CARD).read_text(encoding="utf-8")
    return ModelFacts(_checkpoint_facts(artifacts), report, split_card(card)[0])


def _checkpoint_facts(artifacts: Path) -> CheckpointFacts:
    """What checkpoint.json holds.

    Raises:
        ArtifactError: the checkpoint's folder is missing or incomplete.
    """
    return read_record(artifacts / CHECKPOINT / FACTS_FILE, CheckpointFacts)


def _card_text(path: Path) -> str:
    """The card.

    Raises:
        ArtifactError: it is missing, or isn't text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ArtifactError(f"{path} can't be read", REMAKE) from None


def _copy_all(sources: Sources, folder: Path) -> dict[str, FileEntry]:
    """Copy or share the files into a folder, digesting them on the way.

    Raises:
        ArtifactError: one isn't what its manifest lists.
    """
    files = {}
    for name, source in sorted(sources.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        files[name] = share_file(source.path, folder / name)
        if source.entry is not None and files[name] != source.entry:
            raise ArtifactError(
                f"{source.path} was changed after it was written: it has sha256"
                f" {files[name].sha256[:12]}…, but its manifest lists"
                f" {source.entry.sha256[:12]}…",
                REMAKE,
            )
    return files


def _not_writable(folder: Path, sources: Sources, error: OSError) -> PublishError:
    problem = f"the release can't be written to {folder}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        size = sum(source.path.stat().st_size for source in sources.values())
        problem += f" (it takes {size:,} bytes)"
    return PublishError(
        problem,
        "make room on the disk or check it, and assemble the release again",
    )
