"""The artifacts that a model card describes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.card.benchmark import benchmark_of
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.benchmark import BENCHMARK, Benchmark
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    CheckpointFacts,
    CheckpointFolder,
)
from checkpoint_release.core.artifacts.config import LibraryClass, read_config
from checkpoint_release.core.artifacts.formats import FORMATS, SAFETENSORS
from checkpoint_release.core.artifacts.manifest import (
    MANIFEST,
    Manifest,
    read_verified,
)
from checkpoint_release.core.artifacts.parity import (
    EXAMPLE_INPUTS,
    EXAMPLE_OUTPUTS,
    PARITY_FOLDER,
    REPORT,
    ParityReport,
    read_report,
)
from checkpoint_release.core.errors import ArtifactError, CardError
from checkpoint_release.core.files import sha256
from checkpoint_release.core.signature import Arrays
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.tensors.safetensors import open_safetensors


@dataclass(frozen=True)
class ReleaseInputs:
    """What the release is made of.

    Attributes:
        checkpoint: the model, its weights and where they come from.
        formats: the manifests of the enabled formats, by name.
        parity: the verdict on every format, and its figures.
        has_transformers_code: whether transformers finds the model's code beside the
            safetensors.
        library_class: the class of another library that the model is, if any.
        example: the inputs and outputs of the family's example; None: it has none.
        benchmark: speed and memory of these very artifacts; None: not measured.
        digests: file in the artifacts' folder → sha256; what the card is made from.
    """

    checkpoint: CheckpointFacts
    formats: dict[str, Manifest]
    parity: ParityReport
    has_transformers_code: bool
    library_class: LibraryClass | None
    example: tuple[Arrays, Arrays] | None
    benchmark: Benchmark | None
    digests: dict[str, str]

    @property
    def architecture(self) -> Architecture:
        """How the model is built and called."""
        return self.checkpoint.architecture.trusting(OWN_ARTIFACTS)


def read_inputs(artifacts: Path) -> ReleaseInputs:
    """Read the artifacts, and make sure that they belong together.

    Args:
        artifacts: the folder of all artifacts.

    Raises:
        ArtifactError: an artifact is missing, isn't what its manifest says, was made
            from another checkpoint, or didn't pass the parity check.
        CardError: no format is enabled.
    """
    manifests = read_verified(artifacts, (CHECKPOINT, *FORMATS))
    formats = {name: manifests[name] for name in FORMATS if manifests[name].enabled}
    if not formats:
        raise CardError(
            f"no format in {artifacts} is enabled",
            "set one of {formats} to true, and export it",
            options=["formats"],
        )
    parity = read_report(artifacts / PARITY_FOLDER / REPORT)
    parity.require_passed(artifacts, formats)
    for name, manifest in formats.items():
        _require_same_checkpoint(artifacts / name, manifest, manifests[CHECKPOINT])
    config = read_config(artifacts / SAFETENSORS.name)
    benchmark = benchmark_of(artifacts, formats)
    return ReleaseInputs(
        CheckpointFolder.open(artifacts / CHECKPOINT, OWN_ARTIFACTS).facts,
        formats,
        parity,
        has_transformers_code=config is not None and config.has_transformers_code,
        library_class=config.library_class if config else None,
        example=_example(artifacts / PARITY_FOLDER),
        benchmark=benchmark,
        digests=_digests(artifacts, measured=benchmark is not None),
    )


def _example(folder: Path) -> tuple[Arrays, Arrays] | None:
    """The inputs and outputs of the family's example; None: there is none.

    Args:
        folder: of the parity check.
    """
    inputs, outputs = folder / EXAMPLE_INPUTS, folder / EXAMPLE_OUTPUTS
    if not inputs.is_file():
        return None
    return _arrays(inputs), _arrays(outputs)


def _arrays(path: Path) -> Arrays:
    """The arrays of a safetensors file, by name."""
    return {name: tensor.numpy() for name, tensor in open_safetensors(path).items()}


def _require_same_checkpoint(
    folder: Path, manifest: Manifest, checkpoint: Manifest
) -> None:
    """Make sure that a format was exported from this checkpoint.

    Args:
        folder: of the format.
        manifest: of the format.
        checkpoint: the manifest of the checkpoint.

    Raises:
        ArtifactError: it was exported from another.
    """
    for name, digest in manifest.made_from.items():
        entry = checkpoint.files.get(name)
        if entry is not None and entry.sha256 != digest:
            raise ArtifactError(
                f"{folder} was made from another {name} than the one there is",
                "export it again",
            )


def _digests(artifacts: Path, *, measured: bool) -> dict[str, str]:
    """The sha256 of each file that stands for what the card is made from.

    Args:
        artifacts: the folder of all artifacts.
        measured: whether a benchmark is among them.
    """
    digests = {}
    for folder in (CHECKPOINT, *FORMATS):
        manifest = f"{folder}/{MANIFEST}"
        digests[manifest] = sha256(artifacts / manifest)
    report = f"{PARITY_FOLDER}/{REPORT}"
    digests[report] = sha256(artifacts / report)
    if measured:
        digests[BENCHMARK] = sha256(artifacts / BENCHMARK)
    return digests
