"""The attestations that go with a signed release: how it was made, and that its formats
were proven to compute what the checkpoint does. One that isn't signed has a record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.attestation import (
    PROOF,
    PROVENANCE,
    PROVENANCE_TYPE,
    RECORD,
    TEST_RESULT_TYPE,
    Making,
    Statement,
    subjects,
)
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.artifacts.parity import RELEASED_REPORT, ParityReport
from checkpoint_release.core.artifacts.release import Sample
from checkpoint_release.core.files import FileEntry, write_json
from checkpoint_release.core.run_record import RunRecord
from checkpoint_release.core.signing_keys import SigningKey
from checkpoint_release.release.checkouts import sources_checkout
from checkpoint_release.release.envelopes import write_attestation
from checkpoint_release.release.environment import LIBRARY, Package


def write_attestations(
    folder: Path,
    files: Mapping[str, FileEntry],
    making: Making,
    report: ParityReport,
    key: SigningKey,
) -> dict[str, FileEntry]:
    """Write the attestations about a release into its folder.

    Args:
        folder: the release.
        files: what they are about: path → size and sha256.
        making: how the release was made.
        report: of the parity check.
        key: to sign with.

    Returns:
        Path in the release → size and sha256 of each.

    Raises:
        PublishError: the key can't be used.
    """
    statements = {
        PROVENANCE: _provenance(files, making),
        PROOF: Statement(
            subject=subjects(files),
            predicate_type=TEST_RESULT_TYPE,
            predicate=_test_result(files, report),
        ),
    }
    entries = {}
    for name, statement in statements.items():
        write_attestation(folder / name, statement, key)
        entries[name] = FileEntry.of(folder / name)
    return entries


def write_record(
    folder: Path, files: Mapping[str, FileEntry], making: Making
) -> dict[str, FileEntry]:
    """Write how a release was made that nobody signs.

    Args:
        folder: the release.
        files: what the record is about: path → size and sha256.
        making: how the release was made.

    Returns:
        Path in the release → size and sha256 of the record.
    """
    statement = _provenance(files, making.of_the_build)
    write_json(folder / RECORD, statement.to_json())
    return {RECORD: FileEntry.of(folder / RECORD)}


def _provenance(files: Mapping[str, FileEntry], making: Making) -> Statement:
    """The statement of how files were made."""
    return Statement(
        subject=subjects(files),
        predicate_type=PROVENANCE_TYPE,
        predicate=making.to_predicate(making.packages.get(LIBRARY, "")),
    )


def _test_result(
    files: Mapping[str, FileEntry], report: ParityReport
) -> dict[str, Any]:
    """in-toto's test result: which formats passed, by which report and sample."""
    used = (RELEASED_REPORT, Sample().inputs, Sample().outputs)
    configuration = [
        {"name": name, "digest": {"sha256": files[name].sha256}} for name in used
    ]
    passed: list[str] = []
    failed: list[str] = []
    for name, figures in report.formats.items():
        group = passed if figures.passed else failed
        group.append(f"{name} computes what the checkpoint computes")
    return {
        "result": "FAILED" if failed else "PASSED",
        "configuration": configuration,
        "passedTests": passed,
        "failedTests": failed,
    }


def describe_making(
    record: RunRecord, packages: Mapping[str, Package], facts: CheckpointFacts
) -> Making:
    """How a release was made.

    Args:
        record: what the stages ran with.
        packages: that computed, by name.
        facts: about the checkpoint.
    """
    return Making(
        parameters=record.parameters,
        stages=record.stages,
        packages={name: package.version for name, package in packages.items()},
        checkpoint=facts.origin.sha256,
        adapter=facts.origin.adapter,
        checkout=sources_checkout(record.sources),
    )
