"""The plain facts in a checkpoint, such as its epoch and losses, as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checkpoint_release.pth import Inert, Tensor, escape_surrogates, to_json_value

_LONGEST_TEXT = 2000
_MOST_ITEMS = 64
_DEEPEST = 6
_LEFT_OUT = object()


def training_facts_of(
    value: Any, leave: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Everything in the checkpoint that is plain: numbers, booleans, text, and short
    nests of these.

    Objects come as their fields, tensors of one element as the number; larger tensors
    and what is too long to be a fact are left out. JSON has no NaN and infinity, so
    those become the texts "nan", "inf" and "-inf".

    Args:
        value: what the checkpoint holds; no mapping: no facts.
        leave: top-level keys to leave out, such as that of the weights.
    """
    if not isinstance(value, Mapping):
        return {}
    facts = _plain(
        {key: item for key, item in value.items() if key not in leave}, _DEEPEST
    )
    return facts if isinstance(facts, dict) else {}


def _plain(value: Any, depth: int) -> Any:
    match value:
        case Inert():
            return _plain(to_json_value(value), depth)
        case Tensor():
            return _plain(to_json_value(value), depth) if value.size == 1 else _LEFT_OUT
        case None | bool():
            return value
        case int():
            return value if value.bit_length() <= 64 else str(value)[:_LONGEST_TEXT]
        case float():
            return value if math.isfinite(value) else str(value)
        case str():
            return (
                escape_surrogates(value) if len(value) <= _LONGEST_TEXT else _LEFT_OUT
            )
        case Mapping() if depth:
            if len(value) > _MOST_ITEMS:
                return _LEFT_OUT
            items = {
                escape_surrogates(str(key)): _plain(item, depth - 1)
                for key, item in value.items()
            }
            kept = {key: item for key, item in items.items() if item is not _LEFT_OUT}
            return kept if kept or not value else _LEFT_OUT
        case list() | tuple() if depth:
            if len(value) > _MOST_ITEMS:
                return _LEFT_OUT
            members = [_plain(item, depth - 1) for item in value]
            return _LEFT_OUT if any(item is _LEFT_OUT for item in members) else members
        case _:
            return _LEFT_OUT
