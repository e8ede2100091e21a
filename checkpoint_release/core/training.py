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

    A fact in a dict is shown by a dotted name: config.lr.

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
    """Measurements on data that the model wasn't trained on, going by their names.

    Args:
        training: nested facts, as checkpoint.json holds them.

    Returns:
        Dotted name → value, of the numbers whose name begins as _METRIC says: val_loss,
        best_accuracy, metrics.test_f1.
    """
    found = {}
    for name, value in training_facts(training).items():
        is_number = type(value) in (int, float)  # a bool is no measurement
        own_name = name.rpartition(".")[2]
        if is_number and _METRIC.fullmatch(own_name):
            found[name] = value
    return found


def without_repeats(
    measured: Mapping[str, float], stated: Mapping[str, object] | None = None
) -> dict[str, float]:
    """The metrics without those that are there already: a best_… that is the same
    number as the last one, and what the author states.

    Args:
        measured: dotted name → value.
        stated: name → value.
    """
    kept = {}
    for name, value in measured.items():
        if stated and stated.get(name) == value:
            continue
        path, dot, own_name = name.rpartition(".")
        last = f"{path}{dot}{own_name.removeprefix('best_')}"
        if last == name or measured.get(last) != value:
            kept[name] = value
    return kept


def _scalars(training: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each fact, in the checkpoint's order.

    States of optimizers, schedulers and random generators are left out, and so is what
    is nested deeper than one level: a reader of a card looks for settings and results.

    Args:
        training: nested facts, as checkpoint.json holds them.
    """
    for name, value in training.items():
        if _STATES.search(name):
            continue
        items = {name: value}
        if isinstance(value, dict):
            items = {f"{name}.{key}": item for key, item in value.items()}
        for full_name, item in items.items():
            if not isinstance(item, dict | list):
                yield full_name, item
