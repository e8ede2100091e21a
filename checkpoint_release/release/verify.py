"""Verifying a release as somebody who downloaded it: its hashes, its signature, and
that every format still computes the sample.

Each check is made only if those before it passed: the list of files and their hashes,
the signature, what there is to compare, and then the formats. So nothing is opened that
isn't what its publisher listed and signed. A release from elsewhere could still name
any code (subprocess:run is a callable too): only the library's own models run, and what
the user trusts by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from checkpoint_release.core.artifacts.formats import FORMATS
from checkpoint_release.core.artifacts.parity import (
    RELEASED_REPORT,
    FormatFigures,
    ParityReport,
    read_report,
    upper_bound,
)
from checkpoint_release.core.artifacts.release import (
    GET_OR_UPDATE,
    RELEASE,
    SIGNATURE,
    Release,
    Runnable,
    read_release,
)
from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointReleaseError,
    InferenceError,
    ParamsError,
    UntrustedCodeError,
    first_few,
)
from checkpoint_release.core.extras import extras_named
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.signature import Array
from checkpoint_release.core.signing_keys import fingerprint
from checkpoint_release.core.text import printable
from checkpoint_release.core.trust import Trust
from checkpoint_release.parity.error_stats import spacing
from checkpoint_release.release.attested import check_attestations
from checkpoint_release.release.checks import Check as Check
from checkpoint_release.release.differences import differences
from checkpoint_release.release.examples import check_examples
from checkpoint_release.release.fetched import local_release
from checkpoint_release.release.policy import Policy, check_rebuilds
from checkpoint_release.release.signing import (
    check_signature,
    require_public,
    signer_key,
)
from checkpoint_release.tensors.safetensors import open_safetensors


class Runtime(Protocol):
    """What checkpoint_release.runtimes.open.open_runtime returns."""

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Compute the outputs, by name."""


MAX_PEOPLE_FILES = 8
"""How many are listed."""
_LONGEST = 2000  # characters of a finding in the report
Opener = Callable[[str, Path, Trust], Runtime]


@dataclass(frozen=True)
class Evidence:
    """What the formats are checked against.

    Attributes:
        parity: the errors that were accepted when the release was made.
        inputs: the sample's inputs, by name.
        outputs: the outputs that the checkpoint computes from them, by name.
    """

    parity: ParityReport
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@extras_named()
def verify_release(
    release: str,
    *,
    revision: str | None = None,
    public_key: Path | None = None,
    trust: Sequence[str] = (),
    policy: Policy | None = None,
    run_examples: bool = False,
) -> list[Check]:
    """Verify a release in a folder, or on the Hub, from where it is downloaded first.

    Args:
        release: a folder, or organisation/name on the Hub of HF_ENDPOINT.
        revision: branch, tag or commit on the Hub; None: main.
        public_key: PEM file to check the signature with.
        trust: the code that may run; see verify.
        policy: what is required beside that; None: nothing.
        run_examples: whether the card's examples, the publisher's code, run in a new
            environment, if everything else passed.

    Raises:
        ArtifactError: it is no release, or can't be read.
        PublishError: the Hub doesn't give it.
    """
    with local_release(release, revision) as found:
        checks = verify(found.folder, public_key=public_key, trust=trust, policy=policy)
        if run_examples and passed(checks):
            checks += check_examples(found.folder, read_release(found.folder))
    note = [Check("source", True, found.note)] if found.note else []
    return [*note, *checks]


def open_artifact(format: str, path: Path, trust: Trust) -> Runtime:
    """Open an artifact with the runtime that users run it with."""
    from checkpoint_release.runtimes.open import open_runtime

    return open_runtime(format, path, trust=trust)


@extras_named()
def verify(
    folder: Path,
    *,
    public_key: Path | None = None,
    trust: Sequence[str] = (),
    opener: Opener = open_artifact,
    policy: Policy | None = None,
) -> list[Check]:
    """Verify a release in a folder; nothing in it is opened unless all hashes and the
    signature are right.

    Args:
        folder: the release.
        public_key: PEM file to check the signature with; None: a signature isn't asked
            for.
        trust: the code that may run, as of checkpoint_release.load.
        opener: opens an artifact to run it.
        policy: what is required beside that; None: nothing.

    Raises:
        ArtifactError: it is no release, or can't be read.
        ParamsError: the policy names another key than public_key.
        PublishError: a key that is named can't be used.
    """
    policy = policy or Policy()
    public_key = _required_key(public_key, policy)
    if public_key is not None:
        require_public(public_key)
    release = read_release(folder)
    found = differences(folder, release)
    if found.problems:
        return [Check("files", False, problem) for problem in found.problems]
    count = f"{len(release.files)} files are what {RELEASE} lists"
    if found.people_files:
        listed = first_few(found.people_files, MAX_PEOPLE_FILES)
        count += f"; beside them, and not of the release: {listed}"
    checks = [Check("files", True, count), _check_signature(folder, public_key)]
    if not passed(checks):
        return checks
    checks += check_attestations(folder, release, public_key)
    checks += check_rebuilds(folder, release, policy)
    if not passed(checks):
        return checks
    try:
        evidence = _read_evidence(folder, release)
    except CheckpointReleaseError as error:
        return [*checks, Check("evidence", False, error.problem)]
    grant = Trust.of(trust)
    for name, runnable in release.formats.items():
        checks += _check_format(
            folder, release, name, runnable, evidence, grant, opener
        )
    return checks


