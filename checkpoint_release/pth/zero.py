"""Folders of DeepSpeed ZeRO: float32 master weights that are cut over ranks.

Model states say which parameters there are, in which order and shapes; the ranks'
optimizer states hold the parameters' elements in a row. ZeRO 1 and 2 cut the row of
all parameters into equal parts, ZeRO 3 each parameter. What comes out is what
DeepSpeed's own script zero_to_fp32.py makes, and the frozen parameters of ZeRO 1, which
it leaves out; no class of DeepSpeed's is needed.
https://github.com/deepspeedai/DeepSpeed/blob/v0.16.4/deepspeed/utils/zero_to_fp32.py
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.named_paths import require_inside
from checkpoint_release.core.text import printable, shown
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.reader import read_checkpoint
from checkpoint_release.pth.records import Checkpoint, Inert
from checkpoint_release.pth.zero_parts import (
    ONE_RUN,
    FlatRow,
    Shapes,
    cut_each,
    cut_row,
    flat_groups,
    is_flat,
    is_shape,
)
from checkpoint_release.tensors.joined import Strung
from checkpoint_release.tensors.tensor import Tensor, TensorLike
from checkpoint_release.tensors.wrappers import Cast

_MODEL_STATES = re.compile(
    r"(zero_pp_rank_(?P<rank>\d{1,6})_)?mp_rank_(?P<part>\d{1,6})_model_states\.pt"
)
_OPTIM_STATES = re.compile(
    r"(bf16_|fp16_)?zero_pp_rank_(?P<rank>\d{1,6})_mp_rank_(?P<part>\d{1,6})"
    r"_optim_states\.pt"
)
_LATEST = "latest"  # a file with the name of the newest checkpoint's folder
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
        if error.problem.startswith(str(folder)):  # a file of it, by its own path
            raise
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
                ONE_RUN,
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
            raise CheckpointError("the ranks are of runs of different sizes", ONE_RUN)
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
            groups = flat_groups(ordered, "fp32_flat_groups")
            weights |= cut_each(shapes, groups, self._budget)
        else:
            weights |= _frozen(first)
            weights |= _only_in_module(first, {*weights, *chain(*shapes)})
            key = "single_partition_of_fp32_groups"
            paddings = ordered[0].get("param_alignment_paddings")
            groups = flat_groups(ordered, key)
            weights |= cut_row(shapes, groups, paddings, self._budget)
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
                f"{found[rank]} and {name} are of the same rank", ONE_RUN
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
            ONE_RUN,
        )
    if len(files) != count:
        raise CheckpointError(
            f"there are {what} of {len(files)} ranks, and the run had {count}",
            ONE_RUN,
        )


def _require_same_step(models: Mapping[int, Mapping[str, Any]]) -> None:
    """Raise CheckpointError where ranks saved other parameters or another step."""
    first_rank = min(models)
    for rank, model in models.items():
        for key in ("param_shapes", "global_steps", "ds_version"):
            if model.get(key) != models[first_rank].get(key):
                raise CheckpointError(
                    f"ranks {first_rank} and {rank} differ in {key}", ONE_RUN
                )


def _optimizer(name: str, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of ZeRO's optimizer in a rank's file."""
    found = state.get("optimizer_state_dict")
    if not isinstance(found, Mapping) or "zero_stage" not in found:
        raise CheckpointError(f"{name} holds no state of ZeRO's optimizer", ONE_RUN)
    return found


_STAGES = {"optimizer_states": 1, "gradients": 2, "weights": 3}
"""Members of DeepSpeed's ZeroStageEnum."""


def _stage_and_count(state: Mapping[str, Any]) -> tuple[int, int]:
    """ZeRO's stage, and the number of ranks.

    The stage is a member of an Enum of DeepSpeed's, which comes as the record of a call
    with its number, or as that of its name.

    Raises:
        CheckpointError: they aren't what DeepSpeed writes.
    """
    stage, count = state["zero_stage"], state.get("partition_count")
    if isinstance(stage, Inert):
        member = stage.name.rpartition(".")[2]
        stage = stage.args[0] if stage.args else _STAGES.get(member, stage)
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
        raise CheckpointError(f"the model states have no {key}", ONE_RUN)
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
        if type(name) is not str or not is_shape(shape):
            raise CheckpointError("the shapes of the parameters are garbled", ONE_RUN)
        shapes[name] = shape
    return shapes


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
                f"the frozen parameter {printable(name)} isn't there whole", ONE_RUN
            )
        frozen[name] = tensor
    return frozen


def _only_in_module(model: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The parameters that weren't trained and that no other entry has.

    ZeRO 1 keeps them in the module alone, and DeepSpeed's own script leaves them out.

    Args:
        model: the first rank's states; of ZeRO 1 or 2, whose modules are whole.
        known: names of the buffers and of the parameters that were trained.
    """
    shared = _mapping(model, "shared_params")
    found = {}
    for name, tensor in _mapping(model, "module").items():
        others = name in known or name in shared
        if type(name) is str and isinstance(tensor, Tensor) and not others:
            found[name] = tensor
    return found


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
        if not all(map(is_flat, pieces)):
            raise CheckpointError(
                f"a rank lacks its part of the frozen parameter {printable(name)}",
                ONE_RUN,
            )
        row = FlatRow([piece for piece in pieces if isinstance(piece, Tensor)], budget)
        weights[name] = row.tensor(name, shape, [(0, math.prod(shape))])
    return weights
