"""The folder of a checkpoint that was read: its weights, and checkpoint.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.manifest import Manifest, read_manifest
from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.errors import ArtifactError, first_few
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.text import printable
from checkpoint_release.core.trust import Trust

CHECKPOINT = "checkpoint"
"""The name of the folder, and the format in its manifest."""
FACTS_FILE = "checkpoint.json"
WEIGHTS_FILE = "weights.safetensors"


class TensorStatistics(Record, frozen=True, kw_only=True):
    """How much there is of the weights.

    Attributes:
        count: tensors.
        values: elements of all tensors.
        bytes: size of all tensors' data.
        dtypes: safetensors' name of a dtype → elements that have it.
        tied: groups of names that share one tensor.
    """

    count: int
    values: int
    bytes: int
    dtypes: dict[str, int]
    tied: list[list[str]]


class Origin(Record, frozen=True, kw_only=True):
    """Where the weights come from.

    Attributes:
        sha256: of the checkpoint file, in lower-case hex; of several files together.
        size: of the checkpoint's files, in bytes.
        container: what kind of files they are, such as "zip" or "safetensors".
        state_dict: dotted key of the state dict in the file; "" for a bare one.
        prefix: what was stripped from every name.
        left_out: the names of tensors that aren't the model's.
        half_precision: what was done with half-precision weights: keep, cast or refuse.
        adapter: sha256 of the LoRA adapter's file, where there was one.
        recomputed_buffers: the names of those that were computed anew, rather than
            taken from the file.
        quantised: how the weights were laid out before they were turned into floats,
            such as "bitsandbytes in 4 bits"; "" where they always were.
    """

    sha256: str
    size: int
    container: str
    state_dict: str
    prefix: str
    half_precision: str
    adapter: str | None = None
    left_out: list[str] = msgspec.field(default_factory=list)
    recomputed_buffers: list[str] = msgspec.field(default_factory=list)
    quantised: str = ""


class MergedLora(Record, frozen=True, kw_only=True):
    """The LoRA adapters that were merged.

    Attributes:
        alpha: the scale's numerator, or layer → alpha where they differ.
        rank: of all layers, or layer → rank where they differ. Of several adapters
            the keys are "adapter: layer".
        layers: the names of the layers, sorted.
        weights: adapter → what its update was multiplied by; of one adapter in full,
            nothing.
        rank_stabilized: whether the scale is alpha / √rank, instead of alpha / rank.
        dora: whether the lengths of the rows were trained as well (DoRA).
        replaced: the names of tensors that an adapter brought whole, such as biases.
    """

    alpha: float | dict[str, float]
    rank: int | dict[str, int]
    layers: list[str]
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    rank_stabilized: bool = False
    dora: bool = False
    replaced: list[str] = msgspec.field(default_factory=list)


class CheckpointFacts(Record, frozen=True, kw_only=True):
    """checkpoint.json.

    Attributes:
        model: the architecture, as Architecture.to_json writes it.
        tensors: how much there is of the weights.
        training: what the checkpoint says of its training.
        origin: where the weights come from.
        lora: the adapter that was merged; None: there was none.
        left_out: "harmless", "unknown" and "dangerous" → global named by the pickle →
            how often.
    """

    model: dict[str, Any]
    tensors: TensorStatistics
    training: dict[str, Any]
    origin: Origin
    lora: MergedLora | None
    left_out: dict[str, dict[str, int]]

    @property
    def architecture(self) -> Architecture:
        """Everything needed to build the model and to call it.

        Raises:
            ArtifactError: it isn't as it was written.
        """
        try:
            return Architecture.from_json(self.model)
        except ArtifactError as error:
            raise ArtifactError(f"{FACTS_FILE} {error.problem}", REMAKE) from None

    def describe(self) -> list[str]:
        """What was read, merged and left out, for people: a line each."""
        tensors, lora = self.tensors, self.lora
        state_dict = printable(self.origin.state_dict) or "a bare state dict"
        megabytes = tensors.bytes / 1e6
        lines = [
            f"{self.origin.container}, {state_dict}: {tensors.count} tensors,"
            f" {tensors.values:,} values ({megabytes:,.1f} MB)"
        ]
        if self.origin.left_out:
            tensors_left = first_few(self.origin.left_out, 3)
            lines.append(
                f"left out {len(self.origin.left_out)} tensors: {tensors_left}"
            )
        if self.origin.quantised:
            lines.append(f"turned into floats: {self.origin.quantised}")
        if lora:
            lines.append(
                f"merged LoRA into {len(lora.layers)} layers: alpha {lora.alpha}, rank"
                f" {lora.rank}"
            )
        for harm, names in self.left_out.items():
            if names:
                listed = [f"{name} ×{count}" for name, count in names.items()]
                lines.append(f"left out, not run ({harm}): {first_few(listed, 50)}")
        return lines


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder that holds a checkpoint's weights and facts, free of pickles.

    Attributes:
        path: of the folder.
        facts: what checkpoint.json holds.
        trust: the model code that may run, which checkpoint.json names.
    """

    path: Path
    facts: CheckpointFacts
    trust: Trust

    @classmethod
    def open(cls, path: Path, trust: Trust) -> CheckpointFolder:
        """Read the folder's facts.

        Args:
            path: of the folder.
            trust: the model code that may run.

        Raises:
            ArtifactError: checkpoint.json is missing or isn't as it was written.
        """
        return cls(path, read_record(path / FACTS_FILE, CheckpointFacts), trust)

    @property
    def architecture(self) -> Architecture:
        """Everything needed to build the model and to call it."""
        return self.facts.architecture.trusting(self.trust)

    @property
    def weights(self) -> Path:
        """The safetensors file with all weights, under the model's own names."""
        return self.path / WEIGHTS_FILE

    def manifest(self) -> Manifest:
        """The folder's manifest.

        Raises:
            ArtifactError: it is missing or isn't a manifest.
        """
        return read_manifest(self.path)
