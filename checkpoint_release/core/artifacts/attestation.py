"""The attestations of a release: in-toto statements in signed envelopes.

- https://github.com/in-toto/attestation (the statement, the predicates, and files with
  an envelope on each line)
- https://github.com/secure-systems-lab/dsse (the envelope)
- https://slsa.dev/spec/v1.0/provenance (how a release was made)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import msgspec

from checkpoint_release.core.artifacts.receipt import Checkout
from checkpoint_release.core.artifacts.typed import Record, as_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE, FileEntry

ATTESTATIONS = "attestations"
"""Their folder in a release."""
SUFFIX = ".intoto.jsonl"
PROVENANCE = f"{ATTESTATIONS}/provenance{SUFFIX}"
PROOF = f"{ATTESTATIONS}/parity{SUFFIX}"
RECORD = "provenance.json"
"""How a release was made that nobody signed: a statement without an envelope."""
BUILD_SECTIONS = ("checkpoint", "model", "formats", "safetensors", "onnx", "parity")
"""The sections of params.yaml that decide what is built; see also publish.page."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
TEST_RESULT_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
PACKAGE_URI = "pkg:pypi/checkpoint-release"
REBUILT_TYPE = f"{PACKAGE_URI}#rebuilt/v1"
BUILD_TYPE = f"{PACKAGE_URI}#pipeline/v1"
SAME = "same"
REBUILT_NAME = "rebuilt-"
"""How the file of a rebuild's attestation begins."""
_CHECKPOINT = "checkpoint"
_ADAPTER = "adapter"
_SOURCES = "sources"


