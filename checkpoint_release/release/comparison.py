"""What is different between two releases: weights, graphs, formats, configuration,
parity, metrics, card.

Almost all of it follows from release.json, which lists a digest of every tensor and
file: of a release on a Hub only the small files that changed are downloaded. How far
the weights moved takes the weights themselves; it is measured where they are here, or
no larger than a limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

import msgspec

from checkpoint_release.core.artifacts.attestation import without_attestations
from checkpoint_release.core.artifacts.config import CONFIG
from checkpoint_release.core.artifacts.parity import (
    RELEASED_REPORT,
    FormatFigures,
    ParityReport,
    read_report,
)
from checkpoint_release.core.artifacts.release import (
    CARD,
    CHANGES,
    Release,
)
from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.files import read_json
from checkpoint_release.core.training import metrics
from checkpoint_release.release.front_matter import split_card
from checkpoint_release.release.view import ReleaseView
from checkpoint_release.release.weights import (
    WeightsChange,
    compare_tensors,
    measure_distance,
)

TRAINING = "training_args.json"
DOWNLOAD_LIMIT = 100_000_000
"""Bytes of weights that are downloaded to measure how far they moved."""

_COMPUTED = frozenset({"auto_map", "transformers_version"})
_DERIVED = frozenset({"model-index", "metrics"})


class Change(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A value that is another one now.

    Attributes:
        old, new: as JSON has them; null: there is none.
    """

    old: Any
    new: Any


Changes = dict[str, Change]


