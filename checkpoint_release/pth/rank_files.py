"""Files that each rank of a training saved by torch.save, with its blocks of tensors.

torch keeps a block as a DTensor or a ShardedTensor, which only a process group could
make again. Here the block's own elements are taken, and its place is told from what the
ranks say together.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.reader import read_checkpoint
from checkpoint_release.pth.records import Checkpoint, Inert
from checkpoint_release.pth.tensor_builders import BLOCK
from checkpoint_release.tensors.joined import ONE_RUN, Part, Same, join
from checkpoint_release.tensors.tensor import Tensor, TensorLike

_NAME = re.compile(r"(?P<before>.*?)rank[_-]?(?P<rank>\d{1,6})(?P<after>\D*\.\w+)")
_MAX_DEPTH = 20  # of dicts with blocks in them
_PLACEMENT = "torch.distributed.tensor.placement_types."


@dataclass(frozen=True)
class _Block:
    """A rank's part of a tensor.

    Attributes:
        shape: of the whole tensor.
        tensor: the elements.
        cut: mesh dimension → tensor dimension that is cut along it.
        at: the rank's place in the mesh.
        offsets: where the block lies, where the file says it; None: the ranks' places
            say it together.
    """

    shape: tuple[int, ...]
    tensor: Tensor
    cut: Mapping[int, int]
    at: tuple[int, ...]
    offsets: tuple[int, ...] | None = None


def rank_files(names: Iterable[str]) -> dict[int, str]:
    """Rank → file, of a folder with the ranks' files of a model.

    Args:
        names: of the folder's files; those of optimizers may lie beside the model's.

    Returns:
        Nothing where there is no such set, or it can't be told which is the model's.
    """
    sets: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for name in names:
        match = _NAME.fullmatch(name)
        if match and not name.endswith((".json", ".txt", ".safetensors")):
            sets[match["before"], match["after"]][int(match["rank"])] = name
    several = {key: ranks for key, ranks in sets.items() if len(ranks) > 1}
    models = {key: each for key, each in several.items() if key[0].startswith("model")}
    found = models or several
    return next(iter(found.values())) if len(found) == 1 else {}


def read_rank_files(folder: Path, files: Mapping[int, str]) -> Checkpoint:
    """The checkpoint that the ranks saved together.

    Args:
        folder: that they lie in.
        files: rank → file.

    Returns:
        What the first rank saved, its blocks replaced by whole tensors.

    Raises:
        CheckpointError: a rank is missing, or the blocks don't make up the tensors.
    """
    missing = [rank for rank in range(max(files)) if rank not in files]
    if missing:
        raise CheckpointError(
            f"{folder} lacks the file of rank {missing[0]}: {len(files)} of"
            f" {max(files) + 1} are there",
            ONE_RUN,
        )
    paths = [folder / files[rank] for rank in sorted(files)]
    budget = Budget(sum(path.stat().st_size for path in paths))
    read = [read_checkpoint(path, budget) for path in paths]
    try:
        value = _joined([each.value for each in read], "", 0)
    except CheckpointError as error:
        raise error.within(str(folder)) from None
    return Checkpoint(
        path=folder,
        value=value,
        container=f"{read[0].container}, {len(paths)} files of ranks",
        left_out=_all_left_out(read),
        notes=read[0].notes,
        files=tuple(paths),
    )


def _all_left_out(read: Sequence[Checkpoint]) -> dict[str, dict[str, int]]:
    """What was left out of all files together: verdict → name → how often."""
    totals: dict[str, dict[str, int]] = {}
    for checkpoint in read:
        for verdict, names in checkpoint.left_out.items():
            counts = totals.setdefault(verdict, {})
            for name, count in names.items():
                counts[name] = counts.get(name, 0) + count
    return totals


def _joined(values: Sequence[Any], name: str, depth: int) -> Any:
    """What the ranks hold at one place, together.

    Blocks become whole tensors. In a dict with blocks the other tensors are the same on
    all ranks; anywhere else, such as among random states, the first rank's count.
    """
    first = values[0]
    if not isinstance(first, dict) or depth > _MAX_DEPTH:
        return first
    has_blocks = _has_blocks(first)
    if not _have_same_keys(values):
        if not has_blocks:
            return first
        place = printable(name) or "their files"
        raise CheckpointError(f"the ranks hold different tensors in {place}", ONE_RUN)
    whole = {}
    for key, own in first.items():
        items = [each[key] for each in values]
        shown = f"{name}.{key}" if name else str(key)
        if _is_block(own):
            whole[key] = _tensor(shown, _blocks(shown, items))
        elif has_blocks and isinstance(own, Tensor):
            whole[key] = _same(shown, items)
        else:
            whole[key] = _joined(items, shown, depth + 1)
    return whole


def _have_same_keys(values: Sequence[Any]) -> bool:
    """Whether all are dicts with the keys of the first, which is one."""
    keys = values[0].keys()
    return all(isinstance(each, dict) and each.keys() == keys for each in values)


def _has_blocks(values: Mapping[Any, Any]) -> bool:
    return any(_is_block(each) for each in values.values())


def _is_block(value: Any) -> bool:
    return isinstance(value, Inert) and value.reason == BLOCK


def _same(name: str, copies: Sequence[Any]) -> TensorLike:
    """A tensor that each rank holds whole.

    Raises:
        CheckpointError: they are of different shapes; different elements show when
            they are read.
    """
    tensors = [copy for copy in copies if isinstance(copy, Tensor)]
    kinds = {(tensor.dtype, tensor.shape) for tensor in tensors}
    if len(tensors) < len(copies) or len(kinds) > 1:
        raise CheckpointError(f"the ranks disagree on {printable(name)}", ONE_RUN)
    return Same(name, tuple(tensors))


def _tensor(name: str, blocks: Sequence[_Block]) -> TensorLike:
    """The whole tensor out of the blocks of all ranks.

    Along some dimensions of the mesh the tensor isn't cut: each step along them holds
    a copy of its own.

    Raises:
        CheckpointError: they don't make it up.
    """
    if not blocks:
        raise CheckpointError(f"no rank holds a block of {printable(name)}", ONE_RUN)
    shape, cut = blocks[0].shape, blocks[0].cut
    for block in blocks:
        alike = block.shape == shape and block.cut == cut
        if not alike or len(block.at) != len(blocks[0].at):
            raise CheckpointError(f"the ranks disagree on {printable(name)}", ONE_RUN)
    copies: dict[tuple[int, ...], list[_Block]] = defaultdict(list)
    for block in blocks:
        copies[_without(block.at, cut)].append(block)
    wholes = []
    for own in copies.values():
        parts = [Part(_offsets(block, own), block.tensor) for block in own]
        wholes.append(join(name, parts[0].tensor.dtype, shape, parts))
    return wholes[0] if len(wholes) == 1 else Same(name, tuple(wholes))


def _along(at: tuple[int, ...], axes: Collection[int]) -> tuple[int, ...]:
    """A place along some of the mesh's dimensions."""
    return tuple(step for axis, step in enumerate(at) if axis in axes)


