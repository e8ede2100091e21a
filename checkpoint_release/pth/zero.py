"""Folders of DeepSpeed ZeRO: float32 master weights that are cut over ranks.

Model states say which parameters there are, in which order and shapes; the ranks'
optimizer states hold the parameters' elements in a row. ZeRO 1 and 2 cut the row of
all parameters into equal parts, ZeRO 3 each parameter. What comes out is what
DeepSpeed's own script zero_to_fp32.py makes; no class of DeepSpeed's is needed.
https://github.com/deepspeedai/DeepSpeed/blob/v0.16.4/deepspeed/utils/zero_to_fp32.py
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeGuard

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.named_paths import require_inside
from checkpoint_release.core.text import printable, shown
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.reader import read_checkpoint
from checkpoint_release.pth.records import Checkpoint, Inert
from checkpoint_release.tensors.joined import Strung
from checkpoint_release.tensors.tensor import Tensor, TensorLike, contiguous_strides
from checkpoint_release.tensors.wrappers import Cast

_MODEL_STATES = re.compile(
    r"(zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<part>\d{1,6})_model_states\.pt"
)
_OPTIM_STATES = re.compile(
    r"(bf16_|fp16_)?zero_pp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<part>\d{1,6})"
    r"_optim_states\.pt"
)
_LATEST = "latest"  # a file with the name of the newest checkpoint's folder
_ONE_RUN = "get the files of all ranks again, from one and the same step"
_NOT_FACTS = frozenset(
    {
        "module",
        "buffer_names",
        "param_shapes",
        "frozen_param_shapes",
        "frozen_param_fragments",
        "shared_params",
        "optimizer",
    }
)

_PIECE = 300  # bytes charged for a piece of a tensor

Shapes = dict[str, tuple[int, ...]]
"""Parameter → shape, in the order in which their elements follow each other."""


def is_zero(names: Iterable[str]) -> bool:
    """Whether a folder with such files is one of DeepSpeed's checkpoints."""
    known = (_MODEL_STATES, _OPTIM_STATES)
    return any(name.fullmatch(each) for each in names for name in known)


def newest_step(folder: Path) -> Path | None:
    """The folder of the newest step, where DeepSpeed's file `latest` names one.

    Raises:
        ArtifactError: it leads out of the folder.
    """
    latest = folder / _LATEST
    if not latest.is_file() or latest.stat().st_size > 255:
        return None
    tag = latest.read_bytes().decode(errors="replace").strip()
    if not tag:
        return None
    require_inside(tag, latest)
    step = folder / tag
    if step.is_dir() and is_zero(file.name for file in step.iterdir()):
        return step
    return None


def read_zero(folder: Path) -> Checkpoint:
    """Read one step of a run with ZeRO; importing and calling nothing.

    Returns:
        The weights as "module", in float32 as they were trained, and the other entries
        of the first rank's model states.

    Raises:
        CheckpointError: a rank is missing, ranks contradict each other, or the model
            is cut in other ways as well.
    """
    try:
        return _Step(folder).read()
    except CheckpointError as error:
        raise error.within(str(folder)) from None


