"""What changed since another release, as Markdown for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from checkpoint_release.core.text import printable
from checkpoint_release.release.comparison import (
    CardChange,
    Change,
    Changes,
    Comparison,
    FilesChange,
    ParityChange,
)
from checkpoint_release.release.weights import Distance, WeightsChange

MOST = 8
"""How many names or changes of one kind are listed."""


def notes(comparison: Comparison) -> str:
    """A list of what changed, one line for each kind, without a heading.

    Args:
        comparison: of the version before with this one.
    """
    lines = list(_lines(comparison))
    return "\n".join(f"- {line}" for line in lines or ["Nothing that a user meets."])


def _lines(found: Comparison) -> Iterator[str]:
    yield f"Weights: {_weights(found.weights)}"
    if found.same_build:
        yield "Everything that is built is the same, byte for byte"
    yield from _formats(found.formats)
    for name, changes in found.graphs.items():
        yield f"{_code(name)}: {_listed_changes(changes)}"
    if found.config:
        yield f"Configuration: {_listed_changes(found.config)}"
    for name, parity in found.parity.items():
        yield f"Parity of {_code(name)}: {_parity(parity)}"
    if found.metrics:
        yield f"Metrics: {_metrics(found.metrics)}"
    if found.card is not None:
        yield f"Card: {_card(found.card)}"
    yield from _files(found.files)


# Weights


def _weights(change: WeightsChange) -> str:
    """How many tensors differ, and how far they moved."""
    if not change.known:
        return f"not compared ({change.not_measured})"
    if not change.differing:
        return f"none of {change.tensors} tensors differs"
    parts = []
    common = change.tensors - len(change.added)
    if change.changed:
        parts.append(f"{len(change.changed)} of {common} tensors changed")
    for names, what in (
        (change.reshaped, "of another dtype or shape"),
        (change.added, "new"),
        (change.removed, "gone"),
    ):
        if names:
            parts.append(f"{len(names)} {what} ({_names(names)})")
    if change.distance is not None:
        parts.append(_distance(change.distance))
    elif change.not_measured:
        parts.append(f"how far isn't known ({change.not_measured})")
    return "; ".join(parts)


def _distance(distance: Distance) -> str:
    return (
        f"relative change {_number(distance.median)} in the median, at most"
        f" {_number(distance.largest)} ({_code(distance.largest_in)}); no element by"
        f" more than {_number(distance.max_abs)}"
    )


# Everything else


def _formats(change: FilesChange) -> Iterator[str]:
    if change.added:
        yield f"New formats: {_names(change.added)}"
    if change.removed:
        yield f"Formats that are gone: {_names(change.removed)}"


def _parity(change: ParityChange) -> str:
    """The worst error, the graph's error, and the outputs whose error changed."""
    parts = []
    if change.share_of_limit is not None:
        parts.append(f"worst share of the limit {_arrow(change.share_of_limit)}")
    if change.graph_error is not None:
        parts.append(f"graph in double precision {_arrow(change.graph_error)}")
    if change.max_abs_error:
        parts.append(f"largest error of {_listed_changes(change.max_abs_error)}")
    return "; ".join(parts)


def _metrics(changes: Changes) -> str:
    """Each metric, with how much of itself it changed by."""
    parts = []
    for name, change in list(changes.items())[:MOST]:
        parts.append(f"{_code(name)} {_arrow(change)}{_share(change)}")
    return _joined(parts, len(changes))


def _share(change: Change) -> str:
    """By how much of itself a number changed; empty where that can't be given."""
    old, new = change.old, change.new
    if not (isinstance(old, int | float) and isinstance(new, int | float) and old):
        return ""
    return f" ({(new - old) / abs(old):+.1%})"


def _card(change: CardChange) -> str:
    text = f"{change.added} lines new, {change.removed} gone"
    if change.front_matter:
        return f"{_listed_changes(change.front_matter)}; {text}"
    return text


def _files(change: FilesChange) -> Iterator[str]:
    """Files that came or went; those that changed follow from the rest."""
    if change.added:
        yield f"New files: {_names(change.added)}"
    if change.removed:
        yield f"Files that are gone: {_names(change.removed)}"


# Texts


def _listed_changes(changes: Changes) -> str:
    parts = [
        f"{_code(name)} {_arrow(change)}"
        for name, change in list(changes.items())[:MOST]
    ]
    return _joined(parts, len(changes))


def _arrow(change: Change) -> str:
    return f"{_value(change.old)} → {_value(change.new)}"


def _value(value: Any) -> str:
    """A JSON value, short; floats with the digits that mean something to a reader."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, list):
        return _code("[" + ", ".join(str(item) for item in value) + "]")
    return _code(str(value))


def _number(value: float) -> str:
    return f"{value:.3g}"


def _names(names: Sequence[str]) -> str:
    return _joined([_code(name) for name in names[:MOST]], len(names))


def _joined(parts: Sequence[str], count: int) -> str:
    """The first parts, and how many more there are."""
    text = ", ".join(parts)
    return f"{text} and {count - len(parts)} more" if count > len(parts) else text


def _code(text: str) -> str:
    """A name out of a file, as code that it can't end, on one line."""
    return f"`{printable(text, 80).replace('`', chr(39))}`"