def _without(at: tuple[int, ...], axes: Collection[int]) -> tuple[int, ...]:
    """A place along all other dimensions of the mesh."""
    return tuple(step for axis, step in enumerate(at) if axis not in axes)


def _offsets(block: _Block, others: Sequence[_Block]) -> tuple[int, ...]:
    """Where a block begins along each dimension.

    Args:
        block: one of the others.
        others: of one copy.
    """
    if block.offsets is not None:
        return block.offsets
    dimensions = range(len(block.shape))
    return tuple(_offset(block, others, dimension) for dimension in dimensions)


def _offset(block: _Block, others: Sequence[_Block], dimension: int) -> int:
    """Where a block begins along one dimension: behind those that come before it."""
    axes = [axis for axis, along in block.cut.items() if along == dimension]
    own, elsewhere = _along(block.at, axes), _without(block.at, axes)
    start = 0
    for other in others:
        beside = _without(other.at, axes) == elsewhere
        if beside and _along(other.at, axes) < own:
            start += other.tensor.shape[dimension]
    return start


# What torch writes for a block


def _blocks(name: str, records: Sequence[Any]) -> list[_Block]:
    """The blocks that the ranks' records describe.

    Raises:
        CheckpointError: one isn't a block, or is cut in a way that isn't known here.
    """
    blocks = []
    for record in records:
        try:
            blocks += _blocks_of(record)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            reason = str(error) if type(error) is ValueError else "it is garbled"
            raise CheckpointError(
                f"the block of {printable(name)} can't be placed: {printable(reason)}",
                "gather it where it was trained (such as by get_model_state_dict with"
                " full_state_dict=True), and save that",
            ) from None
    return blocks


def _blocks_of(record: Any) -> list[_Block]:
    """The blocks that one rank's record describes.

    Raises:
        ValueError: it isn't a block, or is cut in a way that isn't known here.
        AttributeError, IndexError, KeyError, TypeError: it is garbled.
    """
    if not _is_block(record):
        raise ValueError("a rank lacks it")
    _, kind, made_with, state = record.args
    shape = made_with[2]
    if kind.name.endswith("ShardedTensor"):
        return _of_sharded_tensor(shape, state)
    return [_of_dtensor(shape, state)]


def _of_dtensor(shape: tuple[int, ...], state: Any) -> _Block:
    """A DTensor: the local tensor, and the specification of mesh and placements.

    Raises:
        ValueError: it is cut in a way that isn't known here.
        AttributeError, IndexError, KeyError, TypeError: it is garbled.
    """
    fields = state[1]
    tensor, spec = fields["_local_tensor"], fields["_spec"].state
    if not isinstance(tensor, Tensor) or len(tensor.shape) != len(shape):
        raise TypeError
    cut = {}
    for axis, placement in enumerate(spec["placements"]):
        kind = placement.name.removeprefix(_PLACEMENT)
        if kind == "Shard":
            dimension = placement.state["dim"]
            cut[axis] = dimension % len(shape)
        elif kind != "Replicate":
            raise ValueError(f"it is placed as {kind}")
    order = spec.get("shard_order") or ()
    for entry in order:
        axes = entry.args[1]
        if list(axes) != sorted(axes):
            raise ValueError("its dimensions are cut in another order")
    at = tuple(spec["mesh"].state["_coordinate_on_dim"])
    if len(at) != len(spec["placements"]):
        raise TypeError
    if not all(type(step) is int for step in at):
        raise TypeError
    return _Block(shape, tensor, cut, at)


def _of_sharded_tensor(shape: tuple[int, ...], state: Any) -> list[_Block]:
    """A ShardedTensor's local blocks, which say where they lie; a rank may have none.

    Raises:
        AttributeError, IndexError, KeyError, TypeError: it is garbled.
    """
    blocks = []
    for shard in state[0]:
        fields = shard.state[1]
        tensor, offsets = fields["tensor"], fields["metadata"].state[1]["shard_offsets"]
        if not isinstance(tensor, Tensor) or len(offsets) != len(shape):
            raise TypeError
        if not all(type(offset) is int for offset in offsets):
            raise TypeError
        blocks.append(_Block(shape, tensor, {}, (), tuple(offsets)))
    return blocks
