"""What dvc.lock says of each stage, now and at an earlier commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from checkpoint_release.core.yaml_text import YamlError, parse_yaml

LOCK = "dvc.lock"


class _Entry(msgspec.Struct):
    """A dependency or an output."""

    path: str
    md5: str = ""


class _Stage(msgspec.Struct):
    """A stage as dvc.lock has it; what else it has is passed over."""

    cmd: Any = None
    deps: list[_Entry] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[_Entry] = []


class _Lock(msgspec.Struct):
    stages: dict[str, _Stage] = {}


@dataclass(frozen=True)
class LockedStage:
    """What a stage last ran from, and what it made.

    Attributes:
        inputs: path of a dependency → its digest.
        params: dotted name of a parameter → value.
        outputs: path → digest.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def changes_since(self, before: LockedStage) -> list[str]:
        """The parameters and inputs that differ: "onnx.opset: 17 → 18", then paths."""
        listed = []
        for name, old, new in changed(before.params, self.params):
            listed.append(f"{name}: {shown_value(old)} → {shown_value(new)}")
        listed += [name for name, _, _ in changed(before.inputs, self.inputs)]
        return listed


def read_lock(content: bytes) -> dict[str, LockedStage]:
    """The stages of a dvc.lock, by name; none where it isn't one.

    Args:
        content: of the file.
    """
    try:
        lock = msgspec.convert(parse_yaml(content), _Lock)
    except (YamlError, msgspec.ValidationError):
        return {}
    return {name: _locked(stage) for name, stage in lock.stages.items()}


def _locked(stage: _Stage) -> LockedStage:
    params: dict[str, Any] = {}
    for values in stage.params.values():
        params |= flattened(values)
    return LockedStage(
        inputs={entry.path: entry.md5 for entry in stage.deps},
        params=params,
        outputs={entry.path: entry.md5 for entry in stage.outs},
    )


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names; an empty mapping is a value."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def changed(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """Name, old and new value of what differs; None stands for what isn't there."""
    names = dict.fromkeys([*before, *now])
    pairs = [(name, before.get(name), now.get(name)) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]


def shown_value(value: Any) -> str:
    """A parameter's value as params.yaml would have it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
