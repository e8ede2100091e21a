"""The mappings in a checkpoint that look like state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Inert
from checkpoint_release.tensors.tensor import Tensor, TensorLike

StateDict = dict[str, TensorLike]
"""Name → tensor."""

# What lies beside the weights in a training checkpoint and may hold tensors of its own.
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|rng|random_state|^amp$|callbacks|loops", re.IGNORECASE
)
_MAX_DEPTH = 3
_MAX_LISTED = 12  # keys in a message
_MAX_KEY_SHOWN = 60  # characters


def candidates(
    value: Any, key: str = "", depth: int = _MAX_DEPTH
) -> Iterator[tuple[str, StateDict]]:
    """Every state dict in a nest of mappings, with its dotted key.

    The optimizer's and the like are passed over.

    Args:
        value: what a checkpoint holds.
        key: the dotted key that led to it.
        depth: how many levels of mappings are searched below it.

    Raises:
        CheckpointError: as tensors_in.
    """
    if not isinstance(value, Mapping):
        return
    tensors = tensors_in(value)
    if tensors:
        yield key, tensors
    if depth == 0:
        return
    for name, item in value.items():
        if isinstance(name, str) and not _NOT_WEIGHTS.search(name):
            below = f"{key}.{name}" if key else name
            yield from candidates(item, below, depth - 1)


def tensors_in(mapping: Mapping[Any, Any]) -> StateDict:
    """The tensors that lie directly in a mapping, where they look like a state dict's.

    A few facts may lie among them, but a lone tensor among facts (a random state, class
    weights) is a fact.

    Returns:
        Name → tensor; empty where the mapping is no state dict.

    Raises:
        CheckpointError: among them are sparse, quantized or other tensors that
            safetensors can't hold.
    """
    tensors: StateDict = {}
    facts = 0
    for name, item in mapping.items():
        if isinstance(name, str) and isinstance(item, Tensor):
            tensors[name] = item
        elif not _is_extra_state(name):
            facts += 1
    unsupported = _unsupported(mapping)
    if unsupported and len(tensors) + 2 * len(unsupported) > facts:
        name, reason = next(iter(unsupported.items()))
        raise CheckpointError(
            f"{len(unsupported)} of the checkpoint's tensors can't be released, the"
            f" first of them {name}: {reason}",
            "make them dense (such as tensor.to_dense() or tensor.dequantize()) before"
            " saving, or name another state dict in {checkpoint.state_dict}",
            options=["checkpoint.state_dict"],
        )
    return tensors if len(tensors) > facts else {}


def _is_extra_state(name: Any) -> bool:
    """Whether it is what a module's get_extra_state gave, which may be anything."""
    return isinstance(name, str) and name.endswith("_extra_state")


def _unsupported(mapping: Mapping[Any, Any]) -> dict[Any, str]:
    """The tensors that safetensors can't hold: name → why."""
    reasons = {}
    for name, item in mapping.items():
        if isinstance(item, Inert) and item.reason:
            reasons[name] = item.reason
    return reasons


def outline(value: Any) -> str:
    """What a checkpoint holds in place of a state dict, for a message.

    Returns:
        A clause such as "its keys are epoch, loss" or "it is a list".
    """
    if isinstance(value, Inert):
        kind = "an object of the class " if value.args is not None else ""
        return f"it is {kind}{value.name}"
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}"
    if not value:
        return "it is empty"
    keys = [str(key)[:_MAX_KEY_SHOWN] for key in value]
    more = ", …" if len(keys) > _MAX_LISTED else ""
    return f"its keys are {', '.join(keys[:_MAX_LISTED])}{more}"