class _Step:
    """Reads the files of one step, all of them from one budget."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = sorted(file.name for file in folder.iterdir() if file.is_file())
        self._models = _ranks(names, _MODEL_STATES)
        self._optimizers = _ranks(names, _OPTIM_STATES)
        _refuse_experts(names)
        files = [*self._models.values(), *self._optimizers.values()]
        size = sum((folder / name).stat().st_size for name in files)
        self._budget = Budget(size)
        self._left_out: dict[str, dict[str, int]] = {}

    def read(self) -> Checkpoint:
        """The weights of all ranks together.

        Raises:
            CheckpointError: as read_zero.
        """
        models = {rank: self._open(name) for rank, name in self._models.items()}
        if not models:
            raise CheckpointError(
                "there are optimizer states and no model states, which name the"
                " parameters",
                _ONE_RUN,
            )
        first = models[min(models)]
        module = first.get("module")
        if self._optimizers:
            module = self._weights(models)
        facts = {key: each for key, each in first.items() if key not in _NOT_FACTS}
        names = [*self._models.values(), *self._optimizers.values()]
        return Checkpoint(
            path=self._folder,
            value={"module": module} | facts,
            container=f"DeepSpeed, {len(names)} files of ranks",
            left_out=self._left_out,
            files=tuple(self._folder / name for name in names),
        )

    def _open(self, name: str) -> Mapping[str, Any]:
        """What a file holds.

        Raises:
            CheckpointError: it can't be read, or isn't a dict.
        """
        read = read_checkpoint(self._folder / name, self._budget)
        for verdict, names in read.left_out.items():
            counts = self._left_out.setdefault(verdict, {})
            for each, count in names.items():
                counts[each] = counts.get(each, 0) + count
        if not isinstance(read.value, dict):
            raise CheckpointError(f"{name} holds no dict, as DeepSpeed writes it")
        return read.value

    def _weights(self, models: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
        """The parameters out of the optimizer states, and the buffers beside them.

        Args:
            models: rank → model states.
        """
        states = {}
        for rank, name in self._optimizers.items():
            states[rank] = _optimizer(name, self._open(name))
        stage, count = _stage_and_count(states[min(states)])
        _require_ranks(self._optimizers, count, "optimizer states")
        if any(_stage_and_count(each) != (stage, count) for each in states.values()):
            raise CheckpointError("the ranks are of runs of different sizes", _ONE_RUN)
        ordered = [states[rank] for rank in range(count)]
        if stage == 3:
            _require_ranks(self._models, count, "model states")
        _require_same_step(models)
        first = models[min(models)]
        shapes = [_shapes(each) for each in _list(first, "param_shapes")]
        weights: dict[str, Any] = _buffers(first)
        if stage == 3:
            in_order = [models[rank] for rank in range(count)]
            weights |= _frozen_of_ranks(in_order, self._budget)
            groups = _groups(ordered, "fp32_flat_groups")
            weights |= _cut_each(shapes, groups, self._budget)
        else:
            weights |= _frozen(first)
            key = "single_partition_of_fp32_groups"
            paddings = ordered[0].get("param_alignment_paddings")
            groups = _groups(ordered, key)
            weights |= _cut_row(shapes, groups, paddings, self._budget)
        for name, own in _mapping(first, "shared_params").items():
            if type(own) is str and own in weights:
                weights[name] = weights[own]
        return weights


# Files and what they hold


def _ranks(names: Iterable[str], pattern: re.Pattern[str]) -> dict[int, str]:
    """Rank → file.

    Raises:
        CheckpointError: two files are of one rank, or the model itself is cut over
            tensor parallel parts.
    """
    found: dict[int, str] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            continue
        if int(match["part"]):
            raise CheckpointError(
                f"{name} is part {int(match['part'])} of a tensor parallel model, and"
                " the files don't say how each tensor is cut",
                "convert it with DeepSpeed's ds_to_universal.py, or with the tool that"
                " trained it",
            )
        rank = int(match["rank"] or 0)
        if rank in found:
            raise CheckpointError(
                f"{found[rank]} and {name} are of the same rank", _ONE_RUN
            )
        found[rank] = name
    return dict(sorted(found.items()))


def _refuse_experts(names: Iterable[str]) -> None:
    """Raise CheckpointError for layers and experts in files of their own."""
    others = [each for each in names if re.match(r"(layer|expert|expp_rank)_", each)]
    if others:
        raise CheckpointError(
            f"experts or pipeline layers lie in files of their own:"
            f" {first_few(others, 2)}",
            "convert it with DeepSpeed's ds_to_universal.py, or with the tool that"
            " trained it",
        )


def _require_ranks(files: Mapping[int, str], count: int, what: str) -> None:
    """Raise CheckpointError unless each rank has its file, and no other is there."""
    missing = [rank for rank in range(min(count, 1 << 20)) if rank not in files]
    if missing:
        raise CheckpointError(
            f"the {what} of rank {missing[0]} are missing: {len(files)} of"
            f" {count} ranks are there",
            _ONE_RUN,
        )
    if len(files) != count:
        raise CheckpointError(
            f"there are {what} of {len(files)} ranks, and the run had {count}",
            _ONE_RUN,
        )


def _require_same_step(models: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise CheckpointError where ranks saved other parameters or another step."""
    first_rank = min(models)
    for rank, model in models.items():
        for key in ("param_shapes", "global_steps", "ds_version"):
            if model.get(key) != models[first_rank].get(key):
                raise CheckpointError(
                    f"ranks {first_rank} and {rank} differ in {key}", _ONE_RUN
                )


