"""Bringing what a Hub holds of earlier versions into a release that is assembled
already, on another machine: what changed since then, and the front matter that people
added to the card there.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.artifacts.attestation import (
    RECORD,
    Statement,
    subjects,
    without_attestations,
)
from checkpoint_release.core.artifacts.release import (
    CARD,
    CHANGES,
    RELEASE,
    SUMS,
    Release,
    read_release,
)
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.files import FileEntry, replace_file
from checkpoint_release.release.assemble import Earlier
from checkpoint_release.release.describe import (
    with_changes,
    with_evidence,
    write_description,
)
from checkpoint_release.release.peoples_fields import with_fields


def complete(folder: Path, earlier: Earlier, *, keeps_card: bool) -> None:
    """Complete a release that isn't signed, in its folder.

    Args:
        folder: the release; none of its files is written to, but replaced.
        earlier: what the Hub holds.
        keeps_card: whether the card there stays as it is.

    Raises:
        ArtifactError: the release can't be read.
        PublishError: the Hub can't be asked.
        OSError: a file can't be written.
    """
    release = made = read_release(folder)
    if not keeps_card:
        release = _with_peoples_fields(folder, release, earlier)
    if CHANGES not in release.files:
        text = earlier.changes(folder, release)
        release = with_changes(folder, release, text) if text else release
    if release == made:
        return
    if RECORD in release.files:
        release = _with_right_record(folder, release)
    for name in (RELEASE, SUMS):
        (folder / name).unlink()
    write_description(folder, release)


def _with_peoples_fields(folder: Path, release: Release, earlier: Earlier) -> Release:
    """The release with what people added to the card's front matter on the Hub."""
    path = folder / CARD
    card = path.read_text(encoding="utf-8")
    fields = earlier.card_fields(card)
    if not fields:
        return release
    replace_file(path, with_fields(card, fields).encode())
    return with_evidence(release, {CARD: FileEntry.of(path)})


def _with_right_record(folder: Path, release: Release) -> Release:
    """The release with a record of how it was made that is about its files."""
    path = folder / RECORD
    record = read_record(path, Statement)
    files = subjects(without_attestations(release.files))
    statement = Statement(
        subject=files,
        predicate_type=record.predicate_type,
        predicate=record.predicate,
    )
    path.unlink()
    statement.write(path)
    return with_evidence(release, {RECORD: FileEntry.of(path)})