class CardChange(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The card.

    Attributes:
        front_matter: field → change.
        added, removed: lines of the text.
    """

    front_matter: Changes
    added: int
    removed: int


class ParityChange(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The figures of one artifact.

    Attributes:
        share_of_limit: its worst error, as a share of what is allowed.
        graph_error: of its graph in double precision, as a share of an output.
        max_abs_error: output → largest error.
    """

    share_of_limit: Change | None
    graph_error: Change | None
    max_abs_error: Changes


class FilesChange(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Paths in the releases."""

    added: list[str]
    removed: list[str]
    changed: list[str]


class Comparison(Record, frozen=True, kw_only=True, omit_defaults=False):
    """Two releases.

    Attributes:
        old, new: their names.
        same_build: whether what was built is the same, byte for byte.
        weights: tensors.
        formats: those that were added or removed, with variants.
        graphs: artifact → fact, such as opset → change.
        config: dotted key of config.json → change.
        parity: artifact → figures, of those in both.
        metrics: name → change.
        card: None where it is the same.
        files: all that differ.
    """

    old: str
    new: str
    same_build: bool
    weights: WeightsChange
    formats: FilesChange
    graphs: dict[str, Changes]
    config: Changes
    parity: dict[str, ParityChange]
    metrics: Changes
    card: CardChange | None
    files: FilesChange


def compare(
    old: ReleaseView, new: ReleaseView, limit: int = DOWNLOAD_LIMIT
) -> Comparison:
    """Compare two releases.

    Args:
        old, new: the releases.
        limit: bytes of weights that may be downloaded, of each.

    Raises:
        ArtifactError: a file is missing, or isn't what its release lists.
        PublishError: the Hub doesn't give a file.
    """
    files = _files(old.release, new.release)
    differing = {*files.added, *files.removed, *files.changed}
    return Comparison(
        old=old.name,
        new=new.name,
        same_build=old.release.built.sha256 == new.release.built.sha256,
        weights=_weights(old, new, limit),
        formats=_listed(old.release.formats, new.release.formats),
        graphs=_graphs(old.release, new.release),
        config=_config(old, new) if CONFIG in differing else {},
        parity=_parity(old, new) if RELEASED_REPORT in differing else {},
        metrics=_metrics(old, new) if differing & {TRAINING, CARD} else {},
        card=_card(old, new) if CARD in differing else None,
        files=files,
    )


def _listed(old: Mapping[str, object], new: Mapping[str, object]) -> FilesChange:
    """Keys of two mappings, and those of both whose values differ."""
    changed = [name for name in old if name in new and old[name] != new[name]]
    return FilesChange(
        added=[name for name in new if name not in old],
        removed=[name for name in old if name not in new],
        changed=changed,
    )


def _files(old: Release, new: Release) -> FilesChange:
    """The files, without the list of changes and what states how a release was made,
    which are other in every version and are written after this comparison, and without
    a card that either release leaves to people.
    """
    passed_over = {CHANGES, *old.unlisted, *new.unlisted}
    before, after = (without_attestations(each.files) for each in (old, new))
    for name in passed_over:
        before.pop(name, None)
        after.pop(name, None)
    return _listed(before, after)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Changes:
    """Each key whose value differs."""
    names = dict.fromkeys([*old, *new])
    changed = {}
    for name in names:
        if old.get(name) != new.get(name):
            changed[name] = Change(old=old.get(name), new=new.get(name))
    return changed


# Weights and graphs


def _weights(old: ReleaseView, new: ReleaseView, limit: int) -> WeightsChange:
    """Which tensors differ, and how far they moved where that may be measured."""
    change = compare_tensors(old.release.tensors, new.release.tensors)
    if not change.known:
        reason = "one of the releases lists no tensors"
        return msgspec.structs.replace(change, not_measured=reason)
    if not (change.changed or change.reshaped):
        return change
    for view in (old, new):
        if view.is_remote and view.weights_size > limit:
            size = f"{view.weights_size:,} bytes"
            reason = f"the weights of {view.name} are {size}, which weren't downloaded"
            return msgspec.structs.replace(change, not_measured=reason)
    distance = measure_distance(old.weights(), new.weights())
    return msgspec.structs.replace(change, distance=distance)


def _graphs(old: Release, new: Release) -> dict[str, Changes]:
    """What is known about each graph that is in both, where it is another now."""
    graphs = {}
    for name, runnable in new.formats.items():
        if name in old.formats:
            changes = _changes(old.formats[name].facts, runnable.facts)
            if changes:
                graphs[name] = changes
    return graphs


def _config(old: ReleaseView, new: ReleaseView) -> Changes:
    """The settings of the model, without what the exports state about themselves."""
    before, after = _flat_json(old, CONFIG), _flat_json(new, CONFIG)
    return _changes(before, after)


def _flat_json(view: ReleaseView, path: str) -> dict[str, Any]:
    """A JSON file's values by dotted key; empty where the release has no such file."""
    if path not in view.release.files:
        return {}
    return dict(_flat(read_json(view.file(path))))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings by dotted key."""
    if not isinstance(value, dict):
        yield key, value
        return
    for name, item in value.items():
        if not key and name in _COMPUTED:
            continue
        yield from _flat(item, f"{key}.{name}" if key else name)


# Parity and metrics


def _parity(old: ReleaseView, new: ReleaseView) -> dict[str, ParityChange]:
    """The figures of each artifact that is in both."""
    before = read_report(old.file(RELEASED_REPORT))
    after = read_report(new.file(RELEASED_REPORT))
    found = {}
    for name in after.formats:
        if name in before.formats:
            change = _figures(name, before, after)
            if change != _UNCHANGED:
                found[name] = change
    return found


_UNCHANGED = ParityChange(share_of_limit=None, graph_error=None, max_abs_error={})


def _figures(name: str, before: ParityReport, after: ParityReport) -> ParityChange:
    """One artifact's figures in two reports."""
    old, new = before.formats[name], after.formats[name]
    errors = _changes(
        {output: figures.max_abs_error for output, figures in old.outputs.items()},
        {output: figures.max_abs_error for output, figures in new.outputs.items()},
    )
    return ParityChange(
        share_of_limit=_change(_worst_share(old), _worst_share(new)),
        graph_error=_change(_graph_error(old), _graph_error(new)),
        max_abs_error=errors,
    )


def _change(old: float | None, new: float | None) -> Change | None:
    return None if old == new else Change(old=old, new=new)


def _worst_share(figures: FormatFigures) -> float | None:
    """The worst error as a share of what is allowed, to two digits; None: there are no
    outputs.
    """
    shares = [output.share_of_limit for output in figures.outputs.values()]
    return float(f"{max(shares):.1e}") if shares else None


def _graph_error(figures: FormatFigures) -> float | None:
    graph = figures.graph
    return graph.error if graph is not None and graph.evaluated else None


def _metrics(old: ReleaseView, new: ReleaseView) -> Changes:
    """Measurements on held-out data, as the checkpoint and the card state them."""
    return _changes(_stated_metrics(old), _stated_metrics(new))


def _stated_metrics(view: ReleaseView) -> dict[str, float]:
    found: dict[str, float] = {}
    if TRAINING in view.release.files:
        training = read_json(view.file(TRAINING))
        if isinstance(training, dict):
            found |= metrics(training)
    fields, _ = split_card(view.text(CARD))
    for name, value in _indexed_metrics(fields):
        found.setdefault(name, value)
    return found


def _indexed_metrics(fields: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Name and value of each metric in a front matter's model-index."""
    for result in _mappings(fields.get("model-index"), "results"):
        for metric in _items(result.get("metrics")):
            name, value = metric.get("name") or metric.get("type"), metric.get("value")
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if isinstance(name, str):
                yield name, value


def _mappings(value: Any, key: str) -> Iterator[dict[str, Any]]:
    """The mappings in the lists under a key of each mapping in a list."""
    for item in _items(value):
        yield from _items(item.get(key))


def _items(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list; none where it isn't one."""
    listed = value if isinstance(value, list) else []
    return [item for item in listed if isinstance(item, dict)]


# The card


def _card(old: ReleaseView, new: ReleaseView) -> CardChange:
    """The front matter by field, and how many lines of the text differ."""
    old_fields, old_text = split_card(old.text(CARD))
    new_fields, new_text = split_card(new.text(CARD))
    for fields in (old_fields, new_fields):
        for name in _DERIVED:
            fields.pop(name, None)
    before, after = old_text.splitlines(), new_text.splitlines()
    added = removed = 0
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i1, i2, j1, j2 in matcher.get_opcodes():
        if kind != "equal":
            removed += i2 - i1
            added += j2 - j1
    return CardChange(
        front_matter=_changes(old_fields, new_fields), added=added, removed=removed
    )
