"""How a release says that it was made, and which packages computed it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.attestation import (
    PROVENANCE,
    PROVENANCE_TYPE,
    RECORD,
    Making,
    Statement,
    without_attestations,
)
from checkpoint_release.core.artifacts.release import Release, read_release
from checkpoint_release.core.artifacts.typed import as_record
from checkpoint_release.core.errors import (
    ArtifactError,
    ParamsError,
    PublishError,
    first_few,
)
from checkpoint_release.core.files import read_json
from checkpoint_release.release.attested import require_about
from checkpoint_release.release.differences import differences
from checkpoint_release.release.envelopes import read_attestation
from checkpoint_release.release.environment import LIBRARY
from checkpoint_release.release.signing import check_signature, signer_key

GET_AGAIN = "get the release again, or another one"
_LIST_PACKAGES = """
import json
from checkpoint_release.release.environment import computing_packages
print(json.dumps({name: each.version for name, each in computing_packages().items()}))
"""


@dataclass(frozen=True)
class Record:
    """A release, and how it says that it was made.

    Attributes:
        release: its release.json.
        making: how it was made.
        vouched: whether the key that was asked for signed the record.
    """

    release: Release
    making: Making
    vouched: bool = False


def read_recorded(
    folder: Path, public_key: Path | None = None, *, unsigned: bool = False
) -> Record:
    """Read a release and its record.

    Args:
        folder: the release.
        public_key: PEM file that the record must be signed by; None: anybody's.
        unsigned: whether a record that nobody signed will do.

    Raises:
        ArtifactError: it is no whole release, or records nothing.
        PublishError: the record is another's, or about other files.
    """
    release = read_release(folder)
    problems = differences(folder, release).problems
    if problems:
        problem = f"{folder} isn't what it lists: {first_few(problems, 3)}"
        raise ArtifactError(problem, GET_AGAIN)
    if PROVENANCE in release.files:
        path = folder / PROVENANCE
        statement = _signed_record(folder, public_key)
    elif RECORD in release.files:
        path = folder / RECORD
        statement = _unsigned_record(folder, public_key, unsigned=unsigned)
    else:
        raise ArtifactError(
            f"{folder} doesn't record how it was made: there is no {PROVENANCE}, and no"
            f" {RECORD}",
            "take a release of a newer version of this pipeline",
        )
    try:
        require_about(statement, PROVENANCE_TYPE, without_attestations(release.files))
    except PublishError as error:
        raise PublishError(f"{path}: {error.problem}", GET_AGAIN) from None
    making = Making.from_predicate(statement.predicate, str(path))
    return Record(release, making, vouched=public_key is not None)


def _signed_record(folder: Path, public_key: Path | None) -> Statement:
    """The record of a signed release.

    Args:
        folder: the release.
        public_key: PEM file that it must be signed by; None: anybody's.

    Raises:
        ArtifactError: it can't be read.
        PublishError: it is another's.
    """
    path = folder / PROVENANCE
    keys = []
    if public_key:
        refusal = check_signature(folder, public_key)
        if refusal:
            raise PublishError(
                f"{folder} is not signed by {public_key}: {refusal}", GET_AGAIN
            )
        keys = [signer_key(folder, public_key)]
    opened = read_attestation(path, keys)
    if public_key and not opened.signers:
        raise PublishError(f"{path} is not signed by {public_key}", GET_AGAIN)
    return opened.statement


def _unsigned_record(
    folder: Path, public_key: Path | None, *, unsigned: bool
) -> Statement:
    """The record of a release that isn't signed.

    Args:
        folder: the release.
        public_key: PEM file that it should be signed by.
        unsigned: whether the user takes it as it is.

    Raises:
        ArtifactError: it can't be read.
        PublishError: a signature is asked for, or the user didn't say so.
    """
    path = folder / RECORD
    if public_key is not None:
        problem = f"the release is not signed by {public_key}: it isn't signed at all"
        raise PublishError(problem, GET_AGAIN)
    if not unsigned:
        raise PublishError(
            "the release isn't signed: anybody who could change it could write its"
            " record too",
            "if you trust where it comes from, take its record with {unsigned}",
            options=["unsigned"],
        )
    return as_record(read_json(path), Statement, str(path))


def requirements(making: Making) -> str:
    """What pip installs to get the environment that a release was made in.

    The build of a version (such as +cpu) is left out: indexes differ in what they have.
    """
    lines = [
        f"{name}=={version.partition('+')[0]}\n"
        for name, version in sorted(making.packages.items())
    ]
    return "".join(lines)


def installed_packages(python: str) -> dict[str, str]:
    """Distribution → version, of those that compute with an interpreter.

    Raises:
        ParamsError: it can't be run, or has no checkpoint-release.
    """
    try:
        done = subprocess.run(
            [python, "-c", _LIST_PACKAGES], capture_output=True, text=True, check=True
        )
    except OSError as error:
        raise ParamsError(
            f"{{python}} is {python}, which can't be run: {error.strerror}",
            "name the interpreter of the environment to make it in",
            options=["python"],
        ) from None
    except subprocess.CalledProcessError:
        raise ParamsError(
            f"{{python}} is {python}, which doesn't run checkpoint-release",
            f"install it there: {python} -m pip install '{LIBRARY}[pipeline]'",
            options=["python"],
        ) from None
    packages: dict[str, str] = json.loads(done.stdout)
    return packages


def version_differences(
    recorded: Mapping[str, str], installed: Mapping[str, str]
) -> list[str]:
    """Where two environments differ, a line each."""
    lines = []
    for name in sorted(recorded.keys() | installed.keys()):
        then, now = recorded.get(name), installed.get(name)
        if then != now:
            lines.append(f"{name}: {then or 'none'} then, {now or 'none'} now")
    return lines
