"""The mappings in a checkpoint that look like state dicts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.text import printable
from checkpoint_release.pth import Inert
from checkpoint_release.pth.tensor_builders import BLOCK, META
from checkpoint_release.state_dict.quantised import OPTION, remedy
from checkpoint_release.state_dict.quantised_records import kind_of
from checkpoint_release.tensors.joined import Composed
from checkpoint_release.tensors.tensor import Tensor, TensorLike

StateDict = dict[str, TensorLike]
"""Name → tensor."""

_Found = StateDict | CheckpointError
"""A mapping's tensors; the error for those that can't be released."""

# What lies beside the weights in a training checkpoint and may hold tensors of its own.
_NOT_WEIGHTS = re.compile(
    r"optim|sched|scaler|rng|random_state|^amp$|callbacks|loops", re.IGNORECASE
)
# Levels of mappings searched: trainers nest the weights once or twice, as in
# "model.ema"; further down, mappings of tensors are the state of something else.
_MAX_DEPTH = 3
MAX_STATE_DICTS = 1000  # in a file; trainers save two or three
_MAKE_DENSE = (
    "make them dense (such as tensor.to_dense() or tensor.dequantize()) before saving"
)
_OUTLINE_ONLY = (
    "save the weights after they were loaded: tensors on the device meta have none"
)
# A message stays readable, whatever keys a file has: it shows so many of them, and so
# many characters of each.
_MAX_LISTED = 12
_MAX_KEY_SHOWN = 60


def candidates(value: Any) -> Iterator[tuple[str, StateDict]]:
    """Every state dict in a nest of mappings, with its dotted key.

    Keys that name an optimizer, a scheduler, random states or callbacks are passed
    over: what is under them looks like a state dict and is none of the model's. Keys
    that aren't text are passed over as well, since no dotted key could name them.

    Args:
        value: what a checkpoint holds; anything but a mapping holds no state dict.

    Yields:
        The dotted key ("" at the top) and the tensors (name → tensor), outer mappings
        before inner.

    Raises:
        CheckpointError: as tensors_in; or there are more than a thousand.
    """
    for key, found in _Search().below(value, _MAX_DEPTH):
        if isinstance(found, CheckpointError):
            raise found
        yield key, found


class _Search:
    """Looks into each mapping once, however many places of the file share it.

    Two hundred dicts that each hold the same two hundred dicts are a few kilobytes in a
    pickle, and forty thousand places.
    """

    def __init__(self) -> None:
        self._tensors: dict[int, _Found] = {}  # by the mapping's id
        self._below: dict[tuple[int, int], list[tuple[str, _Found]]] = {}

    def below(self, value: Any, depth: int) -> list[tuple[str, _Found]]:
        """The state dicts in a mapping: dotted key, as seen from there, and tensors.

        Args:
            value: a mapping, which whoever searches keeps; anything else holds none.
            depth: how many levels of mappings are searched below it.

        Raises:
            CheckpointError: there are too many.
        """
        if not isinstance(value, Mapping):
            return []
        known = self._below.get((id(value), depth))
        if known is not None:
            return known
        found: list[tuple[str, _Found]] = []
        tensors = self._of(value)
        if tensors:
            found.append(("", tensors))
        for name, item in _searched(value) if depth else ():
            for key, inner in self.below(item, depth - 1):
                found.append((f"{name}.{key}" if key else name, inner))
            if len(found) > MAX_STATE_DICTS:
                raise _too_many()
        self._below[id(value), depth] = found
        return found

    def _of(self, mapping: Mapping[Any, Any]) -> _Found:
        """The mapping's own tensors: the same dict for each place that shares it."""
        if id(mapping) not in self._tensors:
            try:
                self._tensors[id(mapping)] = tensors_in(mapping)
            except CheckpointError as error:
                self._tensors[id(mapping)] = error
        return self._tensors[id(mapping)]


def _searched(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The mappings in a mapping that may hold a state dict, by their names."""
    for name, item in mapping.items():
        if not isinstance(item, Mapping) or not isinstance(name, str):
            continue
        if not _NOT_WEIGHTS.search(name):
            yield name, item


def _too_many() -> CheckpointError:
    """The error for a file in which state dicts are shared or multiplied endlessly."""
    return CheckpointError(
        f"the checkpoint holds more than {MAX_STATE_DICTS} state dicts",
        "name the one to release in {checkpoint.state_dict}",
        options=["checkpoint.state_dict"],
    )


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
        if named and isinstance(item, Tensor | Composed):
            tensors[name] = item
            continue
        if named and name.endswith("_extra_state"):
            continue
        facts += 1
    unsupported = _unsupported(mapping)
    if unsupported and len(tensors) + 2 * len(unsupported) > facts:
        name, reason = next(iter(unsupported.items()))
        layout = kind_of(mapping[name])
        if layout:
            raise CheckpointError(
                f"the checkpoint's weights are quantised, as {layout} lays them out",
                remedy(layout),
                options=[OPTION],
            )
        if reason == BLOCK:
            raise CheckpointError(
                f"{printable(str(name))} is {BLOCK}",
                "give the folder that holds the files of all ranks in"
                " {checkpoint.path}",
                options=["checkpoint.path"],
            )
        before = _OUTLINE_ONLY if reason == META else _MAKE_DENSE
        raise CheckpointError(
            f"{len(unsupported)} of the checkpoint's tensors can't be released, the"
            f" first of them {printable(str(name))}: {printable(reason)}",
            f"{before}, or name another state dict in {{checkpoint.state_dict}}",
            options=["checkpoint.state_dict"],
        )
    return tensors if len(tensors) > facts else {}


def key_for_message(key: Any, longest: int) -> str:
    """A key of a checkpoint's dict, visible and cut.

    Args:
        key: of any type that keys have; a tuple may hold texts of any length.
        longest: how many characters are shown.
    """
    match key:
        case str():
            text = key
        case int() | float() | None:
            text = str(key)
        case Inert():
            text = key.name
        case _:
            text = f"a {type(key).__name__}"
    return printable(text, longest)


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
    if isinstance(value, list | tuple):
        parts = [_part(each) for each in islice(value, _MAX_LISTED + 1)]
        contents = first_few(parts, _MAX_LISTED) or "nothing"
        return f"it is a {type(value).__name__} ({contents})"
    if not isinstance(value, Mapping):
        return f"it is a {type(value).__name__}"
    if not value:
        return "it is empty"
    keys = [
        key_for_message(key, _MAX_KEY_SHOWN) for key in islice(value, _MAX_LISTED + 1)
    ]
    return f"its keys are {first_few(keys, _MAX_LISTED)}"


def _part(value: Any) -> str:
    """A part of a list or tuple, in a few words."""
    if isinstance(value, Mapping):
        return f"dict with {len(value)} keys"
    return type(value).__name__
