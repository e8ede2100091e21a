"""Making a release again from its own record, and comparing it byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from checkpoint_release.core.artifacts.attestation import (
    REBUILT_NAME,
    REBUILT_TYPE,
    SAME,
    SUFFIX,
    Making,
    Rebuilt,
    Statement,
    subjects,
)
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    CheckpointFacts,
)
from checkpoint_release.core.artifacts.release import Listing, read_release
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ParamsError, PublishError
from checkpoint_release.core.files import sha256
from checkpoint_release.core.signing_keys import fingerprint, load_signing_key
from checkpoint_release.core.stage import ARTIFACTS
from checkpoint_release.project.one_shot import (
    RELEASE,
    StageFailedError,
    run_project,
)
from checkpoint_release.project.rebuild_options import (
    Given,
    rebuild_options,
    require_trusted,
)
from checkpoint_release.project.recorded import (
    Record,
    installed_packages,
    version_differences,
)
from checkpoint_release.project.settings import check_options
from checkpoint_release.project.template import project_files
from checkpoint_release.project.update import PARAMS
from checkpoint_release.release.envelopes import write_attestation
from checkpoint_release.release.environment import LIBRARY


@dataclass(frozen=True)
class Rebuild:
    """A release that was made again.

    Attributes:
        record: of the release.
        packages: distribution → version, of those that computed this time.
        differences: one line for each built file that isn't the same.
        hints: what may explain them, a line each.
    """

    record: Record
    packages: Mapping[str, str]
    differences: Sequence[str]
    hints: Sequence[str] = field(default=())

    @property
    def same(self) -> bool:
        """Whether everything that was built has the same bytes."""
        return not self.differences


def rebuild(record: Record, given: Given) -> Rebuild:
    """Make a release again, and compare what was built.

    Args:
        record: of the release.
        given: what the user has.

    Raises:
        ParamsError: it is another checkpoint, something that the record names isn't
            given, or this version doesn't know an option.
        UntrustedCodeError: the record names a factory that isn't trusted.
        PublishError: a stage failed; it has reported why.
    """
    making = record.making
    _require_checkpoint(given.checkpoint, making)
    options = rebuild_options(making, given)
    require_trusted(str(options["model.factory"]), given.trust)
    files = _project(options, making)
    packages = installed_packages(given.python)
    with TemporaryDirectory() as temporary:
        work = Path(temporary) / "project"
        try:
            run_project(files, work, given.python)
        except StageFailedError as failure:
            raise PublishError(
                f"nothing to compare: {failure}, as it says above",
                "see what the stage names; the versions that the release was made with"
                " are written by {requirements}",
                options=["requirements"],
            ) from None
        _require_same_origin(work, making)
        again = read_release(work / RELEASE).built
    found = _compare(record.release.built, again)
    hints = version_differences(making.packages, packages) if found else []
    return Rebuild(record, packages, found, hints)


def _project(options: Mapping[str, Any], making: Making) -> dict[str, str]:
    """The project's files.

    Raises:
        ParamsError: this version of the library doesn't know an option.
    """
    try:
        files = project_files(options)
        check_options(files[PARAMS], factory_given=True)
    except ParamsError as error:
        version = making.packages.get(LIBRARY)
        raise error.advising(
            f"install the version that the release was made with, {LIBRARY}=={version}",
            [],
        ) from None
    return files


def attest(rebuilt: Rebuild, key: str | Path, output: Path | None) -> Path:
    """Sign that a release was made again, and is the same.

    Args:
        rebuilt: what was found.
        key: a private key: a PEM file, or a pkcs11: URI.
        output: the file; None: one in the working folder, named by the key.

    Returns:
        The file.

    Raises:
        PublishError: it isn't the same, or the key can't be used.
    """
    if not rebuilt.same:
        raise PublishError("nothing is signed: what was built is not the same")
    private_key = load_signing_key(key, "sign")
    digest = fingerprint(private_key.public_key)
    path = output or Path(f"{REBUILT_NAME}{digest[:12]}{SUFFIX}")
    built = rebuilt.record.release.built
    predicate = Rebuilt(
        result=SAME,
        built=built.sha256,
        checkpoint=rebuilt.record.making.checkpoint,
        packages=dict(rebuilt.packages),
    )
    statement = Statement(
        subject=subjects(built.files),
        predicate_type=REBUILT_TYPE,
        predicate=predicate.to_json(),
    )
    write_attestation(path, statement, private_key)
    return path


def _require_checkpoint(path: str, making: Making) -> None:
    """Require the checkpoint, where it is one file; load looks at several.

    Raises:
        ParamsError: it is another, or isn't there.
    """
    if not Path(path).is_file():
        return
    digest = sha256(Path(path))
    if digest != making.checkpoint:
        raise _another_checkpoint(path, digest, making)


def _another_checkpoint(path: str, digest: str, making: Making) -> ParamsError:
    return ParamsError(
        f"{path} has sha256 {digest[:12]}…, and the release was made from a checkpoint"
        f" with {making.checkpoint[:12]}…",
        "name the checkpoint that it was made from",
    )


def _require_same_origin(work: Path, making: Making) -> None:
    """Require that what was read is what the record names.

    Raises:
        ParamsError: it isn't.
    """
    facts = read_record(work / ARTIFACTS / CHECKPOINT / FACTS_FILE, CheckpointFacts)
    if facts.origin.sha256 != making.checkpoint:
        raise _another_checkpoint("the checkpoint", facts.origin.sha256, making)
    if facts.origin.adapter != making.adapter:
        raise ParamsError(
            "the adapter is another than the release was made with",
            "name the adapter whose sha256 the model card states, with {adapter}",
            options=["adapter"],
        )


def _compare(before: Listing, again: Listing) -> list[str]:
    """Where what was built differs, a line for each file."""
    lines = []
    for name in sorted(before.files.keys() | again.files.keys()):
        then, now = before.files.get(name), again.files.get(name)
        if then is None:
            lines.append(f"{name} was not in the release")
        elif now is None:
            lines.append(f"{name} was not made")
        elif then != now:
            lines.append(
                f"{name} has {now.size:,} bytes with sha256 {now.sha256[:12]}…, and the"
                f" release {then.size:,} with {then.sha256[:12]}…"
            )
    return lines
