"""What a checkpoint holds about its training, as a card shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

_METRIC = re.compile(r"(val|valid|validation|best|eval|test)_[\w.-]{1,60}")
_STATES = re.compile(r"optim|sched|scaler|state_dict|rng", re.IGNORECASE)
_MOST_FACTS = 60


def training_facts(training: Mapping[str, Any]) -> dict[str, Any]:
    """Scalar facts, one level deep and no more than a reader looks through.

    Args:
        training: nested facts, as checkpoint.json holds them.

    Returns:
        Dotted name → value. Where there are too many, the last entry counts the rest.
    """
    facts = dict(_scalars(training))
    if len(facts) <= _MOST_FACTS:
        return facts
    shown = dict(islice(facts.items(), _MOST_FACTS))
    return shown | {"…": f"{len(facts) - _MOST_FACTS} more"}


def metrics(training: Mapping[str, Any]) -> dict[str, float]:
    """Measurements on data that the model wasn't trained on, going by their names."""
    found = {}
    for name, value in training_facts(training).items():
        if _is_number(value) and _METRIC.fullmatch(name.rpartition(".")[2]):
            found[name] = value
    return found


def _scalars(training: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in training.items():
        if _STATES.search(name):
            continue
        items = value.items() if isinstance(value, dict) else [("", value)]
        for key, item in items:
            if not isinstance(item, dict | list):
                yield f"{name}.{key}" if key else name, item


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