class Subject(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A file that a statement is about.

    Attributes:
        name: its path in the release.
        digest: algorithm → digest in lower-case hex.
    """

    name: str
    digest: dict[str, str]


class Statement(Record, frozen=True, kw_only=True, omit_defaults=False):
    """What is stated about some files.

    Attributes:
        type: of the statement.
        subject: the files.
        predicate_type: what kind of thing is stated of them.
        predicate: what is stated.
    """

    type: str = msgspec.field(name="_type", default=STATEMENT_TYPE)
    subject: list[Subject]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: dict[str, Any]

    @property
    def files(self) -> dict[str, str | None]:
        """Path → sha256; None: the statement has no sha256 of it."""
        return {each.name: each.digest.get("sha256") for each in self.subject}


def subjects(files: Mapping[str, FileEntry]) -> list[Subject]:
    """Files as a statement names them, sorted by path."""
    return [
        Subject(name=name, digest={"sha256": entry.sha256})
        for name, entry in sorted(files.items())
    ]


def without_attestations(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """The files that attestations, or a record, are about: all others."""
    return {
        name: entry
        for name, entry in files.items()
        if name != RECORD and not is_attestation(name)
    }


def is_attestation(name: str) -> bool:
    """Whether a path in a release is an attestation's."""
    path = PurePosixPath(name)
    return path.parent.as_posix() == ATTESTATIONS and path.name.endswith(SUFFIX)


def is_rebuild(name: str) -> bool:
    """Whether a file's name is that of a rebuild's attestation."""
    return name.startswith(REBUILT_NAME) and name.endswith(SUFFIX)


class Rebuilt(Record, frozen=True, kw_only=True, omit_defaults=False):
    """That somebody made the same files again from the same checkpoint.

    Attributes:
        result: "same"; nothing else is attested.
        built: the digest of all that was built, as release.json has it.
        checkpoint: its sha256.
        packages: distribution → version, of those that computed this time.
    """

    result: str
    built: str
    checkpoint: str
    packages: dict[str, str]


class Making(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How a release was made.

    Attributes:
        parameters: section of params.yaml → its values, as the stages ran with them.
        stages: name → command, dependencies and outputs, as dvc.lock has them; none
            where DVC didn't run them.
        packages: distribution → version, of those that computed.
        checkpoint: sha256 of the checkpoint.
        adapter: sha256 of the LoRA adapter's file; None: there was none.
        checkout: the git commit of the sources; None: they are an installed package.
    """

    parameters: dict[str, Any]
    stages: dict[str, Any]
    packages: dict[str, str]
    checkpoint: str
    adapter: str | None
    checkout: Checkout | None

    @property
    def of_the_build(self) -> Making:
        """What decides what is built, and nothing that changes without it: no commit,
        no stage's digests, no option of the card.
        """
        parameters = {
            name: value
            for name, value in self.parameters.items()
            if name in BUILD_SECTIONS
        }
        publish = self.parameters.get("publish")
        if isinstance(publish, dict):
            parameters["publish"] = {"page": publish.get("page")}
        return msgspec.structs.replace(
            self, parameters=parameters, stages={}, checkout=None
        )

    def to_predicate(self, version: str) -> dict[str, Any]:
        """As SLSA's provenance v1 has it.

        Args:
            version: of this library.
        """
        definition = {
            "buildType": BUILD_TYPE,
            "externalParameters": {"parameters": self.parameters},
            "internalParameters": {"stages": self.stages},
            "resolvedDependencies": list(self._dependencies()),
        }
        builder = {"id": PACKAGE_URI, "version": {"checkpoint-release": version}}
        return {"buildDefinition": definition, "runDetails": {"builder": builder}}

    def _dependencies(self) -> Iterable[dict[str, Any]]:
        yield {"name": _CHECKPOINT, "digest": {"sha256": self.checkpoint}}
        if self.adapter:
            yield {"name": _ADAPTER, "digest": {"sha256": self.adapter}}
        if self.checkout:
            yield {
                "name": _SOURCES,
                "digest": {"gitCommit": self.checkout.commit},
                "annotations": {"changed": self.checkout.dirty},
            }
        for name, version in sorted(self.packages.items()):
            yield {"name": name, "uri": f"pkg:pypi/{name}@{version}"}

    @classmethod
    def from_predicate(cls, predicate: Mapping[str, Any], source: str) -> Making:
        """Read what to_predicate made.

        Args:
            predicate: of a statement.
            source: where it was read from, for messages.

        Raises:
            ArtifactError: it isn't such a predicate.
        """
        read = as_record(predicate, _Predicate, source)
        definition = read.definition
        if definition.kind != BUILD_TYPE:
            raise ArtifactError(
                f"{source} describes a build of the type {definition.kind!r}, not a"
                " run of this pipeline",
                REMAKE,
            )
        packages, checkout = {}, None
        digests: dict[str, str] = {}
        for each in definition.dependencies:
            if each.uri:
                packages[each.name] = each.uri.rpartition("@")[2]
            elif each.name == _SOURCES:
                checkout = Checkout(
                    commit=each.digest.get("gitCommit", ""),
                    dirty=each.annotations.get("changed") is not False,
                )
            else:
                digests[each.name] = each.digest.get("sha256", "")
        if _CHECKPOINT not in digests:
            raise ArtifactError(f"{source} names no checkpoint", REMAKE)
        return cls(
            parameters=definition.external.parameters,
            stages=definition.internal.stages,
            packages=packages,
            checkpoint=digests[_CHECKPOINT],
            adapter=digests.get(_ADAPTER),
            checkout=checkout,
        )


class _Dependency(Record, frozen=True, kw_only=True):
    name: str = ""
    uri: str = ""
    digest: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, Any] = msgspec.field(default_factory=dict)


class _External(Record, frozen=True, kw_only=True):
    parameters: dict[str, Any]


class _Internal(Record, frozen=True, kw_only=True):
    stages: dict[str, Any]


class _Definition(Record, frozen=True, kw_only=True):
    kind: str = msgspec.field(name="buildType")
    external: _External = msgspec.field(name="externalParameters")
    internal: _Internal = msgspec.field(name="internalParameters")
    dependencies: list[_Dependency] = msgspec.field(name="resolvedDependencies")


class _Predicate(Record, frozen=True, kw_only=True):
    definition: _Definition = msgspec.field(name="buildDefinition")