def _required_key(public_key: Path | None, policy: Policy) -> Path | None:
    """The key that the signature must be by.

    Raises:
        ParamsError: two are named.
    """
    if policy.signed_by is None or public_key in (None, policy.signed_by):
        return policy.signed_by or public_key
    raise ParamsError(
        f"{{public_key}} is {public_key}, and {{require}} asks for a signature by"
        f" {policy.signed_by}",
        "name one of them",
        options=["public_key", "require"],
    )


def passed(checks: Sequence[Check]) -> bool:
    """Whether the release is what was published."""
    return all(check.passed for check in checks)


def report(checks: Sequence[Check]) -> str:
    """Render the checks, one row each, and the conclusion."""
    # Names come from the release: a line end in one would make a row of its own.
    names = [printable(check.name) for check in checks]
    width = max(map(len, names))
    lines = []
    failed = 0
    for check, name in zip(checks, names, strict=True):
        mark = "ok    " if check.passed else "FAILED"
        failed += not check.passed
        lines.append(f"{mark} {name:{width}}  {printable(check.message, _LONGEST)}")
    conclusion = "the release is what was published"
    if failed:
        conclusion = f"{failed} of {len(checks)} checks failed"
    return "\n".join([*lines, conclusion])


def _check_signature(folder: Path, public_key: Path | None) -> Check:
    """An unsigned release passes, unless somebody has a key to check it with."""
    if not (folder / SIGNATURE).is_file():
        return Check("signature", public_key is None, "the release is not signed")
    if public_key is None:
        return Check("signature", True, "not checked: no public key was given")
    problem = check_signature(folder, public_key)
    if problem:
        return Check("signature", False, problem)
    digest = fingerprint(signer_key(folder, public_key))
    return Check("signature", True, f"valid by {public_key.name} (sha256 {digest})")


def _read_evidence(folder: Path, release: Release) -> Evidence:
    """Read what the formats are checked against.

    Raises:
        ArtifactError: a file of it is missing or broken, or there is nothing to check:
            no format, no output, no value in one, or a verdict that wasn't good.
    """
    if not release.formats:
        raise ArtifactError(f"{RELEASE} lists no format, so nothing computes", REMAKE)
    evidence = Evidence(
        read_report(folder / RELEASED_REPORT),
        _read_arrays(folder / release.sample.inputs),
        _read_arrays(folder / release.sample.outputs),
    )
    if not evidence.outputs:
        raise ArtifactError(f"{release.sample.outputs} holds no output", REMAKE)
    if not any(array.size for array in evidence.outputs.values()):
        raise ArtifactError(f"{release.sample.outputs} holds no value", REMAKE)
    if not evidence.parity.passed:
        raise ArtifactError(f"{RELEASED_REPORT} says that the check failed", REMAKE)
    return evidence


