"""Whether an artifact holds the checkpoint's weights bit for bit, whatever it calls
them.

One weight in twenty million that is off by a thousandth changes the outputs by less
than float32's own rounding: no comparison of outputs can see it, and a comparison of
bits can't miss it. An exporter renames weights, transposes them, joins them and leaves
out those that aren't used, so they are found by their content. What an exporter
computes anew from weights (a folded batch norm) has no counterpart and is left to the
comparison of outputs; what is nearly a weight, and isn't one, is a mistake.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.dtypes import BY_TORCH_NAME
from checkpoint_release.core.signature import Array
from checkpoint_release.parity.candidates import KEEP
from checkpoint_release.tensors.safetensors import open_safetensors
from checkpoint_release.tensors.tensor import Tensor
from checkpoint_release.tensors.views import Views

# the share of equal elements from which two tensors are the same one, damaged
NEARLY = 0.5
_ROUNDED_KINDS = ("f", "c")  # of numpy: floats and complex numbers
HALVES = {name: BY_TORCH_NAME[name].numpy for name in ("float16", "bfloat16")}


@dataclass(frozen=True)
class WeightsReport:
    """What became of the checkpoint's weights in an artifact.

    Attributes:
        total: how many tensors the checkpoint has.
        found: how many of them the artifact holds bit for bit.
        wrong: one sentence for each that it holds changed.
    """

    total: int
    found: int
    wrong: list[str] = field(default_factory=list)


def compare_weights(held: Mapping[str, Array], checkpoint: Path) -> WeightsReport:
    """Look for every tensor of the checkpoint among those that an artifact holds.

    A tensor that is found nowhere, not even damaged or as a part of another, counts as
    not found and isn't wrong: an exporter may have folded it into others.

    Args:
        held: the artifact's tensors by the artifact's own names.
        checkpoint: the folder that holds the checkpoint's weights.

    Raises:
        ArtifactError: the checkpoint's weights can't be read.
    """
    # some artifacts keep half precision, some widen it
    expected = _Widened(Views(open_safetensors(checkpoint / WEIGHTS_FILE)))
    held = _Widened(held)
    homes = _find_homes(expected, held)
    used = set(chain.from_iterable(homes.values()))
    rest = {}
    for name in held:
        if name not in used and held[name].dtype.kind in _ROUNDED_KINDS:
            rest[name] = held[name]
    wrong = _changed_namesakes(expected, homes, rest)
    found = len(expected)
    for name, found_at in homes.items():
        if found_at or _is_joined(expected[name], rest):
            continue
        found -= 1
        wrong += _damaged_copy(name, expected[name], rest)
    return WeightsReport(len(expected), found, wrong)


def compare_by_name(
    held: Mapping[str, Tensor], checkpoint: Path, dtype: str
) -> WeightsReport:
    """Compare tensors that must have the checkpoint's own names.

    Args:
        held: the artifact's tensors.
        checkpoint: the folder that holds the checkpoint's weights.
        dtype: KEEP: dtype and bits must be the same. Otherwise the dtype that floats
            may be rounded to.

    Raises:
        ArtifactError: the checkpoint's weights can't be read.
    """
    expected = open_safetensors(checkpoint / WEIGHTS_FILE)
    wrong = []
    for name, tensor in expected.items():
        if name not in held:
            wrong.append(f"{name} is missing")
        elif mismatch := _mismatch(tensor, held[name], dtype):
            wrong.append(f"{name} {mismatch}")
        tensor.forget()
        if name in held:
            held[name].forget()
    found = len(expected) - len(wrong)
    for name in held:
        if name not in expected:
            wrong.append(f"{name} is not in the checkpoint")
    return WeightsReport(len(expected), found, wrong)


def _mismatch(tensor: Tensor, held: Tensor, dtype: str) -> str | None:
    """What is wrong with a tensor that has the right name; None: nothing.

    A tensor that was rounded is held to the rounded bits, any other to the
    checkpoint's own.

    Args:
        tensor: the checkpoint's.
        held: the artifact's.
        dtype: as for compare_by_name.
    """
    if tensor.shape != held.shape:
        return (
            f"has shape {list(held.shape)}, and the checkpoint's is"
            f" {list(tensor.shape)}"
        )
    expected, got = tensor.numpy(), held.numpy()
    allowed = expected
    if dtype != KEEP and got.dtype == BY_TORCH_NAME[dtype].numpy:
        allowed = _rounded(expected, got.dtype)
    if allowed.dtype != got.dtype:
        return f"is {got.dtype}, and the checkpoint's is {expected.dtype}"
    if not np.array_equal(_bytes(allowed), _bytes(got)):
        return _first_difference(expected, got)
    return None


# ------------------------------------------------------------------------------
# Finding weights by their content


def _find_homes(
    expected: Mapping[str, Array], held: Mapping[str, Array]
) -> dict[str, list[str]]:
    """The names under which an artifact holds each tensor, transposed or not.

    Transposing takes longer than all else, so it is done only where the artifact holds
    a tensor of that form; for a tensor that was found already, one of that form that is
    nobody's home yet.

    Args:
        expected: the checkpoint's tensors.
        held: the artifact's.

    Returns:
        A list for each of the checkpoint's tensors; empty where the artifact doesn't
        hold it as it is.
    """
    by_content: dict[str, list[str]] = defaultdict(list)
    for name, array in held.items():
        by_content[_digest(array)].append(name)
    homes, used = {}, set()
    for name, array in expected.items():
        homes[name] = list(by_content.get(_digest(array), ()))
        used.update(homes[name])
    forms, unused_forms = set(), set()
    for name, array in held.items():
        forms.add(_form(array))
        if name not in used:
            unused_forms.add(_form(array))
    for name, array in expected.items():
        possible = unused_forms if homes[name] else forms
        if array.ndim == 2 and _form(array.T) in possible:
            homes[name] += by_content.get(_digest(array.T), ())
    return homes


def _changed_namesakes(
    expected: Mapping[str, Array],
    homes: Mapping[str, list[str]],
    rest: Mapping[str, Array],
) -> list[str]:
    """A sentence for each tensor that has a weight's name and isn't it.

    Where two weights are equal, the copy of one is found at the other's home: what has
    its name must be it too. Exporters may put the name of a wrapper around the model
    in front of a weight's.

    Args:
        expected: the checkpoint's tensors.
        homes: where each of them was found.
        rest: the artifact's tensors that are nobody's home.
    """
    wrong = []
    for home, array in rest.items():
        for name, found_at in homes.items():
            if found_at and f".{home}".endswith(f".{name}"):
                wrong += _damages(name, expected[name], home, array)
    return wrong


def _is_joined(array: Array, rest: Mapping[str, Array]) -> bool:
    """Whether the tensor is part of a joined one, bit for bit but for signs of zeros.

    Args:
        array: the checkpoint's tensor.
        rest: the artifact's tensors in which it may be.
    """
    for _, form, piece in _pieces_like(array, rest):
        if np.array_equal(piece, form):
            return True
    return False


def _damaged_copy(name: str, array: Array, rest: Mapping[str, Array]) -> list[str]:
    """A sentence on the first copy that is nearly the tensor.

    Args:
        name: the checkpoint's.
        array: the checkpoint's tensor.
        rest: the artifact's tensors in which it may be, whole or joined with others.

    Returns:
        One sentence; none where there is no such copy.
    """
    for home, form, piece in _pieces_like(array, rest):
        wrong = _damages(name, form, home, piece)
        if wrong:
            return wrong[:1]
    return []


def _damages(name: str, array: Array, home: str, copy: Array) -> list[str]:
    """A sentence for each orientation of the tensor that a copy nearly is.

    Args:
        name: of the tensor.
        array: the tensor.
        home: what the artifact calls the copy, or the joined tensor that holds it.
        copy: what may be the tensor, or its transposed.
    """
    wrong = []
    for form in _orientations(array):
        damage = _damage(form, copy)
        if damage:
            wrong.append(f"{name} (there: {home}) {damage}")
    return wrong


def _pieces_like(
    array: Array, rest: Mapping[str, Array]
) -> Iterator[tuple[str, Array, Array]]:
    """Everything in an artifact that has the shape of a tensor.

    Args:
        array: the checkpoint's tensor.
        rest: the artifact's tensors in which it may be.

    Returns:
        The name of the artifact's tensor, the checkpoint's tensor as it would lie
        there, and what lies there: all of the artifact's tensor, or a piece of it.
    """
    for home, joined in rest.items():
        for form in _orientations(array):
            for piece in _split(joined, form.shape):
                yield home, form, piece


def _orientations(array: Array) -> list[Array]:
    """The ways in which a weight may lie in a file, as views.

    A matrix may be transposed: exporters turn x·Wᵀ into a product with Wᵀ itself. Of
    integers, there is none that is looked for.
    """
    if array.dtype.kind not in _ROUNDED_KINDS:
        return []
    return [array, array.T] if array.ndim == 2 else [array]


def _split(joined: Array, shape: tuple[int, ...]) -> list[Array]:
    """The pieces that a joined tensor consists of; none where it doesn't.

    Exporters join weights that are applied to the same input, such as those of queries,
    keys and values, so that one product takes the place of several.

    Args:
        joined: pieces side by side along one axis, or a single one.
        shape: of each piece.

    Returns:
        Views of the pieces, in order.
    """
    if joined.shape == shape:
        return [joined]
    count = joined.size // max(math.prod(shape), 1)
    if count == 0:
        return []
    for axis, size in enumerate(shape):
        whole = (*shape[:axis], size * count, *shape[axis + 1 :])
        if joined.shape == whole:
            return np.split(joined, count, axis=axis)
    return []


# ------------------------------------------------------------------------------
# Comparing two tensors


def _damage(array: Array, other: Array) -> str | None:
    """How a tensor was changed; None: it is something else altogether.

    Places where both are zero say nothing about kinship, since sparse weights and fresh
    biases are full of them; NEARLY is a share of the others.

    Args:
        array: the checkpoint's tensor.
        other: what may be a copy of it.
    """
    if array.shape != other.shape:
        return None
    if array.dtype.kind == "c" and np.array_equal(array.real, other):
        return "lost its imaginary part"
    halves = {} if array.dtype.kind == "c" else HALVES
    for half, dtype in halves.items():
        widened_again = _rounded(array, dtype).astype(array.dtype)
        if np.array_equal(widened_again, other):
            return f"was rounded to {half}"
    filled = int(np.count_nonzero((array != 0) | (other != 0)))
    differing = int(np.count_nonzero(array != other))
    if differing <= (1 - NEARLY) * filled:
        return _first_difference(array, other)
    return None


def _first_difference(expected: Array, got: Array) -> str:
    """How many elements differ, and the first that does.

    Args:
        expected: the checkpoint's tensor.
        got: the artifact's, of the same shape.

    Returns:
        The end of a sentence that begins with the tensor's name.
    """
    differs = expected != got
    count = int(np.count_nonzero(differs))
    at = int(np.argmax(np.ravel(differs)))  # of booleans, the first that is true
    index = [int(i) for i in np.unravel_index(at, expected.shape)]
    was, now = np.ravel(expected)[at], np.ravel(got)[at]
    return (
        f"differs in {count} of {expected.size} elements, first at {index}:"
        f" {now!s} for {was!s}"
    )


def _rounded(array: Array, dtype: np.dtype[Any] | None) -> Array:
    """The array in a narrower dtype: to nearest, ties to even (IEEE 754).

    Args:
        array: floats; what is beyond the dtype's range becomes infinite.
        dtype: to round to.
    """
    with np.errstate(over="ignore"):
        return array.astype(dtype)


class _Widened(Mapping[str, Array]):
    """Arrays with half precision in float32, which holds all of its values; others are
    themselves. They are widened one at a time, when they are asked for.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        return array.astype(np.float32) if array.dtype in HALVES.values() else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _digest(array: Array) -> str:
    """A fingerprint that tensors share if they have the same form and the same bits.

    Zeros of different signs and NaNs of different bits are different contents.
    """
    dtype, shape = _form(array)
    digest = hashlib.sha256(f"{dtype}{shape}".encode())
    digest.update(_bytes(array).data)
    return digest.hexdigest()


def _form(array: Array) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """What equal tensors have in common; a scalar may be stored as a vector of one."""
    return array.dtype, array.shape or (1,)


def _bytes(array: Array) -> Array:
    """The elements as bytes, row-major; not copied if that is how they lie."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
