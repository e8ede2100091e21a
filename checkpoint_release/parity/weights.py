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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from checkpoint_release.tensors.safetensors import open_safetensors

Array = npt.NDArray[Any]

# the share of equal elements from which two tensors are the same one, damaged
NEARLY = 0.5
HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class Weights:
    """What became of the checkpoint's weights in an artifact.

    Attributes:
        total: how many tensors the checkpoint has.
        found: how many of them the artifact holds bit for bit.
        wrong: one sentence for each that it holds changed.
    """

    total: int
    found: int
    wrong: list[str] = field(default_factory=list)


def compare_weights(held: Mapping[str, Array], checkpoint: Path) -> Weights:
    """Look for every tensor of the checkpoint among those that an artifact holds.

    Args:
        held: the artifact's tensors by the artifact's own names.
        checkpoint: the folder that `load` wrote.
    """
    # some artifacts keep half precision, some widen it
    held = {name: _widened(array) for name, array in held.items()}
    expected = {
        name: _widened(t.numpy())
        for name, t in open_safetensors(checkpoint / "weights.safetensors").items()
    }
    by_content: dict[str, list[str]] = {}
    for name, array in held.items():
        by_content.setdefault(_digest(array), []).append(name)
    homes = {
        name: by_content.get(_digest(array), []) for name, array in expected.items()
    }
    used = {home for found in homes.values() for home in found}
    kinds = {_kind(array) for array in held.values()}
    unused = {_kind(array) for home, array in held.items() if home not in used}
    for name, array in expected.items():
        # Transposing takes longer than all else, so only where something can be found
        # by it.
        if array.ndim == 2 and _kind(array.T) in (unused if homes[name] else kinds):
            homes[name] = [*homes[name], *by_content.get(_digest(array.T), [])]
    used = {home for found in homes.values() for home in found}
    missing = [name for name, found in homes.items() if not found]
    rest = {
        name: array
        for name, array in held.items()
        if name not in used and array.dtype.kind == "f"
    }
    # Where two weights are equal, the copy of one is found at the other's home: what
    # has its name must be it too.
    wrong = [
        f"{name} (there: {home}) {how}"
        for home, array in rest.items()
        for name in _named_like(home, expected)
        if name not in missing
        for how in (
            _damage(form, array)
            for form in _forms(expected[name])
            if form.shape == array.shape
        )
        if how
    ]
    joined = 0
    for name in missing:
        verdict = _search(name, expected[name], rest)
        if verdict is True:
            joined += 1
        elif verdict:
            wrong.append(verdict)
    return Weights(len(expected), len(expected) - len(missing) + joined, wrong)


def compare_by_name(held: Mapping[str, Any], checkpoint: Path, dtype: str) -> Weights:
    """Compare tensors that must have the checkpoint's own names.

    Args:
        held: Tensor records of the artifact, as checkpoint_release.tensors.safetensors
            gives them.
        checkpoint: the folder that `load` wrote.
        dtype: keep: dtype and bits must be the same. Otherwise the dtype that floats
            may be rounded to.
    """
    expected = open_safetensors(checkpoint / "weights.safetensors")
    wrong = [f"{name} is missing" for name in expected if name not in held]
    wrong += [
        f"{name} is not in the checkpoint" for name in held if name not in expected
    ]
    for name in expected:
        if name not in held:
            continue
        want, have = expected[name], held[name]
        if want.shape != have.shape:
            wrong.append(
                f"{name} has shape {list(have.shape)}, and the checkpoint's is"
                f" {list(want.shape)}"
            )
            continue
        old, new = want.numpy(), have.numpy()
        if want.dtype == have.dtype and np.array_equal(_bytes(old), _bytes(new)):
            continue
        if (
            dtype != "keep"
            and new.dtype == {"float32": np.dtype(np.float32), **HALVES}[dtype]
        ):
            with np.errstate(over="ignore"):
                if np.array_equal(_bytes(old.astype(new.dtype)), _bytes(new)):
                    continue
        wrong.append(_difference(name, old, new))
    changed = len({sentence.split(" ", 1)[0] for sentence in wrong})
    return Weights(len(expected), max(len(expected) - changed, 0), wrong)


def _search(name: str, array: Array, rest: Mapping[str, Array]) -> str | bool:
    """True where the tensor is part of a joined one; a sentence where a damaged copy is
    found; otherwise False.
    """
    if array.dtype.kind != "f":
        return False
    damaged: str | bool = False
    for home, other in rest.items():
        for form in _forms(array):
            for part in _parts(other, form.shape):
                if np.array_equal(part, form):
                    return True
                if not damaged and (how := _damage(form, part)):
                    damaged = f"{name} (there: {home}) {how}"
    return damaged


def _named_like(home: str, expected: Mapping[str, Array]) -> list[str]:
    return [name for name in expected if home == name or home.endswith(f".{name}")]


def _damage(array: Array, other: Array) -> str | None:
    """How `other` is `array` changed, or None when it is something else altogether."""
    for half, dtype in HALVES.items():
        with np.errstate(over="ignore"):
            if np.array_equal(array.astype(dtype).astype(array.dtype), other):
                return f"was rounded to {half}"
    filled = (array != 0) | (other != 0)
    differing = int(np.count_nonzero((array != other) & filled))
    if differing <= (1 - NEARLY) * int(np.count_nonzero(filled)):
        return _where(array, other, differing)
    return None


def _difference(name: str, old: Array, new: Array) -> str:
    if old.dtype != new.dtype:
        return f"{name} is {new.dtype}, and the checkpoint's is {old.dtype}"
    return f"{name} {_where(old, new, int(np.count_nonzero(old != new)))}"


def _where(old: Array, new: Array, differing: int) -> str:
    at = int(np.argmax(np.ravel(old != new)))
    was, now = np.ravel(old)[at], np.ravel(new)[at]
    index = [int(i) for i in np.unravel_index(at, old.shape)]
    return (
        f"differs in {differing} of {old.size} elements, first at {index}: {now!s} for"
        f" {was!s}"
    )


def _forms(array: Array) -> Iterator[Array]:
    yield array
    if array.ndim == 2:
        yield array.T


def _parts(joined: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """The pieces of that shape along the one axis on which `joined` is longer, or all
    of it.
    """
    if joined.ndim != len(shape):
        return
    longer = [axis for axis in range(joined.ndim) if joined.shape[axis] != shape[axis]]
    if not longer:
        yield joined
    elif (
        len(longer) == 1
        and shape[longer[0]]
        and joined.shape[longer[0]] % shape[longer[0]] == 0
    ):
        yield from np.split(
            joined, joined.shape[longer[0]] // shape[longer[0]], axis=longer[0]
        )


def _widened(array: Array) -> Array:
    """Half precision in float32, as models compute with it; exact."""
    return array.astype(np.float32) if array.dtype in HALVES.values() else array


def _digest(array: Array) -> str:
    dtype, shape = _kind(array)
    digest = hashlib.sha256(f"{dtype}{shape}".encode())
    digest.update(_bytes(array).data)
    return digest.hexdigest()


def _kind(array: Array) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """What tensors must share to be equal; a scalar may be stored as a vector of one."""
    return array.dtype, array.shape or (1,)


def _bytes(array: Array) -> Array:
    """The elements as bytes, row-major; not copied if that is how they lie."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
