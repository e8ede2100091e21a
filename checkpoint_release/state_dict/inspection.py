"""What a checkpoint holds, without running anything in it and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Checkpoint
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.pth.kinds import Kind
from checkpoint_release.state_dict.advice import advised_params
from checkpoint_release.state_dict.candidates import StateDict, candidates, outline
from checkpoint_release.state_dict.fitting import Fit, fits
from checkpoint_release.state_dict.framework_layouts import (
    refuse_flat_parameters,
    refuse_megatron,
)
from checkpoint_release.state_dict.inspection_report import (
    TensorShapes,
    as_json,
    as_text,
)
from checkpoint_release.state_dict.quantised import note, quantisation_in
from checkpoint_release.state_dict.shards import ShardName
from checkpoint_release.state_dict.sources import read_file, read_source
from checkpoint_release.state_dict.written_by import written_by
from checkpoint_release.tensors.statistics import tied_names
from checkpoint_release.tensors.tensor import TensorLike


class Safety(StrEnum):
    """What loading the file with another program could do."""

    CLEAN = "clean"
    """It holds data, or classes of which nothing bad is known."""
    DANGEROUS = "dangerous"
    """It names code that could do harm."""


@dataclass(frozen=True)
class Inspection:
    """What a file of weights holds; as a string, a report for people.

    Attributes:
        path: the file or folder.
        kind: "safetensors", "pth" for what torch.save wrote, or what shards are.
        state_dicts: dotted key in the file → the tensors there; "" is the top.
        training: what the file says of its training, as JSON holds it; of safetensors,
            its metadata.
        notes: what else a reader should know, one sentence each.
        unsafe_globals: dotted name of code that the pickle names and that could do harm
            → how often it would have been called.
        unknown_globals: the same of code of which nothing is known.
        other_globals: the same of what is known to be inert. None of them was run.
        tool: which tool wrote it, with its version where the file says it.
        tied: key of a state dict → groups of names that share one tensor.
        fits: the model families that the state dicts fit, perhaps after a prefix is
            stripped or some tensors are left out.
        params: what to put into params.yaml: dotted option → value.
    """

    path: Path
    kind: str
    state_dicts: dict[str, TensorShapes]
    training: dict[str, Any]
    notes: tuple[str, ...] = ()
    unsafe_globals: Mapping[str, int] = field(default_factory=dict)
    unknown_globals: Mapping[str, int] = field(default_factory=dict)
    other_globals: Mapping[str, int] = field(default_factory=dict)
    tool: str = ""
    tied: Mapping[str, list[list[str]]] = field(default_factory=dict)
    fits: tuple[Fit, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def safety(self) -> Safety:
        """The verdict on what the pickle names."""
        return Safety.DANGEROUS if self.unsafe_globals else Safety.CLEAN

    def __str__(self) -> str:
        """The report: the tensors first, then what else the file holds."""
        return as_text(self)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON holds it, for programs."""
        return as_json(self)


def inspect(path: str | Path) -> Inspection:
    """Look into a checkpoint; nothing in it is imported or called.

    Args:
        path: a .pth or a safetensors file, an index of shards, or a folder.

    Raises:
        ArtifactError, CheckpointError: as read_source; one shard alone is no error.
    """
    path = Path(path)
    shard = ShardName.of(path)
    if shard is None or path.is_dir():
        return _inspect_checkpoint(read_source(path))
    note = f"this is shard {shard.number} of {shard.count}"
    return _inspect_checkpoint(read_file(path), note)


def _inspect_checkpoint(checkpoint: Checkpoint, *more_notes: str) -> Inspection:
    """The state dicts in a checkpoint that was read, and what else it holds.

    A tensor that can't be released is no error here, since nothing is released: it
    becomes a note, and the state dicts found before it are still listed.

    Args:
        checkpoint: as it was read.
        more_notes: beside its own.
    """
    state_dicts: dict[str, StateDict] = {}
    notes = [*more_notes, *checkpoint.notes]
    try:
        for key, tensors in candidates(checkpoint.value):
            state_dicts[key] = tensors
        refuse_megatron(checkpoint)
        for tensors in state_dicts.values():
            refuse_flat_parameters(tensors)
    except CheckpointError as error:  # of a kind that no release can be made of
        notes.append(error.problem)
    layout = quantisation_in(checkpoint.value)
    if layout:
        notes.append(note(layout))
    if not state_dicts and len(notes) == len(more_notes) + len(checkpoint.notes):
        notes.append(f"there is no state dict: {outline(checkpoint.value)}")
    # The top-level keys that lead to weights are no facts of the training.
    weights: set[str] = set()
    for key, tensors in state_dicts.items():
        if key:
            weights.add(key.partition(".")[0])
        else:  # a bare state dict: its tensors are at the top
            weights.update(tensors)
    found = fits(state_dicts)
    return Inspection(
        checkpoint.path,
        _kind(checkpoint),
        {key: _shapes(tensors) for key, tensors in state_dicts.items()},
        training_facts(checkpoint.entries, weights),
        tuple(notes),
        checkpoint.left_out.get("dangerous", {}),
        checkpoint.left_out.get("unknown", {}),
        checkpoint.left_out.get("harmless", {}),
        written_by(checkpoint),
        _tied(state_dicts),
        tuple(found),
        advised_params(checkpoint, state_dicts, found),
    )


def _tied(state_dicts: Mapping[str, StateDict]) -> dict[str, list[list[str]]]:
    """Of each state dict that has any, the groups of names that share a tensor."""
    groups = {key: tied_names(tensors) for key, tensors in state_dicts.items()}
    return {key: tied for key, tied in groups.items() if tied}


def _kind(checkpoint: Checkpoint) -> str:
    """What a report calls it: a file's format, or what a folder or an index holds."""
    if checkpoint.container in ("zip", "legacy"):
        return str(Kind.PTH)
    return checkpoint.container


def _shapes(tensors: Mapping[str, TensorLike]) -> TensorShapes:
    """Of each tensor dtype and shape; its bytes stay where they are."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
