"""Putting flattened entries back into the dicts and lists that they came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable

MAX_DEPTH = 64


def nested(flat: Mapping[str, Any], paths: Mapping[Any, Any]) -> dict[Any, Any]:
    """The nest of values whose leaves are given under flattened names.

    Args:
        flat: name → value.
        paths: name → keys from the top down to the value: texts of dicts, numbers of
            lists. A name without a path stays at the top as it is.

    Raises:
        CheckpointError: a path is no such thing, or two values share a place.
    """
    root: dict[Any, Any] = {}
    made = {id(root)}  # the dicts of the nest; others are values
    for name, value in flat.items():
        path = paths.get(name, (name,))
        if not _is_path(path):
            raise CheckpointError(f"the place of {printable(name)} is garbled")
        node = root
        for key in path[:-1]:
            if key not in node:
                node[key] = {}
                made.add(id(node[key]))
            node = node[key]
            if id(node) not in made:
                raise _shared(name)
        if path[-1] in node:
            raise _shared(name)
        node[path[-1]] = value
    return {key: _lists(value, made) for key, value in root.items()}


def _is_path(path: Any) -> bool:
    if not isinstance(path, tuple | list) or not 0 < len(path) <= MAX_DEPTH:
        return False
    return all(type(key) in (str, int) for key in path)


def _lists(node: Any, made: set[int]) -> Any:
    """A node with lists in the places of dicts whose keys are 0, 1, 2, …"""
    if id(node) not in made:
        return node
    below = {key: _lists(value, made) for key, value in node.items()}
    numbers = all(type(key) is int for key in below)
    if numbers and sorted(below) == list(range(len(below))):
        return [below[at] for at in range(len(below))]
    return below


def _shared(name: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(name)} shares its place with another entry",
        "get the files of all ranks again, from one and the same run",
    )