def _optimizer(name: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of ZeRO's optimizer in a rank's file."""
    found = state.get("optimizer_state_dict")
    if not isinstance(found, Mapping) or "zero_stage" not in found:
        raise CheckpointError(f"{name} holds no state of ZeRO's optimizer", _ONE_RUN)
    return found


def _stage_and_count(state: Mapping[str, Any]) -> tuple[int, int]:
    """ZeRO's stage, and the number of ranks.

    The stage is a member of an Enum of DeepSpeed's, which comes as a record of a call.

    Raises:
        CheckpointError: they aren't what DeepSpeed writes.
    """
    stage, count = state["zero_stage"], state.get("partition_count")
    if isinstance(stage, Inert) and stage.args:
        stage = stage.args[0]
    if isinstance(count, list) and count and all(type(each) is int for each in count):
        count = max(count)
    if stage not in (1, 2, 3) or type(count) is not int or count < 1:
        raise CheckpointError(
            f"ZeRO's stage is {shown(stage)}, of {shown(count)} ranks, and neither is"
            " known",
            "join it with DeepSpeed's own script, zero_to_fp32.py",
        )
    if state.get("ds_zero_partition_groups") is not None:
        raise CheckpointError(
            "the ranks hold experts, each group of ranks its own",
            "convert it with DeepSpeed's ds_to_universal.py",
        )
    return int(stage), count


def _list(state: Mapping[str, Any], key: str) -> list[Any]:
    found = state.get(key)
    if not isinstance(found, list):
        raise CheckpointError(f"the model states have no {key}", _ONE_RUN)
    return found


def _mapping(state: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    """A mapping in the state; an empty one where it is null or missing."""
    found = state.get(key)
    return found if isinstance(found, Mapping) else {}


def _shapes(described: Any) -> Shapes:
    """The shapes of a group of parameters.

    Raises:
        CheckpointError: they are garbled.
    """
    shapes: Shapes = {}
    items = described.items() if isinstance(described, Mapping) else [(None, None)]
    for name, shape in items:
        if type(name) is not str or not _is_shape(shape):
            raise CheckpointError("the shapes of the parameters are garbled", _ONE_RUN)
        shapes[name] = shape
    return shapes


def _is_shape(value: Any) -> TypeGuard[tuple[int, ...]]:
    if not isinstance(value, tuple) or len(value) > 64:
        return False
    return all(type(each) is int and 0 <= each < 1 << 40 for each in value)


def _buffers(model: Mapping[str, Any]) -> dict[str, TensorLike]:
    """The module's buffers, widened as DeepSpeed's script widens them."""
    names = model.get("buffer_names")
    listed = names if isinstance(names, list) else []
    wanted = {name for name in listed if type(name) is str}
    buffers: dict[str, TensorLike] = {}
    for name, tensor in _mapping(model, "module").items():
        if name in wanted and isinstance(tensor, Tensor):
            half = DTYPES[tensor.dtype].kind == "half"
            piece = Cast(name, tensor, "F32")
            buffers[name] = Strung("F32", tensor.shape, (piece,)) if half else tensor
    return buffers


def _frozen(model: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that weren't trained, which ZeRO 1 and 2 leave whole."""
    fragments = _mapping(model, "frozen_param_fragments")
    frozen = {}
    for name, shape in _shapes(_mapping(model, "frozen_param_shapes")).items():
        tensor = fragments.get(name)
        if not isinstance(tensor, Tensor) or tensor.shape != shape:
            raise CheckpointError(
                f"the frozen parameter {printable(name)} isn't there whole", _ONE_RUN
            )
        frozen[name] = tensor
    return frozen


# Putting together


def _groups(states: Sequence[Mapping[str, Any]], key: str) -> list[list[Tensor]]:
    """Each rank's flat tensors: one for each group of parameters.

    Raises:
        CheckpointError: they are something else, or ranks have other numbers of them.
    """
    found = []
    for rank, state in enumerate(states):
        groups = state.get(key)
        if isinstance(groups, Tensor):
            groups = [groups]
        if not isinstance(groups, list) or not all(map(_is_flat, groups)):
            raise CheckpointError(f"rank {rank} has no {key} of flat tensors", _ONE_RUN)
        found.append(groups)
    if len({len(groups) for groups in found}) != 1:
        raise CheckpointError("the ranks have different groups", _ONE_RUN)
    return found


def _is_flat(value: Any) -> bool:
    if not isinstance(value, Tensor) or len(value.shape) != 1:
        return False
    return value.is_contiguous and not (value.conjugate or value.negate)


def _cut_row(
    shapes: Sequence[Shapes],
    ranks: Sequence[Sequence[Tensor]],
    paddings: Any,
    budget: Budget,
) -> dict[str, Strung]:
    """The parameters of ZeRO 1 and 2: groups whose elements lie in a row over ranks.

    Args:
        shapes: of each group's parameters.
        ranks: rank → the rank's part of each group.
        paddings: group → elements behind each parameter; None: there are none.
        budget: of all files.

    Raises:
        CheckpointError: the groups aren't as long as their parameters.
    """
    if len(shapes) != len(ranks[0]):
        raise CheckpointError(
            f"there are {len(shapes)} groups of parameters, and the ranks hold"
            f" {len(ranks[0])}",
            _ONE_RUN,
        )
    weights = {}
    for number, group in enumerate(shapes):
        row = _Row([rank[number] for rank in ranks], budget)
        gaps = _gaps(paddings, number, len(group))
        at = 0
        for (name, shape), gap in zip(group.items(), gaps, strict=True):
            size = math.prod(shape)
            weights[name] = row.tensor(name, shape, [(at, size)])
            at += size + gap
        # DeepSpeed aligns the row to twice the number of ranks, and may leave that out.
        aligned = 2 * len(ranks)
        if math.ceil(at / aligned) != math.ceil(row.size / aligned):
            raise CheckpointError(
                f"the parameters of group {number} have {at:,} elements, and the ranks"
                f" hold {row.size:,}",
                _ONE_RUN,
            )
    return weights


def _gaps(paddings: Any, group: int, count: int) -> list[int]:
    """The elements behind each parameter of a group.

    Raises:
        CheckpointError: they are garbled.
    """
    if paddings is None:
        return [0] * count
    own = paddings[group] if isinstance(paddings, list) and group < len(paddings) else 0
    if not isinstance(own, list | tuple) or len(own) != count:
        raise CheckpointError("the paddings of the parameters are garbled", _ONE_RUN)
    if not _is_shape(tuple(own[:64])) or not all(type(each) is int for each in own):
        raise CheckpointError("the paddings of the parameters are garbled", _ONE_RUN)
    return list(own)


def _cut_each(
    shapes: Sequence[Shapes], ranks: Sequence[Sequence[Tensor]], budget: Budget
) -> dict[str, Strung]:
    """The parameters of ZeRO 3, each of which is cut over all ranks.

    Args:
        shapes: of all parameters, in groups that don't matter here.
        ranks: rank → flat tensors that make up one row together.
        budget: of all files.

    Raises:
        CheckpointError: the rows aren't as long as their parameters.
    """
    count = len(ranks)
    row = _Row([tensor for groups in ranks for tensor in groups], budget)
    lengths = [sum(tensor.shape[0] for tensor in groups) for groups in ranks]
    if len(set(lengths)) != 1:
        raise CheckpointError("the ranks hold different numbers of elements", _ONE_RUN)
    weights = {}
    at = 0
    for group in shapes:
        for name, shape in group.items():
            size = math.prod(shape)
            share = math.ceil(size / count)
            spans = []
            for rank in range(count):
                length = max(0, min(share, size - rank * share))
                spans.append((rank * lengths[0] + at, length))
            weights[name] = row.tensor(name, shape, spans)
            at += share
    if at != lengths[0]:
        raise CheckpointError(
            f"the parameters have {at:,} elements on each rank, and the ranks hold"
            f" {lengths[0]:,}",
            _ONE_RUN,
        )
    return weights


def _frozen_of_ranks(
    models: Sequence[Mapping[str, Any]], budget: Budget
) -> dict[str, Strung]:
    """The parameters of ZeRO 3 that weren't trained, cut over all ranks as well.

    Raises:
        CheckpointError: a rank lacks one.
    """
    weights = {}
    for name, shape in _shapes(_mapping(models[0], "frozen_param_shapes")).items():
        pieces = [_mapping(m, "frozen_param_fragments").get(name) for m in models]
        if not all(map(_is_flat, pieces)):
            raise CheckpointError(
                f"a rank lacks its part of the frozen parameter {printable(name)}",
                _ONE_RUN,
            )
        row = _Row([piece for piece in pieces if isinstance(piece, Tensor)], budget)
        weights[name] = row.tensor(name, shape, [(0, math.prod(shape))])
    return weights


class _Row:
    """Flat tensors, one behind the other.

    Args:
        tensors: contiguous, of one dimension.
        budget: is charged for each piece of a tensor.
    """

    def __init__(self, tensors: Sequence[Tensor], budget: Budget) -> None:
        self._tensors = tensors
        self._budget = budget
        self._ends = list(accumulate(tensor.shape[0] for tensor in tensors))

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._ends[-1] if self._ends else 0

    def tensor(
        self, name: str, shape: tuple[int, ...], spans: Iterable[tuple[int, int]]
    ) -> Strung:
        """The tensor whose elements lie at these places.

        Args:
            name: for messages.
            shape: of the tensor.
            spans: first element and number of elements.

        Raises:
            CheckpointError: they lie outside, or are of different dtypes.
        """
        pieces: list[Tensor] = []
        for start, length in spans:
            pieces += self._pieces(name, start, length)
        dtypes = {piece.dtype for piece in pieces}
        if len(dtypes) > 1:
            raise CheckpointError(
                f"the ranks hold {printable(name)} in different dtypes", _ONE_RUN
            )
        return Strung(dtypes.pop() if dtypes else "F32", shape, tuple(pieces))

    def _pieces(self, name: str, start: int, length: int) -> list[Tensor]:
        if start + length > self.size:
            raise CheckpointError(
                f"{printable(name)} ends at element {start + length:,}, and the ranks"
                f" hold {self.size:,}",
                _ONE_RUN,
            )
        found = []
        at, stop = start, start + length
        number = bisect_right(self._ends, start)
        while at < stop:
            tensor, end = self._tensors[number], self._ends[number]
            begin = end - tensor.shape[0]
            high = min(stop, end)
            if at < high:
                self._budget.charge(_PIECE)
                found.append(_slice(tensor, at - begin, high - at))
                at = high
            number += 1
        return found


def _slice(tensor: Tensor, start: int, length: int) -> Tensor:
    """Elements of a flat tensor."""
    shape = (length,)
    return Tensor(
        tensor.dtype,
        shape,
        contiguous_strides(shape),
        tensor.offset + start,
        tensor.storage,
    )
