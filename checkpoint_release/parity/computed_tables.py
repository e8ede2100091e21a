"""Tables that forward computes of nothing but constants: positions, windows, masks.

torch's exporters compute such a table once, in float32, and a graph holds what came
out. In double precision the model computes other numbers, so that the graph would seem
to be another one. A tensor of a graph is taken for such a table where one of two
things holds, in two cases of other inputs:

- an operation of the model in float32 gives these numbers, bit for bit; then what the
  same operation gives in double precision stands for them;
- a tensor that the model reads in double precision rounds to exactly these numbers;
  then that stands for them.

What was found counts for nothing by itself: the graph is evaluated with it, in all
cases. It needs torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoint_release.core.signature import Array, Arrays
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.eager_values import Recorder
from checkpoint_release.runtimes.eager import ExportModule, build_eager
from checkpoint_release.runtimes.precision import double_precision, widen

FEWEST = 2
"""How many numbers a table has at least; a single one is a constant."""
Tables = Mapping[bytes, Array]
"""The numbers in float32, as bytes → in double precision, flat."""
_CASTS = ("_to_copy", "lift_fresh", "detach", "clone", "alias")
_Place = tuple[str, str, int]
"""The module that is running, the operation, and how many of that were before it."""


def computed_tables(
    checkpoint: Path, cases: Sequence[Mapping[str, Array]], sizes: Collection[int]
) -> Tables:
    """The tables that the model computes, whatever the inputs are.

    Args:
        checkpoint: the folder of the checkpoint.
        cases: inputs by name, of two cases or more.
        sizes: how many numbers a table may have.
    """
    wanted = frozenset(size for size in sizes if size >= FEWEST)
    found: dict[bytes, Array] = {}
    for number, inputs in enumerate(cases):
        tables = _tables(checkpoint, inputs, wanted)
        if number == 0:
            found = tables
            continue
        found = {
            key: wide
            for key, wide in found.items()
            if key in tables and np.array_equal(wide, tables[key])
        }
    return found


def _tables(
    checkpoint: Path, inputs: Mapping[str, Array], sizes: frozenset[int]
) -> dict[bytes, Array]:
    """What may be a table in one case."""
    wide = _record(checkpoint, inputs, sizes, in_double=True)
    narrow = _record(checkpoint, inputs, sizes, in_double=False)
    tables = {}
    for place, array in narrow.computed.items():
        other = wide.computed.get(place)
        if array.dtype == np.float32 and other is not None and other.size == array.size:
            tables[array.tobytes()] = other.reshape(-1)
    for array in wide.read:
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float32)
        tables.setdefault(rounded.tobytes(), array.reshape(-1))
    return tables


class _TableRecorder(Recorder):  # type: ignore[no-untyped-call]
    """Notes the floats that operations read and give, of some sizes.

    Attributes:
        computed: where a result comes from → a copy of it; what only casts is left out.
        read: what operations were given.
    """

    def __init__(self, sizes: frozenset[int]) -> None:
        super().__init__()
        self.computed: dict[_Place, Array] = {}
        self.read: list[Array] = []
        self._sizes = sizes
        self._counts: Counter[tuple[str, str]] = Counter()

    def note(self, function: Any, args: Any, results: Sequence[Any]) -> None:
        """Keep what an operation reads and gives, as far as it may be a table."""
        for value in args:
            if self._is_wanted(value) and value.dtype == torch.float64:
                self.read.append(_copied(value))
        name = function._schema.name.removeprefix("aten::")
        if name in _CASTS:
            return
        for value in results:
            key = (self.running, name)
            self._counts[key] += 1
            if self._is_wanted(value):
                self.computed[(*key, self._counts[key])] = _copied(value)

    def _is_wanted(self, value: Any) -> bool:
        is_float = isinstance(value, Tensor) and value.is_floating_point()
        return is_float and value.numel() in self._sizes


def _copied(tensor: Tensor) -> Array:
    array: Array = tensor.detach().contiguous().clone().numpy()
    return array


def _record(
    checkpoint: Path,
    inputs: Mapping[str, Array],
    sizes: frozenset[int],
    *,
    in_double: bool,
) -> _TableRecorder:
    """Run the checkpoint's model, and keep what may be a table.

    Args:
        checkpoint: its folder.
        inputs: by name.
        sizes: of what is kept.
        in_double: whether the model runs in double precision.
    """
    model, signature = build_eager(checkpoint, OWN_ARTIFACTS, mapped=True)
    recorder = _TableRecorder(sizes)
    recorder.follow(model)
    module = ExportModule(model, signature)
    tensors = [torch.tensor(inputs[name]) for name in signature.input_names]
    with torch.no_grad():
        if not in_double:
            with recorder:
                module(*tensors)
            return recorder
        widen(model)
        wide = [each.double() if each.is_floating_point() else each for each in tensors]
        with double_precision(), recorder:
            module(*wide)
    return recorder


def sizes_of_tables(constants: Arrays) -> set[int]:
    """How many numbers the constants of a graph have that may be tables.

    Args:
        constants: those of a graph that are no weights.
    """
    return {array.size for array in constants.values() if array.size >= FEWEST}


def in_their_place(array: Array, tables: Tables) -> Array | None:
    """A constant of a graph in double precision; None: it is no table.

    It may lie in the graph transposed, or in another shape.

    Args:
        array: the constant, widened.
        tables: of the model.
    """
    found = tables.get(_key(array))
    if found is not None:
        return found.reshape(array.shape)
    found = tables.get(_key(array.T)) if array.ndim > 1 else None
    return None if found is None else found.reshape(array.T.shape).T.copy()


def _key(array: Array) -> bytes:
    return np.ascontiguousarray(array, np.float32).tobytes()
