"""release.json: what a release holds, what in it computes, and which of its files were
built, which were measured, and which are the author's own.

What is built has the same bytes on every machine. What is measured, and every file that
states it, is evidence of the one machine that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from checkpoint_release.core.artifacts.parity import Machine
from checkpoint_release.core.artifacts.typed import Record, as_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import (
    FileEntry,
    checksums,
    joint_sha256,
    read_json,
)
from checkpoint_release.core.named_paths import require_inside

RELEASE = "release.json"
SUMS = "SHA256SUMS"
SIGNATURE = "model.sig"
SBOM = "sbom.cdx.json"
CHANGES = "CHANGELOG.md"
CARD = "README.md"
PICTURES = "pictures"
"""The folder of the card's pictures."""
EXAMPLE_PICTURE = "example.svg"
"""Among the pictures, that of the family's example: it is built, and not measured."""


GET_OR_UPDATE = (
    "get the release again; or, if a newer checkpoint-release made it, install that one"
)


class Runnable(Record, frozen=True, kw_only=True):
    """Something in a release that computes.

    Attributes:
        format: its name in the registry.
        path: its folder or file in the release.
        facts: what is known about its graph, such as the opset.
    """

    format: str
    path: str
    facts: dict[str, int | str] = msgspec.field(default_factory=dict)


class TensorEntry(Record, frozen=True, kw_only=True):
    """One tensor of the released safetensors files.

    Attributes:
        dtype: by its name there, such as F32.
        shape: size of each dimension.
        sha256: of its elements, row-major and little-endian, in lower-case hex.
    """

    dtype: str
    shape: list[int]
    sha256: str


class Sample(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Random inputs, and what the checkpoint makes of them in float64, rounded to its
    dtypes.
    """

    inputs: str = "sample/inputs.safetensors"
    outputs: str = "sample/outputs.safetensors"


class Listing(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Some of a release's files.

    Attributes:
        sha256: of all of them together; see digest_of.
        files: path → size and sha256.
    """

    sha256: str
    files: dict[str, FileEntry]


class Evidence(Listing, frozen=True, kw_only=True, omit_defaults=False):
    """The files that hold measured figures, or say what was installed.

    Attributes:
        machine: that the figures were measured on.
    """

    machine: Machine


def _no_files() -> Listing:
    return Listing(sha256=digest_of({}), files={})


class Release(Record, frozen=True, kw_only=True, omit_defaults=False):
    """release.json; itself, SHA256SUMS and the signature are not among its files.

    Attributes:
        formats: name in parity.json (such as "onnx" or "onnx float16") → what to run.
        sample: the files of the sample.
        card: "replace" if the card is one of the files; "keep" if it is left to the
            people who edit it on the Hub.
        built: the files that the checkpoint, the parameters and the pinned versions
            decide: weights, graphs, configuration, code and samples.
        evidence: the files that hold measured figures or say what was installed: the
            parity report, the card and its pictures, what changed since the version
            before, the bill of materials.
        extra: the author's own files, such as a licence, which no stage made.
        tensors: name → tensor of the safetensors files; empty without that format.
            With them, two releases are compared without their weights.
    """

    formats: dict[str, Runnable]
    sample: Sample
    card: Literal["replace", "keep"]
    built: Listing
    evidence: Evidence
    extra: Listing = msgspec.field(default_factory=_no_files)
    tensors: dict[str, TensorEntry] = msgspec.field(default_factory=dict)

    @property
    def files(self) -> dict[str, FileEntry]:
        """All listed files, sorted by path."""
        files = self.built.files | self.evidence.files | self.extra.files
        return dict(sorted(files.items()))

    @property
    def unlisted(self) -> frozenset[str]:
        """Files that may be there without being listed."""
        unlisted = {RELEASE, SUMS, SIGNATURE, ".gitattributes"}
        if self.card == "keep":
            unlisted.add(CARD)
        return frozenset(unlisted)

    def checksums(self, own: str) -> str:
        """The text of SHA256SUMS, which covers release.json too.

        Args:
            own: the sha256 of release.json itself.
        """
        digests = {name: entry.sha256 for name, entry in self.files.items()}
        return checksums(digests | {RELEASE: own})


def digest_of(files: Mapping[str, FileEntry]) -> str:
    """One digest of many files: the sha256 of their lines as `sha256sum` writes them,
    sorted by path.

    Args:
        files: path → size and sha256.
    """
    return joint_sha256({name: entry.sha256 for name, entry in files.items()})


def read_release(folder: Path) -> Release:
    """Read a release's own description, without looking at its files.

    Args:
        folder: that holds the release.

    Raises:
        ArtifactError: there is no release.json, it isn't one, or a path in it leads out
            of the folder.
    """
    path = folder / RELEASE
    if not path.is_file():
        raise ArtifactError(
            f"{folder} holds no {RELEASE}",
            "name the folder or the repository of a release",
        )
    release = _as_release(read_json(path), path)
    paths = [*release.files, release.sample.inputs, release.sample.outputs]
    for runnable in release.formats.values():
        if runnable.path:  # otherwise it lies in the release's root
            paths.append(runnable.path)
    for name in paths:
        require_inside(name, path, links=True)
    for name in (release.sample.inputs, release.sample.outputs):
        if name not in release.files:
            raise ArtifactError(
                f"{path} has {name!r} as the sample, and doesn't list that file",
                "get the release again",
            )
    _require_digests(release, path)
    return release


def _as_release(value: object, source: Path) -> Release:
    """What release.json holds, as this version of the library has it.

    Raises:
        ArtifactError: it isn't that.
    """
    try:
        return as_record(value, Release, str(source))
    except ArtifactError as error:
        raise ArtifactError(error.problem, GET_OR_UPDATE) from None


def _require_digests(release: Release, source: Path) -> None:
    """Require that the digests are those of the files that are listed.

    Args:
        release: what was read.
        source: the file that it was read from, for the message.

    Raises:
        ArtifactError: they aren't, or a file is listed in two of the groups.
    """
    groups: dict[str, Listing] = {
        "built": release.built,
        "evidence": release.evidence,
        "extra": release.extra,
    }
    group_of: dict[str, str] = {}
    for name, group in groups.items():
        digest = digest_of(group.files)
        if digest != group.sha256:
            raise ArtifactError(
                f"{source} gives {group.sha256[:12]}… as the digest of {name}, and the"
                f" files listed there have {digest[:12]}…",
                "get the release again",
            )
        for path in group.files:
            if path in group_of:
                raise ArtifactError(
                    f"{source} lists {path} as {group_of[path]} and as {name}",
                    "get the release again",
                )
            group_of[path] = name
