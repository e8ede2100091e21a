"""What a checkpoint's nest of values holds in place of what only code could make."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(eq=False, slots=True)
class Inert:
    """Something that the pickle asks code to make; nothing was imported or called.

    Attributes:
        name: the dotted name of what would be called.
        args: what it would be called with; None when the pickle means the function or
            class itself.
        state: what would be set on the result: often the dict of an instance's
            attributes.
        items: what would be appended to the result, for subclasses of list and the
            like.
        entries: what would be set in the result by key, for subclasses of dict.
        reason: why it can't be a tensor, for tensors of a kind that can't be exported.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)
    reason: str = ""

    def __repr__(self) -> str:
        """Its name only: what it holds may hold the record again, or be huge."""
        return f"<{self.name}, not run>"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a `.pth` holds.

    Attributes:
        path: the file.
        value: a nest of dict, list and tuple over None, bool, int, float, complex, str,
            bytes, `Tensor` and `Inert`; a set comes as a list, a frozenset as a tuple,
            in the file's order. It contains itself nowhere, is at most 200 deep and
            walks as at most ten million values, Inert records counted as leaves.
        container: "zip" or "legacy" (before torch 1.6).
        left_out: {"harmless": {dotted name: count}, "dangerous": {…}}: the globals that
            stayed records, sorted by name, counted by the times that they would have
            been called (or by mentions, when never called).
        notes: what a reader of the result should know, one sentence each.
    """

    path: Path
    value: Any
    container: str
    left_out: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
