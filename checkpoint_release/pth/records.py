"""What a checkpoint's nest of values holds in place of what only code could make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from checkpoint_release.core.files import joint_sha256, sha256


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
        path: the file, index or folder that was named.
        value: a nest of dict, list and tuple over None, bool, int, float, complex, str,
            bytes, `Tensor` and `Inert`; a set comes as a list, a frozenset as a tuple,
            in the file's order. It contains itself nowhere, is at most 200 deep and
            walks as at most ten million values, Inert records counted as leaves.
        container: "zip", "legacy" (before torch 1.6), "safetensors", or one of these
            with the number of shards.
        left_out: verdict (unsafe_globals.Verdict) → {dotted name: count}: the globals
            that stayed records, sorted by name, counted by the times that they would
            have been called (or by mentions, when never called).
        notes: what a reader of the result should know, one sentence each.
        files: that the weights are in; none stands for the path alone.
        facts: what lies beside the weights in files of their own, by name.
    """

    path: Path
    value: Any
    container: str
    left_out: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def entries(self) -> dict[Any, Any]:
        """What lies at the top, by key: in the file itself, and beside it."""
        entries: dict[Any, Any] = dict(self.facts)
        if isinstance(self.value, dict):
            entries |= self.value
        return entries

    @property
    def size(self) -> int:
        """Of the files, in bytes."""
        return sum(file.stat().st_size for file in self.files or (self.path,))

    def sha256(self) -> str:
        """Of the file, in lower-case hex; of several files together."""
        if not self.files:
            return sha256(self.path)
        if len(self.files) == 1:
            return sha256(self.files[0])
        return joint_sha256({file.name: sha256(file) for file in self.files})
