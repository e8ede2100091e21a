"""What a checkpoint holds, without running anything in it and without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Checkpoint, read_checkpoint
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.pth.file_kind import Kind, identify
from checkpoint_release.state_dict.candidates import candidates
from checkpoint_release.tensors.safetensors import open_safetensors
from checkpoint_release.tensors.tensor import MappedFile, TensorLike

TensorShapes = dict[str, tuple[str, tuple[int, ...]]]
"""Tensor name → (safetensors dtype such as "F32", shape)."""


_WIDTH = 100  # characters of a fact in the report


@dataclass(frozen=True)
class Inspection:
    """What a file of weights holds; as a string, a report for people.

    Attributes:
        path: the file.
        kind: "safetensors", or "pth" for what torch.save wrote.
        state_dicts: dotted key in the file → the tensors there; "" is the top.
        training: what the file says of its training, as JSON holds it; of safetensors,
            its metadata.
        notes: what else a reader should know, one sentence each.
        unsafe_globals: dotted name of code that the pickle names and that could do harm
            → how often it would have been called.
        other_globals: the same of other code. None of either was run.
    """

    path: Path
    kind: str
    state_dicts: dict[str, TensorShapes]
    training: dict[str, Any]
    notes: tuple[str, ...] = ()
    unsafe_globals: Mapping[str, int] = field(default_factory=dict)
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
            fact = f"{key}: {value}"
            if len(fact) > _WIDTH:
                fact = f"{fact[: _WIDTH - 1]}…"
            facts.append(fact)
        lines += _section("training", facts)
        unsafe = _counted(self.unsafe_globals)
        lines += _section("code that could do harm, not run", unsafe)
        lines += _section("other code, not run", _counted(self.other_globals))
        lines += _section("notes", self.notes)
        return "\n".join(lines)


def inspect(path: str | Path) -> Inspection:
    """Look into a .pth or a safetensors file; nothing in it is imported or called.

    The format is known by the file's bytes, not by its name. What is neither of the two
    goes to the reader of checkpoints, whose error says what it is.

    Args:
        path: the file.

    Raises:
        ArtifactError: a safetensors file is damaged.
        CheckpointError: the file can't be read, is damaged, or is something else.
    """
    path = Path(path)
    try:
        kind = identify(MappedFile.of_file(path)).kind
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read: {error.strerror}",
            "give a .pth or a safetensors file",
        ) from None
    except CheckpointError as error:
        raise error.within(str(path)) from None
    if kind is Kind.SAFETENSORS:
        return _inspect_safetensors(path)
    return _inspect_checkpoint(read_checkpoint(path))


def _inspect_safetensors(path: Path) -> Inspection:
    """The tensors and the metadata of a safetensors file.

    Args:
        path: the file; only its header is read.

    Raises:
        ArtifactError: it is damaged.
    """
    file = open_safetensors(path)
    state_dicts = {"": _shapes(file)}
    return Inspection(path, str(Kind.SAFETENSORS), state_dicts, dict(file.metadata))


def _inspect_checkpoint(checkpoint: Checkpoint) -> Inspection:
    """The state dicts in a checkpoint that was read, and what else it holds.

    A tensor that can't be released is no error here, since nothing is released: it
    becomes a note, and the state dicts found before it are still listed.

    Args:
        checkpoint: as read_checkpoint returns it.
    """
    state_dicts: dict[str, TensorShapes] = {}
    notes = list(checkpoint.notes)
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
        str(Kind.PTH),
        state_dicts,
        training_facts(checkpoint.value, weights),
        tuple(notes),
        checkpoint.left_out["dangerous"],
        checkpoint.left_out["harmless"],
    )


def _shapes(tensors: Mapping[str, TensorLike]) -> TensorShapes:
    """Of each tensor dtype and shape; its bytes stay where they are."""
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _state_dict_lines(key: str, tensors: TensorShapes) -> list[str]:
    """A state dict in the report: how large it is, and a line for each tensor.

    Args:
        key: where in the file it is.
        tensors: name → dtype and shape.
    """
    width = max(map(len, tensors), default=0)
    rows = []
    elements = 0
    for name, (dtype, shape) in tensors.items():
        rows.append(f"{name:{width}}  {dtype} {list(shape)}")
        elements += math.prod(shape)
    title = f"state dict {key}" if key else "state dict"
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
    return [title, *(f"  {row}" for row in rows)]
