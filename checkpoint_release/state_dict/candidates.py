"""The mappings in a checkpoint that look like state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.pth import Inert
from checkpoint_release.tensors.tensor import Tensor, TensorLike

StateDict = dict[str, TensorLike]
"""Name → tensor."""

# What lies beside the weights in a training checkpoint and may hold tensors of its own.
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|rng|random_state|^amp$|callbacks|loops", re.IGNORECASE
)
# Levels of mappings searched: trainers nest the weights once or twice, as in
# "model.ema"; further down, mappings of tensors are the state of something else.
_MAX_DEPTH = 3
# A message stays readable, whatever keys a file has: it shows so many of them, and so
# many characters of each.
_MAX_LISTED = 12
_MAX_KEY_SHOWN = 60


def candidates(
    value: Any, key: str = "", depth: int = _MAX_DEPTH
) -> Iterator[tuple[str, StateDict]]:
    """Every state dict in a nest of mappings, with its dotted key.

    Keys that name an optimizer, a scheduler, random states or callbacks are passed
    over: what is under them looks like a state dict and is none of the model's. Keys
    that aren't text are passed over as well, since no dotted key could name them.

    Args:
        value: what a checkpoint holds; anything but a mapping holds no state dict.
        key: the dotted key that led to it; "" at the top.
        depth: how many levels of mappings are searched below it.

    Yields:
        The dotted key and the tensors (name → tensor), outer mappings before inner.

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
    prefix = f"{key}." if key else ""
    for name, item in value.items():
        if not isinstance(name, str):
            continue
        if _NOT_WEIGHTS.search(name):
            continue
        yield from candidates(item, f"{prefix}{name}", depth - 1)


def tensors_in(mapping: Mapping[Any, Any]) -> StateDict:
    """The tensors that lie directly in a mapping, where they look like a state dict's.

    A few facts may lie among them, but a lone tensor among facts (a random state, class
    weights) is a fact: a mapping is a state dict where tensors are the majority. What a
    module's get_extra_state returned (torch/nn/modules/module.py stores it under
    "…_extra_state") may be anything, and doesn't count.

    Tensors that can't be released must not vanish from a state dict without a word,
    and must not stop a checkpoint that merely has one among its facts. So they count
    double: they are an error as soon as they could be part of the weights.

    Args:
        mapping: a mapping of a checkpoint; mappings in it are not searched.

    Returns:
        Name → tensor; empty where the mapping is no state dict.

    Raises:
        CheckpointError: among them are sparse, quantized or other tensors that
            safetensors can't hold.
    """
    tensors: StateDict = {}
    facts = 0
    for name, item in mapping.items():
        named = isinstance(name, str)
        if named and isinstance(item, Tensor):
            tensors[name] = item
            continue
        if named and name.endswith("_extra_state"):
            continue
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


def _unsupported(mapping: Mapping[Any, Any]) -> dict[Any, str]:
    """The tensors that safetensors can't hold: name → why.

    The reader leaves them as records with a reason (Inert.reason); other records stand
    for objects that were never tensors.
    """
    reasons = {}
    for name, item in mapping.items():
        if isinstance(item, Inert) and item.reason:
            reasons[name] = item.reason
    return reasons


def outline(value: Any) -> str:
    """What a checkpoint holds in place of a state dict, for a message.

    Keys are a file's own text: each is cut, and no more than a dozen are shown.

    Args:
        value: anything in Checkpoint.value.

    Returns:
        A clause such as "its keys are epoch, loss" or "it is a list".
    """
    if isinstance(value, Inert):
        # Without arguments it is a class or function itself, not an object of it.
        if value.args is None:
            return f"it is {value.name}"
        return f"it is an object of the class {value.name}"
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}"
    if not value:
        return "it is empty"
    keys = [str(key)[:_MAX_KEY_SHOWN] for key in value]
    return f"its keys are {first_few(keys, _MAX_LISTED)}"
