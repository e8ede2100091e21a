"""What a checkpoint holds, without running anything in it and without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import for_terminal, printable
from checkpoint_release.pth import Checkpoint
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.pth.file_kind import Kind
from checkpoint_release.state_dict.candidates import candidates
from checkpoint_release.state_dict.shards import ShardName
from checkpoint_release.state_dict.sources import read_file, read_source
from checkpoint_release.tensors.tensor import TensorLike

TensorShapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name → (safetensors dtype such as "F32", shape)."""


_WIDTH = 100  # characters of a fact in the report


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
    """

    path: Path
    kind: str
    state_dicts: dict[str, TensorShapes]
    training: dict[str, Any]
    notes: tuple[str, ...] = ()
    unsafe_globals: Mapping[str, int] = field(default_factory=dict)
    unknown_globals: Mapping[str, int] = field(default_factory=dict)
    other_globals: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """The report: the tensors first, then what else the file holds.

        A section is left out where there is nothing in it. Facts are cut to a line each
        (they may be as long as the file's author likes); tensors and the names of code
        are complete, because people look for one of them.
        """
        lines = [f"{self.path}: {self.kind}"]
        for key, tensors in self.state_dicts.items():
            lines += _state_dict_lines(key, tensors)
        facts = []
        for key, value in self.training.items():
            facts.append(printable(f"{key}: {value}", _WIDTH - 1))
        lines += _section("training", facts)
        unsafe = _counted(self.unsafe_globals)
        lines += _section("code that could do harm, not run", unsafe)
        unknown = _counted(self.unknown_globals)
        lines += _section("code of which nothing is known, not run", unknown)
        lines += _section("inert types", _counted(self.other_globals))
        lines += _section("notes", self.notes)
        return "\n".join(lines)


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
    state_dicts: dict[str, TensorShapes] = {}
    notes = [*more_notes, *checkpoint.notes]
    try:
        for key, tensors in candidates(checkpoint.value):
            state_dicts[key] = _shapes(tensors)
    except CheckpointError as error:  # of a kind that safetensors can't hold
        notes.append(error.problem)
    # The top-level keys that lead to weights are no facts of the training.
    weights: set[str] = set()
    for key, shapes in state_dicts.items():
        if key:
            weights.add(key.partition(".")[0])
        else:  # a bare state dict: its tensors are at the top
            weights.update(shapes)
    return Inspection(
        checkpoint.path,
        _kind(checkpoint),
        state_dicts,
        training_facts(checkpoint.entries, weights),
        tuple(notes),
        checkpoint.left_out.get("dangerous", {}),
        checkpoint.left_out.get("unknown", {}),
        checkpoint.left_out.get("harmless", {}),
    )


def _kind(checkpoint: Checkpoint) -> str:
    """What a report calls it: a file's format, or what a folder or an index holds."""
    if len(checkpoint.files) > 1 or checkpoint.container == Kind.SAFETENSORS:
        return checkpoint.container
    return str(Kind.PTH)


def _shapes(tensors: Mapping[str, TensorLike]) -> TensorShapes:
    """Of each tensor dtype and shape; its bytes stay where they are."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _state_dict_lines(key: str, tensors: TensorShapes) -> list[str]:
    """A state dict in the report: how large it is, and a line for each tensor.

    Names are a file's own text; each is one visible line here, and complete.

    Args:
        key: where in the file it is.
        tensors: name → dtype and shape.
    """
    names = {name: printable(name, len(name)) for name in tensors}
    width = min(_WIDTH, max(map(len, names.values()), default=0))
    rows = []
    elements = 0
    for name, (dtype, shape) in tensors.items():
        rows.append(f"{names[name]:{width}}  {dtype} {list(shape)}")
        elements += math.prod(shape)
    title = f"state dict {printable(key)}" if key else "state dict"
    return _section(f"{title}: {len(tensors)} tensors, {elements:,} values", rows)


def _counted(names: Mapping[str, int]) -> list[str]:
    """A row for each name of code, with how often the pickle would have called it."""
    return [f"{name} ×{count}" for name, count in names.items()]


def _section(title: str, rows: list[str] | tuple[str, ...]) -> list[str]:
    """A part of the report: a title and indented rows; nothing without rows.

    Args:
        title: a line by itself.
        rows: a line each.
    """
    if not rows:
        return []
    return [title, *(f"  {for_terminal(row)}" for row in rows)]
