"""The weights of a release, tensor by tensor, and how far those of another are from
them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from statistics import median
from typing import Any

import msgspec
import numpy as np

from checkpoint_release.core.artifacts.release import TensorEntry
from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.signature import Array
from checkpoint_release.tensors.tensor import Tensor

_BLOCK = 1 << 20  # elements that are widened at a time


def weight_file(path: str) -> bool:
    """Whether a path in a release is one of its safetensors files, or their index."""
    name = PurePosixPath(path).name
    is_weights = name.endswith((".safetensors", ".safetensors.index.json"))
    return name == path and name.startswith("model") and is_weights


def tensor_entry(tensor: Tensor) -> TensorEntry:
    """A tensor as release.json lists it.

    Raises:
        CheckpointError: its storage is damaged.
    """
    digest = hashlib.sha256()
    for chunk in tensor.chunks():
        digest.update(chunk)
    return TensorEntry(
        dtype=tensor.dtype, shape=list(tensor.shape), sha256=digest.hexdigest()
    )


class Distance(Record, frozen=True, kw_only=True, omit_defaults=False):
    """How far the tensors that changed, and kept their shape, moved.

    Attributes:
        measured: how many tensors.
        median, largest: of ‖new − old‖ / ‖old‖, the Euclidean norm over a tensor.
        largest_in: the tensor with the largest.
        max_abs: the largest |new − old| of an element.
    """

    measured: int
    median: float
    largest: float
    largest_in: str
    max_abs: float


class WeightsChange(Record, frozen=True, kw_only=True, omit_defaults=False):
    """The weights of two releases.

    Attributes:
        known: whether both list their tensors; otherwise nothing else is.
        tensors: how many the newer has.
        changed: names of those in both whose elements differ.
        reshaped: names of those in both whose dtype or shape differs.
        added, removed: names of those that one alone has.
        distance: None where nothing was measured.
        not_measured: why there is no distance; empty where there is nothing to
            measure.
    """

    known: bool
    tensors: int = 0
    changed: list[str] = msgspec.field(default_factory=list)
    reshaped: list[str] = msgspec.field(default_factory=list)
    added: list[str] = msgspec.field(default_factory=list)
    removed: list[str] = msgspec.field(default_factory=list)
    distance: Distance | None = None
    not_measured: str = ""

    @property
    def differing(self) -> int:
        """How many tensors aren't the same in both."""
        parts = (self.changed, self.reshaped, self.added, self.removed)
        return sum(len(part) for part in parts)


def compare_tensors(
    old: Mapping[str, TensorEntry], new: Mapping[str, TensorEntry]
) -> WeightsChange:
    """Which tensors differ, going by their digests alone.

    Args:
        old, new: name → tensor, as release.json lists them.
    """
    if not (old and new):
        return WeightsChange(known=False)
    changed, reshaped = [], []
    for name in sorted(old.keys() & new.keys()):
        before, after = old[name], new[name]
        if (before.dtype, before.shape) != (after.dtype, after.shape):
            reshaped.append(name)
        elif before.sha256 != after.sha256:
            changed.append(name)
    return WeightsChange(
        known=True,
        tensors=len(new),
        changed=changed,
        reshaped=reshaped,
        added=sorted(new.keys() - old.keys()),
        removed=sorted(old.keys() - new.keys()),
    )


def measure_distance(
    old: Mapping[str, Tensor], new: Mapping[str, Tensor]
) -> Distance | None:
    """How far the tensors that both have in one shape are apart; None: there is none.

    Args:
        old, new: name → tensor. One that numpy has no dtype for is passed over.

    Raises:
        CheckpointReleaseError: a file is damaged.
    """
    relative: dict[str, float] = {}
    max_abs = 0.0
    for name in sorted(old.keys() & new.keys()):
        if old[name].shape != new[name].shape:
            continue
        try:
            before, after = old[name].numpy(), new[name].numpy()
        except TypeError:
            continue
        relative[name], furthest = _apart(before, after)
        max_abs = max(max_abs, furthest)
    moved = {name: value for name, value in relative.items() if value > 0}
    if not moved:
        return None
    largest_in = max(moved, key=lambda name: moved[name])
    return Distance(
        measured=len(moved),
        median=median(moved.values()),
        largest=moved[largest_in],
        largest_in=largest_in,
        max_abs=max_abs,
    )


def _apart(before: Array, after: Array) -> tuple[float, float]:
    """‖after − before‖ / ‖before‖, and the largest |after − before|, in float64.

    Elements that aren't finite in both are left out: they would hide all others. A
    tensor of zeros has no relative distance; there the norm itself is given.
    """
    squared = norm = furthest = 0.0
    for old, new in _blocks(before, after):
        step = np.abs(new - old)
        squared += float(np.square(step).sum())
        norm += float(np.square(np.abs(old)).sum())
        furthest = max(furthest, float(step.max(initial=0.0)))
    distance = math.sqrt(squared)
    return (distance / math.sqrt(norm) if norm else distance), furthest


def _blocks(before: Array, after: Array) -> Iterator[tuple[Array, Array]]:
    """Both arrays piece by piece, in double precision, without what isn't finite."""
    wide: type[np.floating[Any] | np.complexfloating[Any, Any]] = np.float64
    if np.iscomplexobj(before) or np.iscomplexobj(after):
        wide = np.complex128
    first, second = before.reshape(-1), after.reshape(-1)
    for start in range(0, first.size, _BLOCK):
        old = first[start : start + _BLOCK].astype(wide)
        new = second[start : start + _BLOCK].astype(wide)
        finite = np.isfinite(old) & np.isfinite(new)
        yield old[finite], new[finite]
