"""Which of the mappings in a checkpoint is the state dict to release."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.pth import Inert
from checkpoint_release.state_dict.adapter_names import has_factors, is_adapter
from checkpoint_release.state_dict.candidates import (
    StateDict,
    candidates,
    outline,
    tensors_in,
)
from checkpoint_release.state_dict.quantised import OPTION, quantisation_in, remedy
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import TensorLike

# Where training scripts and libraries keep a model's weights (Lightning: state_dict,
# Megatron and torchvision's references: model, timm: state_dict_ema, BasicSR:
# params_ema). The last part of a dotted key counts.
USUAL_KEYS = (
    "model_state_dict",
    "state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "params",
    "weights",
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
)
_MAX_LISTED = 20  # state dicts in a message
_OPTIMIZER = frozenset({"state", "param_groups"})  # torch/optim/optimizer.py
_SAVE_STATE_DICT = (
    "save the state dict alone in the code that wrote it, by"
    " torch.save(model.state_dict(), …)"
)
_SAVE_WEIGHTS = (  # instead of an object that holds them
    "save the weights themselves in the code that wrote it, by"
    " torch.save(model.state_dict(), …): no class of the file is run here"
)


@dataclass(frozen=True)
class FoundStateDict:
    """The state dict that was chosen.

    Attributes:
        weights: name → tensor.
        key: where in the file it was, such as "model_state_dict" or "model.ema"; "" for
            a bare state dict.
        adapter_beside: key of a LoRA adapter that lies beside weights which don't hold
            it; "" where there is none.
    """

    weights: StateDict
    key: str
    adapter_beside: str = ""


def find_state_dict(value: Any, key: str | None) -> FoundStateDict:
    """The state dict in a checkpoint.

    Several candidates are an error unless exactly one is under a usual key
    (USUAL_KEYS): to guess would release the wrong weights. A mapping of LoRA factors
    alone is an adapter, not a candidate.

    Args:
        value: what the checkpoint holds.
        key: the state dict's key, dotted where nested; None: the only one that there
            is.

    Returns:
        The weights with their key. An adapter beside them is named only where they hold
        no factors of their own: with factors, they are what was trained.

    Raises:
        CheckpointError: there is none, there are several, or `key` doesn't lead to one.
    """
    if key is not None:
        return FoundStateDict(_at_key(value, key), key)
    state_dicts: dict[str, StateDict] = {}
    adapters: list[str] = []
    for name, tensors in candidates(value):
        if name in state_dicts or name in adapters:
            raise CheckpointError(
                "the checkpoint holds two state dicts under the key"
                f" {printable(name)}: one of its parts has a dot in it",
                "save the weights alone, by torch.save(model.state_dict(), …)",
            )
        if is_adapter(tensors):
            adapters.append(name)
        else:
            state_dicts[name] = tensors
    if not state_dicts:
        raise _none_found(value, adapters)
    name = _only_name(state_dicts)
    weights = state_dicts[name]
    if not adapters or has_factors(weights):
        return FoundStateDict(weights, name)
    return FoundStateDict(weights, name, adapter_beside=adapters[0])


def _only_name(state_dicts: Mapping[str, StateDict]) -> str:
    """The name of the only state dict, or of the only one under a usual key.

    Args:
        state_dicts: dotted key → tensors; at least one.

    Raises:
        CheckpointError: it can't be known which one is meant; the message lists all of
            them with their sizes, by which people know theirs.
    """
    if len(state_dicts) == 1:
        return next(iter(state_dicts))
    usual = [name for name in state_dicts if name.rpartition(".")[2] in USUAL_KEYS]
    if len(usual) == 1:
        return usual[0]
    listed = [
        f"    {printable(name)}: {_size(weights)}"
        for name, weights in islice(state_dicts.items(), _MAX_LISTED)
    ]
    if len(state_dicts) > _MAX_LISTED:
        listed.append("    …")
    raise CheckpointError(
        f"the checkpoint holds {len(state_dicts)} state dicts:\n" + "\n".join(listed),
        "name the one to release in {checkpoint.state_dict}",
        options=["checkpoint.state_dict"],
    )


def _none_found(value: Any, adapters: list[str]) -> CheckpointError:
    """The error for a checkpoint without a state dict.

    It differs by what the file holds instead: an adapter belongs under another option,
    an object needs to be saved differently, anything else needs another key or file.

    Args:
        value: what it holds.
        adapters: keys of the LoRA adapters in it; "" where the whole file is one.
    """
    if adapters:
        place = printable(adapters[0]) or "the whole file"
        return CheckpointError(
            f"the checkpoint holds a LoRA adapter ({place}) and no base weights",
            "give the base checkpoint in {checkpoint.path} and this file in"
            " {checkpoint.adapter}",
            options=["checkpoint.path", "checkpoint.adapter"],
        )
    problem = f"the checkpoint holds no state dict: {outline(value)}"
    layout = quantisation_in(value)
    if layout:
        return CheckpointError(
            f"the checkpoint's weights are quantised, as {layout} lays them out",
            remedy(layout),
            options=[OPTION],
        )
    if isinstance(value, Inert):
        return CheckpointError(problem, _SAVE_WEIGHTS)
    if not isinstance(value, Mapping):  # its parts have no keys to name
        return CheckpointError(problem, _SAVE_STATE_DICT)
    if value.keys() >= _OPTIMIZER:
        return CheckpointError(
            "the checkpoint is the state of an optimizer and holds no weights",
            "give the file with the model's weights, which lies beside it as a rule, in"
            " {checkpoint.path}",
            options=["checkpoint.path"],
        )
    return CheckpointError(
        problem,
        "name the key of the weights in {checkpoint.state_dict}, or give a file with"
        " weights in {checkpoint.path}",
        options=["checkpoint.state_dict", "checkpoint.path"],
    )


def _at_key(value: Any, key: str) -> StateDict:
    """The state dict under a dotted key.

    Args:
        value: what the checkpoint holds.
        key: checkpoint.state_dict; "" is the checkpoint itself.

    Raises:
        CheckpointError: there is none; the message shows what there is.
    """
    found = _descend(value, key)
    if isinstance(found, Mapping):
        weights = tensors_in(found)
        if weights:
            return weights
    remedy = (
        "name the key that holds the weights, with dots between nested keys, or leave"
        " {checkpoint.state_dict} unset"
    )
    if isinstance(value, Inert):
        remedy = _SAVE_WEIGHTS
    raise CheckpointError(
        f"{{checkpoint.state_dict}} is {key!r}, and there is no state dict:"
        f" {outline(value)}",
        remedy,
        options=["checkpoint.state_dict"],
    )


def _descend(value: Any, key: str) -> Any:
    """What a dotted key leads to; None where it leads nowhere.

    Args:
        value: what the checkpoint holds.
        key: such as "model.ema"; names with dots in them are found as well.
    """
    found, rest = value, key
    while rest:
        step = _first_step(found, rest)
        if step is None:
            return None
        found, rest = found[step], rest[len(step) + 1 :]
    return found


def _first_step(value: Any, key: str) -> str | None:
    """The longest beginning of a dotted key that a mapping has; None: there is none.

    Of "a.b.c" these are tried: "a.b.c", "a.b", "a". So a name with dots in it can be
    reached as well.

    Args:
        value: where the step is taken from; only a mapping has steps.
        key: what is left of the dotted key.
    """
    if not isinstance(value, Mapping):
        return None
    step = key
    while step:
        if step in value:
            return step
        step = step.rpartition(".")[0]
    return None


def _size(weights: Mapping[str, TensorLike]) -> str:
    """How large a state dict is, by which people tell candidates apart.

    Returns:
        Such as "62 tensors, 11,173,962 values, 44.7 MB" (of 1e6 bytes, uncompressed).
    """
    values = 0
    size = 0
    for tensor in weights.values():
        values += math.prod(tensor.shape)
        size += nbytes(tensor)
    return f"{len(weights)} tensors, {values:,} values, {size / 1e6:,.1f} MB"