def _read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of a safetensors file.

    Raises:
        ArtifactError: it is missing or broken, or a dtype has no array.
    """
    arrays = {}
    for name, tensor in open_safetensors(path).items():
        try:
            arrays[name] = tensor.numpy()
        except (TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path} holds {name!r} as {tensor.dtype}: {error}", REMAKE
            ) from None
    return arrays


def _check_format(
    folder: Path,
    release: Release,
    name: str,
    runnable: Runnable,
    evidence: Evidence,
    trust: Trust,
    opener: Opener,
) -> list[Check]:
    """Run one format on the sample.

    Args:
        folder: that holds the release.
        release: its release.json.
        name: the format's, or a variant's, in parity.json.
        runnable: what to run.
        evidence: what it is compared with.
        trust, opener: as of verify.

    Returns:
        One check for each output, or a failed one where it can't be run.
    """
    try:
        _require_place(release, name, runnable)
        runtime = opener(runnable.format, folder / runnable.path, trust)
        outputs = runtime.run(evidence.inputs)
        checks = []
        for output, expected in evidence.outputs.items():
            found = outputs.get(output)
            checks.append(_compare(name, output, found, expected, evidence.parity))
        for output in outputs.keys() - evidence.outputs.keys():
            message = "is computed, and the sample doesn't hold it"
            checks.append(Check(f"{name} {output}", False, message))
        return checks
    except UntrustedCodeError as error:
        return [Check(name, False, f"not run: {error.problem}; {error.remedy}")]
    except CheckpointReleaseError as error:
        return [Check(name, False, error.problem)]


def _require_place(release: Release, name: str, runnable: Runnable) -> None:
    """Require that what is run is a format of releases, where releases have it.

    Another folder could hold another config.json than the one that people read, and a
    runtime knows formats that no release has, such as a checkpoint's folder.

    Args:
        release: lists the files.
        name: in release.json, such as "onnx" or "onnx float16".
        runnable: what it stands for.

    Raises:
        ArtifactError: it isn't.
    """
    format = FORMATS.get(runnable.format)
    name_of_format, _, variant = name.partition(" ")
    if format is None or name_of_format != format.name:
        raise ArtifactError(
            f"{RELEASE} lists {name!r} as of the format {runnable.format!r}, which no"
            " release has, as far as this version of checkpoint-release knows",
            GET_OR_UPDATE,
        )
    place = runnable.path
    if variant and place in release.files:
        # a further file beside the main one, such as onnx/model_fp16.onnx
        place = PurePosixPath(runnable.path).with_name(format.file).as_posix()
        expected = format.path_in_release(format.file)
    else:
        expected = format.path_in_release()
    if place != expected:
        raise ArtifactError(
            f"{RELEASE} has {name} at {runnable.path!r}, and releases have it at"
            f" {format.path_in_release(format.file)!r}",
            REMAKE,
        )


def _compare(
    name: str,
    output: str,
    found: Array | None,
    expected: Array,
    parity: ParityReport,
) -> Check:
    """Compare one output of one format with the sample.

    Args:
        name: of the format.
        output: its name.
        found: what was computed; None: no such output.
        expected: the sample's values.
        parity: the errors that are allowed.

    Raises:
        InferenceError: parity.json doesn't list this output.
    """
    label = f"{name} {output}"
    if found is None or found.shape != expected.shape:
        shape = "missing" if found is None else f"of shape {list(found.shape)}"
        message = f"is {shape}, and the sample's is of shape {list(expected.shape)}"
        return Check(label, False, message)
    if not np.isfinite(found).all():
        return Check(label, False, "holds NaN or infinity")
    distance = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    error = float((distance - _rounding_error(expected)).max(initial=0.0))
    allowed = tolerance(name, output, expected, parity)
    message = f"largest error {error:.2g}, allowed {allowed:.2g}"
    return Check(label, error <= allowed, message)


def _rounding_error(expected: Array) -> Array | float:
    """How far each value of the sample may be from what float64 gave: half a step of
    its dtype.
    """
    if expected.dtype.kind != "f":
        return 0.0
    return spacing(expected, expected.dtype) / 2


def tolerance(name: str, output: str, expected: Array, parity: ParityReport) -> float:
    """The largest absolute error that the sample may show, beside its own rounding.

    That is what the check's noise rule allows in the sample. Where another rule is in
    the place of that one, or the report doesn't state the sample's floor, it is the
    largest error that the check accepted, or the noise rule by the floor of all cases,
    if that is more: another machine rounds float32 differently.

    Args:
        name: of the format, or a variant.
        output: its name.
        expected: the sample's values.
        parity: the accepted errors, the noise floor and the rule.

    Raises:
        InferenceError: parity.json doesn't list this output.
    """
    figures = _figures_of(name, parity)
    if figures is None or output not in figures.outputs:
        raise InferenceError(f"{RELEASED_REPORT} doesn't list {output} of {name}")
    figure = figures.outputs[output]
    in_sample = parity.sample_floor.get(output)
    by_noise = figure.times_floor is not None and figure.share_of_tolerance is None
    if by_noise and in_sample is not None:
        allowed = upper_bound(in_sample.worst) + upper_bound(figure.kernel_cost or 0.0)
        return parity.rule.noise_multiple * allowed
    accepted = upper_bound(figure.max_abs_error)
    floor = parity.noise_floor.get(output)
    if floor is None or expected.size == 0:
        return accepted
    magnitude = float(np.sqrt(np.mean(np.square(expected.astype(np.float64)))))
    noise = parity.rule.noise_multiple * upper_bound(floor.worst) * magnitude
    return max(accepted, noise)


def _figures_of(name: str, parity: ParityReport) -> FormatFigures | None:
    """A format's figures; weights in reduced precision are listed as "safetensors
    bfloat16", say.
    """
    if name in parity.formats:
        return parity.formats[name]
    for listed, figures in parity.formats.items():
        if listed.partition(" ")[0] == name:
            return figures
    return None
