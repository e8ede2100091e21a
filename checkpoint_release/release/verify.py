"""Check a release as a stranger would: its hashes, its signature, and that every format
still computes the sample.

python -m checkpoint_release.release.verify artifacts/release python -m
checkpoint_release.release.verify organisation/name --revision v1.0.0 --public-key
publisher.pub

A safetensors folder is run by the model code that its config.json names. A release from
elsewhere could name anything (subprocess:run is a callable too), so that only this
project's own model, the one of params.yaml and those given by --trust are called.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from huggingface_hub import get_token

from checkpoint_release.core import stage
from checkpoint_release.core.architecture import is_trusted
from checkpoint_release.core.artifacts.parity import upper_bound
from checkpoint_release.core.errors import (
    ArtifactError,
    CheckpointReleaseError,
    InferenceError,
)
from checkpoint_release.core.files import read_json
from checkpoint_release.parity.error_stats import spacing
from checkpoint_release.release.folder import (
    PARITY,
    SAMPLE,
    Release,
    differences,
    read_release,
)
from checkpoint_release.release.hub import Hub, default_endpoint
from checkpoint_release.release.signing import SIGNATURE, check_signature
from checkpoint_release.tensors.safetensors import open_safetensors

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


class Runtime(Protocol):
    """What checkpoint_release.runtimes.open.open_runtime gives."""

    def run(self, inputs: Arrays) -> Arrays:
        """Compute the outputs, by name."""


Opener = Callable[[str, Path], Runtime]


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    passed: bool
    told: str


def main() -> None:
    """Verify the release that the command line names; exit 1 if anything is not as it
    was released.
    """
    parser = argparse.ArgumentParser(
        prog="python -m checkpoint_release.release.verify", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "release", help="a folder, or organisation/name on the Hub (HF_ENDPOINT)"
    )
    parser.add_argument("--revision", help="branch, tag or commit; main by default")
    parser.add_argument(
        "--public-key",
        type=Path,
        help="PEM file of the publisher, to check model.sig with",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="FACTORY",
        help="model code that may run",
    )
    asked = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = Path(asked.release)
        if not folder.is_dir():
            folder = Path(temporary) / "release"
            download(
                Hub(default_endpoint(), get_token()),
                asked.release,
                asked.revision,
                folder,
            )
        elif asked.revision:
            parser.error(
                f"--revision is of a repository on the Hub, and {folder} is a folder"
            )
        checks = verify(folder, public_key=asked.public_key, trust=asked.trust)
    print(report(checks))
    sys.exit(0 if all(check.passed for check in checks) else 1)


def download(hub: Hub, repo_id: str, revision: str | None, folder: Path) -> None:
    """Fetch a release from the Hub.

    Raises:
        ArtifactError: that is neither a folder nor the name of a repository.
        PublishError: the Hub doesn't give it.
    """
    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise ArtifactError(
            f"{repo_id} is neither a folder nor organisation/name", "name one of them"
        )
    hub.download(repo_id, revision, folder)
    # huggingface_hub's notes on the download
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def open_artifact(format: str, path: Path) -> Runtime:
    """Open an artifact with what runs it in earnest."""
    from checkpoint_release.runtimes.open import open_runtime

    return open_runtime(format, path)


def verify(
    folder: Path,
    *,
    public_key: Path | None = None,
    trust: Sequence[str] = (),
    opener: Opener = open_artifact,
) -> list[Check]:
    """Check a release in a folder; nothing in it is run before its hashes are right.

    Args:
        folder: the release.
        public_key: PEM file to check the signature with.
        trust: factories ("package.module:callable") that config.json may name, beside
            those of is_trusted.
        opener: opens an artifact to run it.

    Raises:
        ArtifactError: it is no release, or can't be read.
    """
    release = read_release(folder)
    wrong = differences(folder, release)
    checks = [Check("files", False, problem) for problem in wrong]
    if not wrong:
        checks.append(
            Check(
                "files", True, f"{len(release.files)} files are what release.json says"
            )
        )
    checks.append(_signature(folder, public_key))
    if wrong:
        return checks
    return checks + _computations(folder, release, trust, opener)


def _signature(folder: Path, public_key: Path | None) -> Check:
    signed = (folder / SIGNATURE).is_file()
    if public_key is None:
        return Check(
            "signature",
            True,
            "not checked: no --public-key" if signed else "the release is not signed",
        )
    if not signed:
        return Check(
            "signature", False, "the release is not signed, and a public key was given"
        )
    problem = check_signature(folder, public_key)
    return Check("signature", problem is None, problem or f"valid by {public_key.name}")


def _computations(
    folder: Path, release: Release, trust: Sequence[str], opener: Opener
) -> list[Check]:
    parity = read_json(folder / PARITY)
    inputs, expected = (
        {
            name: tensor.numpy()
            for name, tensor in open_safetensors(folder / file).items()
        }
        for file in SAMPLE
    )
    checks = []
    for name, runnable in release.formats.items():
        try:
            factory = (
                read_json(folder / "config.json").get("factory")
                if runnable.format == "safetensors"
                else None
            )
            if factory is not None and not is_trusted(factory, trust):
                told = (
                    f"not run: config.json names {factory!r} as its model code; if you"
                    " know it, --trust it"
                )
                checks.append(Check(name, False, told))
                continue
            got = opener(runnable.format, folder / runnable.path).run(inputs)
            checks += [
                _compare(name, output, got.get(output), want, parity)
                for output, want in expected.items()
            ]
        except CheckpointReleaseError as error:
            checks.append(Check(name, False, error.problem))
    return checks


def _compare(
    name: str, output: str, got: Array | None, want: Array, parity: Mapping[str, Any]
) -> Check:
    """Hold one output of one format against the sample."""
    label = f"{name} {output}"
    if got is None or got.shape != want.shape:
        shape = "missing" if got is None else f"of shape {list(got.shape)}"
        return Check(
            label, False, f"is {shape}, and the sample's is of shape {list(want.shape)}"
        )
    if not np.isfinite(got).all():
        return Check(label, False, "holds NaN or infinity")
    distance = np.abs(got.astype(np.float64) - want.astype(np.float64))
    error = float((distance - _rounding(want)).max(initial=0.0))
    allowed = tolerance(name, output, want, parity)
    return Check(
        label, error <= allowed, f"largest error {error:.2g}, allowed {allowed:.2g}"
    )


def _rounding(want: Array) -> Array | float:
    """How far each value of the sample may be from what float64 gave: half a step of
    its dtype.
    """
    return spacing(want, want.dtype) / 2 if want.dtype.kind == "f" else 0.0


def tolerance(name: str, output: str, want: Array, parity: Mapping[str, Any]) -> float:
    """The largest absolute error that the sample may show, beside its own rounding.

    That is the largest one which parity-check accepted for this output of this format,
    or its noise rule applied to the sample, if that is more: on another machine float32
    rounds otherwise.

    Raises:
        InferenceError: parity.json says nothing of this output.
    """
    try:
        formats = parity["formats"]
        figures = [found for key, found in formats.items() if key == name] or [
            found for key, found in formats.items() if key.split()[0] == name
        ]
        accepted = upper_bound(figures[0]["outputs"][output]["max_abs_error"])
        floor = upper_bound(parity["noise_floor"].get(output, {}).get("worst", 0.0))
        multiple = float(parity["rule"]["noise_multiple"])
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InferenceError(
            f"{PARITY} says nothing of {output} of {name} ({error!r})"
        ) from None
    scale = (
        float(np.sqrt(np.mean(np.square(want.astype(np.float64)))))
        if want.size
        else 0.0
    )
    return max(accepted, multiple * floor * scale)


def report(checks: list[Check]) -> str:
    """The checks as a table, and the verdict."""
    width = max(len(check.name) for check in checks)
    lines = [
        f"{'ok    ' if check.passed else 'FAILED'} {check.name:{width}}  {check.told}"
        for check in checks
    ]
    failed = sum(not check.passed for check in checks)
    verdict = (
        f"{failed} of {len(checks)} checks failed"
        if failed
        else "the release is what was published"
    )
    return "\n".join([*lines, verdict])


if __name__ == "__main__":
    stage.run(main)
