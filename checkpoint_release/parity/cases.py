"""The inputs that parity is judged on, drawn from the signature.

An exporter sees one set of sizes and values, and mistakes hide in what it didn't see.
So every case has other values than the export's, and every dynamic dimension takes
sizes that the export did not: the smallest, the next, an odd one and one beyond the
export's example. Shapes with plain values are joined by the first and the last index of
every integer input, by zeros, and by tiny and large magnitudes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.signature import (
    Arrays,
    Dimension,
    Signature,
    sample_inputs,
)

# keeps the cases' seeds apart from each other and from the small ones exporters use
SEED_STRIDE = 1_000_003
# above the minimum: small enough to be cheap, large enough that its noise can be
# estimated
EXTREME_SIZE = 4


@dataclass(frozen=True)
class Case:
    """One call of the model.

    Attributes:
        name: what it tries, such as "zeros, sequence=5, batch=5"; unique.
        kind: cases of one kind have values of one magnitude, so that they share a
            scale.
        magnitude: of the float inputs; 1 is plain.
        inputs: by name, as the signature has them.
    """

    name: str
    kind: str
    magnitude: float
    inputs: Arrays


def draw_cases(
    signature: Signature,
    *,
    seed: int,
    sizes: Mapping[str, Sequence[int]],
    magnitudes: Sequence[float],
    repeats: int = 1,
) -> list[Case]:
    """All cases; the same arguments give the same values on every machine.

    Args:
        signature: what the model takes.
        seed: of the random values.
        sizes: further sizes to try, by dimension; names that the model doesn't have are
            passed over.
        magnitudes: of float inputs, beside the plain ones, which are normal with
            standard deviation 1.
        repeats: how often every case is drawn.

    Raises:
        ParamsError: a size lies outside its dimension's bounds.
    """
    has_integers = any(spec.is_integer for spec in signature.inputs)
    has_floats = any(np.dtype(spec.dtype).kind == "f" for spec in signature.inputs)
    extreme = {
        name: _within(dimension, dimension.minimum + EXTREME_SIZE)
        for name, dimension in _dimensions(signature)
    }
    plans = [("plain", "plain", 1.0, shape) for shape in _shapes(signature, sizes)]
    plans += [
        (kind, "plain", 1.0, extreme)
        for kind in ("first index", "last index")
        if has_integers
    ]
    for magnitude in magnitudes if has_floats else ():
        name = f"magnitude {magnitude:g}" if magnitude else "zeros"
        plans.append((name, name, magnitude, extreme))

    cases = []
    for draw in range(repeats):
        for number, (name, kind, scale, shape) in enumerate(plans):
            case_seed = (seed + 1) * SEED_STRIDE + draw * len(plans) + number
            inputs = sample_inputs(signature, shape, case_seed, scale)
            if name in ("first index", "last index"):
                inputs |= _extreme_indices(signature, inputs, last=name == "last index")
            words = [
                name,
                *(f"{dimension}={size}" for dimension, size in shape.items()),
            ]
            cases.append(
                Case(
                    ", ".join(words + [f"draw {draw + 1}"] * (draw > 0)),
                    kind,
                    scale,
                    inputs,
                )
            )
    return cases


def unknown_dimensions(
    signature: Signature, sizes: Mapping[str, Sequence[int]]
) -> list[str]:
    """The names in `sizes` that no input of this model has."""
    return [name for name in sizes if name not in signature.dimensions]


def _shapes(
    signature: Signature, further: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    """Sizes of all dimensions, none the export's where there is a choice; the largest
    go with the smallest.
    """
    candidates = {
        name: _candidates(dimension, further.get(name, ()))
        for name, dimension in _dimensions(signature)
    }
    if not candidates:
        return [{}]
    # One dimension ascends and the others descend: every size is tried, and no case is
    # large in all of them.
    longest = max(candidates, key=lambda name: max(candidates[name]))
    count = max(len(sizes) for sizes in candidates.values())
    columns = {}
    for name, sizes in candidates.items():
        ordered = cycle(reversed(sizes) if name == longest else sizes)
        columns[name] = [next(ordered) for _ in range(count)]
    return [
        {name: column[row] for name, column in columns.items()}
        for row in reversed(range(count))
    ]


def _candidates(dimension: Dimension, further: Sequence[int]) -> list[int]:
    for size in further:
        if size != _within(dimension, size):
            raise ParamsError(
                f"parity.sizes.{dimension.name} holds {size}, and the model takes"
                f" {dimension.minimum} to {dimension.maximum or 'any number'}",
                "leave it out, or correct the bounds in model.signature.dimensions",
            )
    odd = max(dimension.example // 2, dimension.minimum + 2) | 1
    longer = dimension.example + max(dimension.example // 4, 2)
    found = {
        _within(dimension, size)
        for size in (dimension.minimum, dimension.minimum + 1, odd, longer)
    }
    return sorted((found - {dimension.example}) | set(further)) or [dimension.example]


def _within(dimension: Dimension, size: int) -> int:
    return max(dimension.minimum, min(size, dimension.maximum or size))


def _dimensions(signature: Signature) -> list[tuple[str, Dimension]]:
    return list(signature.dimensions.items())


def _extreme_indices(signature: Signature, inputs: Arrays, *, last: bool) -> Arrays:
    return {
        spec.name: np.full_like(
            inputs[spec.name], (spec.high or 1) - 1 if last else spec.low or 0
        )
        for spec in signature.inputs
        if spec.is_integer
    }
