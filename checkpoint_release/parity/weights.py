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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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

# the share of equal elements from which two tensors are the same one, damaged
NEARLY = 0.5
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

    Args:
        held: the artifact's tensors by the artifact's own names.
        checkpoint: the folder that holds the checkpoint's weights.
    """
    # some artifacts keep half precision, some widen it
    held = {name: _widened(array) for name, array in held.items()}
    expected = {
        name: _widened(tensor.numpy())
        for name, tensor in open_safetensors(checkpoint / WEIGHTS_FILE).items()
    }
    homes = _find_homes(expected, held)
    used = set(chain.from_iterable(homes.values()))
    rest = {
        name: array
        for name, array in held.items()
        if name not in used and array.dtype.kind == "f"
    }
    present = {name: array for name, array in expected.items() if homes[name]}
    wrong = list(_changed_namesakes(present, rest))
    found = len(present)
    for name, array in expected.items():
        if name in present:
            continue
        if _is_joined(array, rest):
            found += 1
        elif damaged := _damaged_copy(name, array, rest):
            wrong.append(damaged)
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
    """
    expected = open_safetensors(checkpoint / WEIGHTS_FILE)
    wrong = []
    for name, tensor in expected.items():
        if name not in held:
            wrong.append(f"{name} is missing")
        elif mismatch := _mismatch(tensor, held[name], dtype):
            wrong.append(f"{name} {mismatch}")
    found = len(expected) - len(wrong)
    for name in held:
        if name not in expected:
            wrong.append(f"{name} is not in the checkpoint")
    return WeightsReport(len(expected), found, wrong)


def _mismatch(tensor: Tensor, held: Tensor, dtype: str) -> str | None:
    """What is wrong with a tensor that has the right name."""
    if tensor.shape != held.shape:
        return (
            f"has shape {list(held.shape)}, and the checkpoint's is"
            f" {list(tensor.shape)}"
        )
    expected, got = tensor.numpy(), held.numpy()
    if tensor.dtype == held.dtype and _same_bits(expected, got):
        return None
    may_be_rounded = dtype != KEEP and got.dtype == BY_TORCH_NAME[dtype].numpy
    if may_be_rounded and _same_bits(_rounded(expected, got.dtype), got):
        return None
    if expected.dtype != got.dtype:
        return f"is {got.dtype}, and the checkpoint's is {expected.dtype}"
    return _first_difference(expected, got)


# ------------------------------------------------------------------------------
# Finding weights by their content


def _find_homes(
    expected: Mapping[str, Array], held: Mapping[str, Array]
) -> dict[str, list[str]]:
    """The names under which an artifact holds each tensor, transposed or not."""
    by_content: dict[str, list[str]] = defaultdict(list)
    for name, array in held.items():
        by_content[_digest(array)].append(name)
    homes = {
        name: list(by_content.get(_digest(array), ()))
        for name, array in expected.items()
    }
    used = set(chain.from_iterable(homes.values()))
    forms = {_form(array) for array in held.values()}
    unused = {_form(array) for name, array in held.items() if name not in used}
    for name, array in expected.items():
        # Transposing takes longer than all else, so only where something can be found
        # by it.
        possible = unused if homes[name] else forms
        if array.ndim == 2 and _form(array.T) in possible:
            homes[name] += by_content.get(_digest(array.T), ())
    return homes


def _changed_namesakes(
    present: Mapping[str, Array], rest: Mapping[str, Array]
) -> Iterator[str]:
    """A sentence for each tensor that has a weight's name and isn't it.

    Where two weights are equal, the copy of one is found at the other's home: what has
    its name must be it too.
    """
    for home, array in rest.items():
        for name in _names_in(home, present):
            for form in _orientations(present[name]):
                if damage := _damage(form, array):
                    yield f"{name} (there: {home}) {damage}"


def _names_in(home: str, names: Iterable[str]) -> list[str]:
    """The names that an artifact's own name is, or ends in."""
    return [name for name in names if home == name or home.endswith(f".{name}")]


def _is_joined(array: Array, rest: Mapping[str, Array]) -> bool:
    """Whether the tensor is part of a joined one."""
    return any(np.array_equal(part, form) for _, form, part in _parts(array, rest))


def _damaged_copy(name: str, array: Array, rest: Mapping[str, Array]) -> str | None:
    """A sentence on the first copy that is nearly the tensor, whole or in part."""
    for home, form, part in _parts(array, rest):
        if damage := _damage(form, part):
            return f"{name} (there: {home}) {damage}"
    return None


def _parts(
    array: Array, rest: Mapping[str, Array]
) -> Iterator[tuple[str, Array, Array]]:
    """Where the tensor could be: a tensor's name, the form to look for, and a part of
    that tensor in this form.
    """
    if array.dtype.kind != "f":
        return
    for home, other in rest.items():
        for form in _orientations(array):
            for part in _split(other, form.shape):
                yield home, form, part


def _orientations(array: Array) -> Iterator[Array]:
    yield array
    if array.ndim == 2:
        yield array.T


def _split(joined: Array, shape: tuple[int, ...]) -> list[Array]:
    """The pieces of that shape along the one axis on which `joined` is longer, or all
    of it.
    """
    if joined.shape == shape:
        return [joined]
    if joined.ndim != len(shape):
        return []
    longer = [axis for axis in range(len(shape)) if joined.shape[axis] != shape[axis]]
    if len(longer) > 1:
        return []
    axis = longer[0]
    if shape[axis] == 0:
        return []
    count, remainder = divmod(joined.shape[axis], shape[axis])
    return np.split(joined, count, axis=axis) if count and not remainder else []


# ------------------------------------------------------------------------------
# Comparing two tensors


def _damage(array: Array, other: Array) -> str | None:
    """How `other` is `array` changed, or None when it is something else altogether."""
    if array.shape != other.shape:
        return None
    for half, dtype in HALVES.items():
        if np.array_equal(_rounded(array, dtype).astype(array.dtype), other):
            return f"was rounded to {half}"
    filled = int(np.count_nonzero((array != 0) | (other != 0)))
    if int(np.count_nonzero(array != other)) <= (1 - NEARLY) * filled:
        return _first_difference(array, other)
    return None


def _first_difference(expected: Array, got: Array) -> str:
    """How many elements differ, and the first that does."""
    differs = expected != got
    at = int(np.argmax(np.ravel(differs)))
    index = [int(i) for i in np.unravel_index(at, expected.shape)]
    was, now = np.ravel(expected)[at], np.ravel(got)[at]
    return (
        f"differs in {int(np.count_nonzero(differs))} of {expected.size} elements,"
        f" first at {index}: {now!s} for {was!s}"
    )


def _rounded(array: Array, dtype: np.dtype[Any] | None) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(dtype)


def _widened(array: Array) -> Array:
    """Half precision in float32, as models compute with it; exact."""
    return array.astype(np.float32) if array.dtype in HALVES.values() else array


def _digest(array: Array) -> str:
    dtype, shape = _form(array)
    digest = hashlib.sha256(f"{dtype}{shape}".encode())
    digest.update(_bytes(array).data)
    return digest.hexdigest()


def _form(array: Array) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """What equal tensors have in common; a scalar may be stored as a vector of one."""
    return array.dtype, array.shape or (1,)


def _same_bits(one: Array, other: Array) -> bool:
    return np.array_equal(_bytes(one), _bytes(other))


def _bytes(array: Array) -> Array:
    """The elements as bytes, row-major; not copied if that is how they lie."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
