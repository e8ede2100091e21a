"""Which of the mappings in a checkpoint is the state dict to release."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Inert
from checkpoint_release.state_dict.candidates import (
    StateDict,
    candidates,
    outline,
    tensors_in,
)
from checkpoint_release.state_dict.lora import has_factors, is_adapter
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import TensorLike

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
    (USUAL_KEYS). A mapping of LoRA factors alone is an adapter, not a candidate.

    Args:
        value: what the checkpoint holds.
        key: the state dict's key, dotted where nested; None: the only one that there
            is.

    Raises:
        CheckpointError: there is none, there are several, or `key` doesn't lead to one.
    """
    if key is not None:
        return FoundStateDict(_at_key(value, key), key)
    state_dicts: dict[str, StateDict] = {}
    adapters: list[str] = []
    for name, tensors in candidates(value):
        if is_adapter(tensors):
            adapters.append(name)
        else:
            state_dicts[name] = tensors
    if not state_dicts:
        raise _none_found(value, adapters)
    name = _only_name(state_dicts)
    weights = state_dicts[name]
    beside = adapters[0] if adapters and not has_factors(weights) else ""
    return FoundStateDict(weights, name, beside)


def _only_name(state_dicts: Mapping[str, StateDict]) -> str:
    """The name of the only state dict, or of the only one under a usual key.

    Raises:
        CheckpointError: it can't be known which one is meant.
    """
    usual = [name for name in state_dicts if name.rpartition(".")[2] in USUAL_KEYS]
    for names in (list(state_dicts), usual):
        if len(names) == 1:
            return names[0]
    listed = [f"    {name}: {_size(weights)}" for name, weights in state_dicts.items()]
    raise CheckpointError(
        f"the checkpoint holds {len(listed)} state dicts:\n" + "\n".join(listed),
        "name the one to release in {checkpoint.state_dict}",
        options=["checkpoint.state_dict"],
    )


def _none_found(value: Any, adapters: list[str]) -> CheckpointError:
    """The error for a checkpoint without a state dict.

    Args:
        value: what it holds.
        adapters: keys of the LoRA adapters in it.
    """
    if adapters:
        place = adapters[0] or "the whole file"
        return CheckpointError(
            f"the checkpoint holds a LoRA adapter ({place}) and no base weights",
            "give the base checkpoint in {checkpoint.path} and this file in"
            " {checkpoint.adapter}",
            options=["checkpoint.path", "checkpoint.adapter"],
        )
    problem = f"the checkpoint holds no state dict: {outline(value)}"
    if isinstance(value, Inert):
        return CheckpointError(problem, _SAVE_WEIGHTS)
    return CheckpointError(
        problem,
        "name the key of the weights in {checkpoint.state_dict}, or give a file with"
        " weights in {checkpoint.path}",
        options=["checkpoint.state_dict", "checkpoint.path"],
    )


def _at_key(value: Any, key: str) -> StateDict:
    """The state dict under a dotted key.

    Raises:
        CheckpointError: there is none; the message shows what there is.
    """
    found = _descend(value, key)
    weights = tensors_in(found) if isinstance(found, Mapping) else {}
    if weights:
        return weights
    remedy = (
        "name the key that holds the weights, with dots between nested keys, or leave"
        " {checkpoint.state_dict} unset"
    )
    raise CheckpointError(
        f"{{checkpoint.state_dict}} is {key!r}, and there is no state dict:"
        f" {outline(value)}",
        _SAVE_WEIGHTS if isinstance(value, Inert) else remedy,
        options=["checkpoint.state_dict"],
    )


def _descend(value: Any, key: str) -> Any:
    """What a dotted key leads to; None where it leads nowhere."""
    found, rest = value, key
    while rest:
        step = _first_step(found, rest)
        if step is None:
            return None
        found, rest = found[step], rest[len(step) + 1 :]
    return found


def _first_step(value: Any, key: str) -> str | None:
    """The longest beginning of a dotted key that a mapping has; None: there is none.

    So a name with dots in it can be reached as well.
    """
    if not isinstance(value, Mapping):
        return None
    for step in _beginnings(key):
        if step in value:
            return step
    return None


def _beginnings(key: str) -> Iterator[str]:
    """Of "a.b.c": "a.b.c", "a.b", "a"."""
    while key:
        yield key
        key = key.rpartition(".")[0]


def _size(weights: Mapping[str, TensorLike]) -> str:
    """How large a state dict is, to tell candidates apart by."""
    values = sum(math.prod(tensor.shape) for tensor in weights.values())
    size = sum(nbytes(tensor) for tensor in weights.values())
    return f"{len(weights)} tensors, {values:,} values, {size / 1e6:,.1f} MB"
