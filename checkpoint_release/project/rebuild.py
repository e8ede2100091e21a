"""Making a release again from its own record, and comparing it byte for byte."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from checkpoint_release.core.artifacts.attestation import (
    PROVENANCE,
    PROVENANCE_TYPE,
    REBUILT_NAME,
    REBUILT_TYPE,
    SAME,
    SUFFIX,
    Making,
    Rebuilt,
    Statement,
    subjects,
    without_attestations,
)
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    CheckpointFacts,
)
from checkpoint_release.core.artifacts.release import Listing, Release, read_release
from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import (
    ArtifactError,
    ParamsError,
    PublishError,
    UntrustedCodeError,
    first_few,
)
from checkpoint_release.core.files import sha256
from checkpoint_release.core.signing_keys import (
    fingerprint,
    load_private_key,
)
from checkpoint_release.core.stage import ARTIFACTS
from checkpoint_release.core.trust import Trust
from checkpoint_release.project.one_shot import (
    DEFAULT_FACTORY,
    RELEASE,
    StageFailedError,
    run_project,
)
from checkpoint_release.project.settings import Asked, check_options
from checkpoint_release.project.template import project_files
from checkpoint_release.project.update import PARAMS
from checkpoint_release.release.attested import require_about
from checkpoint_release.release.differences import differences
from checkpoint_release.release.envelopes import read_attestation, write_attestation
from checkpoint_release.release.environment import LIBRARY
from checkpoint_release.release.signing import check_signature, signer_key

_GET_AGAIN = "get the release again, or another one"
_OF_THE_BUILD = ("checkpoint", "model", "formats", "safetensors", "onnx", "parity")
"""The sections of params.yaml that decide what is built; see also publish.page."""
_OF_ONE_MACHINE = ("checkpoint.path", "checkpoint.adapter", "model.source")
_LIST_PACKAGES = """
import json
from checkpoint_release.release.environment import computing_packages
print(json.dumps({name: each.version for name, each in computing_packages().items()}))
"""


@dataclass(frozen=True)
class Given:
    """What the user has beside the release.

    Attributes:
        checkpoint: a file or a folder.
        source: the model's own code; empty: found by the factory's name.
        config: a config.json of transformers, or its folder.
        adapters: LoRA adapters, in the record's order.
        trust: the factory that may run, where it isn't the library's own.
        python: the interpreter that the stages run with.
    """

    checkpoint: str
    source: tuple[str, ...] = ()
    config: str | None = None
    adapters: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    python: str = sys.executable


@dataclass(frozen=True)
class Record:
    """A release, and how it says that it was made."""

    release: Release
    making: Making


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


def read_recorded(folder: Path, public_key: Path | None = None) -> Record:
    """Read a release and its record.

    Args:
        folder: the release.
        public_key: PEM file that the record must be signed by; None: anybody's.

    Raises:
        ArtifactError: it is no whole release, or records nothing.
        PublishError: the record is another's, or about other files.
    """
    release = read_release(folder)
    problems = differences(folder, release).problems
    if problems:
        problem = f"{folder} isn't what it lists: {first_few(problems, 3)}"
        raise ArtifactError(problem, _GET_AGAIN)
    if PROVENANCE not in release.files:
        raise ArtifactError(
            f"{folder} doesn't record how it was made: there is no {PROVENANCE}",
            "take a release that is signed; publish.signing_key adds the record",
        )
    path = folder / PROVENANCE
    keys = []
    if public_key:
        refusal = check_signature(folder, public_key)
        if refusal:
            raise PublishError(
                f"{folder} is not signed by {public_key}: {refusal}", _GET_AGAIN
            )
        keys = [signer_key(folder, public_key)]
    opened = read_attestation(path, keys)
    if public_key and not opened.signers:
        raise PublishError(f"{path} is not signed by {public_key}", _GET_AGAIN)
    try:
        require_about(
            opened.statement, PROVENANCE_TYPE, without_attestations(release.files)
        )
    except PublishError as error:
        raise PublishError(f"{path}: {error.problem}", _GET_AGAIN) from None
    return Record(release, Making.from_predicate(opened.statement.predicate, str(path)))


def requirements(making: Making) -> str:
    """What pip installs to get the environment that a release was made in.

    The build of a version (such as +cpu) is left out: indexes differ in what they have.
    """
    lines = [
        f"{name}=={version.partition('+')[0]}\n"
        for name, version in sorted(making.packages.items())
    ]
    return "".join(lines)


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
    options = _options(making, given)
    _require_trusted(str(options["model.factory"]), given.trust)
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


def attest(rebuilt: Rebuild, key: Path, output: Path | None) -> Path:
    """Sign that a release was made again, and is the same.

    Args:
        rebuilt: what was found.
        key: private key in PEM.
        output: the file; None: one in the working folder, named by the key.

    Returns:
        The file.

    Raises:
        PublishError: it isn't the same, or the key can't be used.
    """
    if not rebuilt.same:
        raise PublishError("nothing is signed: what was built is not the same")
    private_key = load_private_key(key, "sign")
    digest = fingerprint(private_key.public_key())
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


def installed_packages(python: str) -> dict[str, str]:
    """Distribution → version, of those that compute with an interpreter.

    Raises:
        ParamsError: it can't be run, or has no checkpoint-release.
    """
    try:
        done = subprocess.run(
            [python, "-c", _LIST_PACKAGES], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
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


def _require_trusted(factory: str, trust: Sequence[str]) -> None:
    """Require that the code that a stranger's record names may run.

    Raises:
        UntrustedCodeError: the user didn't name it.
    """
    if not Trust.of(trust).covers(factory):
        raise UntrustedCodeError(
            f"the release names {factory!r} as its model's code, and that would run",
            f"if you know that code and trust it, name {factory} in {{trust}}",
            options=["trust"],
        )


def _options(making: Making, given: Given) -> dict[str, Any]:
    """The options of params.yaml: the recorded ones, with what lies here.

    Raises:
        ParamsError: a path leads nowhere, or one is missing.
    """
    options: dict[str, Any] = {}
    for section in _OF_THE_BUILD:
        values = making.parameters.get(section)
        if not isinstance(values, dict):
            raise ParamsError(f"the record has no section {section}", _GET_AGAIN)
        options |= {f"{section}.{name}": value for name, value in values.items()}
    publish = making.parameters.get("publish")
    if isinstance(publish, dict) and "page" in publish:
        options["publish.page"] = publish["page"]
    factory = str(options.get("model.factory") or DEFAULT_FACTORY)
    recorded = {name: options.pop(name, None) for name in _OF_ONE_MACHINE}
    kwargs = options.get("model.kwargs") or {}
    asked = Asked(
        checkpoint=given.checkpoint,
        factory=factory,
        source=given.source,
        config=given.config,
        settings=(f"checkpoint.path={json.dumps(given.checkpoint)}",),
    )
    here = asked.options(Path.cwd(), absolute=True)
    if given.config is not None:
        here["model.kwargs"] = {**kwargs, **here["model.kwargs"]}
    adapter = _adapter(recorded["checkpoint.adapter"], given.adapters)
    return {**options, **here, "checkpoint.adapter": adapter}


def _adapter(recorded: Any, given: Sequence[str]) -> Any:
    """The option checkpoint.adapter: what was recorded, with the paths that lie here.

    Raises:
        ParamsError: there are more adapters, or fewer.
    """
    weights = list(recorded.values()) if isinstance(recorded, dict) else []
    expected = len(weights) if weights else int(recorded is not None)
    if len(given) != expected:
        raise ParamsError(
            f"the release was made with {expected} adapters, and {{adapter}} names"
            f" {len(given)}",
            "name each, in the order of the model card",
            options=["adapter"],
        )
    paths = [Path(path).absolute().as_posix() for path in given]
    if weights:
        return dict(zip(paths, weights, strict=True))
    return paths[0] if paths else None


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
