"""Checking the attestations of a release: who signed them, and that they are about
these very files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from checkpoint_release.core.artifacts.attestation import (
    PROOF,
    PROVENANCE,
    PROVENANCE_TYPE,
    TEST_RESULT_TYPE,
    Making,
    Statement,
    without_attestations,
)
from checkpoint_release.core.artifacts.release import Release
from checkpoint_release.core.errors import CheckpointReleaseError, PublishError
from checkpoint_release.core.files import FileEntry
from checkpoint_release.release.checks import Check
from checkpoint_release.release.envelopes import read_attestation
from checkpoint_release.release.signing import signer_key

_TYPES = {PROVENANCE: PROVENANCE_TYPE, PROOF: TEST_RESULT_TYPE}
_LABELS = {PROVENANCE: "provenance", PROOF: "proof"}


def check_attestations(
    folder: Path, release: Release, public_key: Path | None
) -> list[Check]:
    """Check each attestation that a release lists.

    Args:
        folder: the release, whose files are what its release.json lists, and whose
            signature holds.
        release: its release.json.
        public_key: PEM file of the key that the signatures must be by, or of root
            certificates; None: signatures aren't checked, and what is stated is.
    """
    subjects = without_attestations(release.files)
    checks = []
    for name, kind in _TYPES.items():
        if name in release.files:
            check = _check(folder, name, kind, subjects, public_key)
            checks.append(check)
    return checks


def _check(
    folder: Path,
    name: str,
    kind: str,
    subjects: Mapping[str, FileEntry],
    public_key: Path | None,
) -> Check:
    """Check one attestation.

    Args:
        folder: the release.
        name: the attestation's path in it.
        kind: the predicate type that it must have.
        subjects: the files that it must be about: path → size and sha256.
        public_key: as of check_attestations.
    """
    label, path = _LABELS[name], folder / name
    try:
        keys = [signer_key(folder, public_key)] if public_key else []
        opened = read_attestation(path, keys)
        require_about(opened.statement, kind, subjects)
        if public_key and not opened.signers:
            return Check(label, False, f"is not signed by {public_key.name}")
        message = _summary(opened.statement, str(path))
    except CheckpointReleaseError as error:
        return Check(label, False, error.problem)
    signed = f"signed by {public_key.name}" if public_key else "signature not checked"
    return Check(label, True, f"{signed}: {message}")


def require_about(
    statement: Statement, kind: str, files: Mapping[str, FileEntry]
) -> None:
    """Require that a statement is of a kind, and about exactly these files.

    Raises:
        PublishError: it isn't.
    """
    if statement.predicate_type != kind:
        problem = f"it is of the type {statement.predicate_type!r}, not {kind}"
        raise PublishError(problem)
    stated = statement.files
    for name in sorted(stated.keys() | files.keys()):
        if name not in stated:
            raise PublishError(f"it says nothing of {name}")
        if name not in files:
            raise PublishError(f"it is about {name}, which is not there")
        if stated[name] != files[name].sha256:
            raise PublishError(f"it is about another {name}")
    if len(statement.subject) != len(stated):
        raise PublishError("it names a file twice")


def _summary(statement: Statement, source: str) -> str:
    """What a statement says, in a few words.

    Raises:
        CheckpointReleaseError: it isn't as it was written, or says that the check
            failed.
    """
    if statement.predicate_type == TEST_RESULT_TYPE:
        result = statement.predicate.get("result")
        if result != "PASSED":
            raise PublishError(f"its result is {result!r}, not 'PASSED'")
        return "the formats compute what the checkpoint computes"
    making = Making.from_predicate(statement.predicate, source)
    text = f"made from the checkpoint {making.checkpoint[:12]}…"
    if making.checkout:
        text += f", by the sources of git commit {making.checkout.commit[:12]}"
        text += " with changes" if making.checkout.dirty else ""
    return text
