"""Weights that are split over several files, with an index or by their names alone.

transformers and its kin write `model-00001-of-00003.safetensors` (or
`pytorch_model-00001-of-00003.bin`) and `model.safetensors.index.json`, whose
"weight_map" gives each tensor the name of its shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.pth import Checkpoint, Tensor
from checkpoint_release.tensors.safetensors import read_index

INDEX_SUFFIX = ".index.json"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.\w+")
_WHOLE_SET = "get all files of the set again, from one and the same export"


@dataclass(frozen=True)
class ShardName:
    """What the name of a shard says.

    Attributes:
        stem: what the whole set is called, such as "model".
        number: of the shard, from 1.
        count: of all shards.
    """

    stem: str
    number: int
    count: int

    @classmethod
    def of(cls, path: Path) -> ShardName | None:
        """The parts of a shard's name; None where it isn't the name of one."""
        match = _SHARD.fullmatch(path.name)
        if match is None:
            return None
        return cls(match["stem"], int(match["number"]), int(match["count"]))


@dataclass(frozen=True)
class ShardSet:
    """The files of one set.

    Attributes:
        path: of the index, or of the folder where there is no index.
        files: the shards, sorted by name.
        shard_of: tensor → name of its shard, as the index has it; None: no index.
    """

    path: Path
    files: tuple[Path, ...]
    shard_of: Mapping[str, str] | None


def indexed_set(index: Path) -> ShardSet:
    """The set that an index describes.

    Raises:
        ArtifactError: it isn't an index, or names a file outside its folder.
        CheckpointError: a shard is missing.
    """
    shard_of = read_index(index)
    files = [index.parent / name for name in sorted(set(shard_of.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if not files or missing:
        raise CheckpointError(
            f"{index} names {len(files)} shards, and"
            f" {first_few(missing, 3) or 'no file'} is missing beside it",
            _WHOLE_SET,
        )
    return ShardSet(index, tuple(files), shard_of)


def named_set(files: Iterable[Path]) -> ShardSet:
    """The set that files without an index make up by their names.

    Args:
        files: shards of one set, at least one.

    Raises:
        CheckpointError: one is missing.
    """
    numbered: dict[int, Path] = {}
    count = 0
    for file in sorted(files):
        name = ShardName.of(file)
        if name is not None:
            numbered[name.number] = file
            count = name.count
    missing = [number for number in range(1, count + 1) if number not in numbered]
    shards = tuple(numbered.values())
    if missing:
        raise CheckpointError(
            f"{shards[0].parent} holds {len(shards)} of {count} shards: number"
            f" {missing[0]} is missing",
            _WHOLE_SET,
        )
    return ShardSet(shards[0].parent, shards, None)


def refuse_single_shard(path: Path) -> None:
    """Refuse one shard of several in the place of a whole checkpoint.

    Raises:
        CheckpointError: it is one.
    """
    name = ShardName.of(path)
    if name is None or name.count < 2:
        return
    raise CheckpointError(
        f"{path} is shard {name.number} of {name.count}: the other tensors are in the"
        " files beside it",
        f"give the folder {path.parent} in {{checkpoint.path}}",
        options=["checkpoint.path"],
    )


def join_shards(shards: ShardSet, parts: Mapping[Path, Checkpoint]) -> Checkpoint:
    """One checkpoint out of all shards, each of them read.

    Args:
        shards: the set.
        parts: the set's files in order → what each holds.

    Raises:
        CheckpointError: a shard holds anything but named tensors, two hold the same
            tensor, or they aren't what the index says.
    """
    tensors: dict[str, Tensor] = {}
    home: dict[str, str] = {}
    left_out: dict[str, dict[str, int]] = {}
    notes: list[str] = []
    for path, part in parts.items():
        for name, tensor in _tensors_of(path, part).items():
            if name in home:
                raise CheckpointError(
                    f"{path} holds {name!r}, and so does {home[name]}", _WHOLE_SET
                )
            home[name] = path.name
            tensors[name] = tensor
        _add_counts(left_out, part.left_out)
        notes += part.notes
    if shards.shard_of is not None:
        _require_index(shards, home)
    containers = sorted({part.container for part in parts.values()})
    count = "1 shard" if len(parts) == 1 else f"{len(parts)} shards"
    return Checkpoint(
        path=shards.path,
        value=dict(sorted(tensors.items())),
        container=f"{' and '.join(containers)}, {count}",
        left_out=left_out,
        notes=tuple(notes),
        files=shards.files,
    )


def _tensors_of(path: Path, part: Checkpoint) -> dict[str, Tensor]:
    """The tensors of a shard, which holds nothing else.

    Raises:
        CheckpointError: it holds something else.
    """
    value = part.value
    if not isinstance(value, Mapping):
        value = {"": value}
    tensors = {}
    for name, item in value.items():
        if not isinstance(name, str) or not isinstance(item, Tensor):
            raise CheckpointError(
                f"{path} holds {name!r} beside tensors, as no shard of a state dict"
                " does",
                _WHOLE_SET,
            )
        tensors[name] = item
    return tensors


def _add_counts(
    total: dict[str, dict[str, int]], more: Mapping[str, Mapping[str, int]]
) -> None:
    """Add what one shard's pickle names to what the shards before it name."""
    for verdict, names in more.items():
        counts = total.setdefault(verdict, {})
        for name, count in names.items():
            counts[name] = counts.get(name, 0) + count


def _require_index(shards: ShardSet, home: Mapping[str, str]) -> None:
    """Require that every tensor is in the shard that the index gives, and no other.

    Args:
        shards: a set with an index.
        home: tensor → name of the shard that holds it.

    Raises:
        CheckpointError: one isn't.
    """
    expected = shards.shard_of or {}
    for name in sorted(expected.keys() | home.keys()):
        if expected.get(name) != home.get(name):
            raise CheckpointError(
                f"{shards.path} places {name!r} in {expected.get(name, 'no shard')},"
                f" and it is in {home.get(name, 'none of them')}",
                _WHOLE_SET,
            )
