"""What a checkpoint says of its training, such as its epoch and losses."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from checkpoint_release.pth.json_values import Limits, to_json_value

_FACTS = Limits(
    values=100_000,
    depth=6,
    items=64,
    characters=2000,
    integer_bits=64,
    summaries=False,
)
"""What is larger is data rather than a fact: a history of losses, an optimizer's state.

Facts end up in checkpoint.json and on the model's page, which a file's author must
not be able to flood.
"""


def training_facts(value: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The checkpoint's numbers, booleans, text, and short nests of these.

    Objects come as their fields, tensors of one element as the number; larger tensors
    and what is too long to be a fact are left out. JSON has no NaN and infinity, so
    those become the texts "nan", "inf" and "-inf".

    Args:
        value: what the checkpoint holds; no mapping: no facts.
        leave_out: top-level keys to leave out, such as that of the weights.

    Returns:
        Key → what JSON holds of the value; no more than 100,000 values in all.
    """
    if not isinstance(value, dict):
        return {}
    kept = {}
    for key, item in value.items():
        if key not in leave_out:
            kept[key] = item
    facts = to_json_value(kept, _FACTS)
    return facts if isinstance(facts, dict) else {}
