"""The inputs that parity is judged on, drawn from the signature.

An exporter sees one set of sizes and values, and mistakes hide in what it didn't see.
So every case has other values than the export's, and every dynamic dimension takes
sizes that the export did not: the smallest, the next, an odd one and one beyond the
export's example. Cases of nominal values in these shapes are joined by the first and
the last index of every integer input, by both ends of every range of floats, by zeros,
and by tiny and large magnitudes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from typing import Literal

import numpy as np

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.fixed_sizes import at_sizes
from checkpoint_release.core.signature import (
    Arrays,
    Dimension,
    Signature,
    TensorSpec,
    resolve_shape,
    sample_inputs,
)

NOMINAL = "nominal"
"""The kind of cases whose float inputs have a standard deviation of 1."""
# keeps the cases' seeds apart from each other and from the small ones exporters use
SEED_STRIDE = 1_000_003
# above the minimum: small enough to be cheap, large enough that its noise can be
# estimated
EXTREME_SIZE = 4
MAX_CASE = 4 << 30
"""Bytes that the inputs of one case may take."""


@dataclass(frozen=True)
class Case:
    """One call of the model.

    Attributes:
        name: what it tries, such as "zeros, sequence=5, batch=5"; unique.
        kind: cases of one kind have values of one magnitude, so that they share a
            scale.
        magnitude: of the float inputs; 1 is nominal.
        inputs: by name, as the signature has them.
        drawn: whether values with a range were drawn, and aren't all at one end of it.
        sizes: dimension → size.
        is_sample: whether it is to be the release's sample.
    """

    name: str
    kind: str
    magnitude: float
    inputs: Arrays
    drawn: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)
    is_sample: bool = False

    @property
    def elements(self) -> int:
        """How many numbers go in: a measure of how large the case is."""
        return sum(array.size for array in self.inputs.values())


@dataclass(frozen=True)
class _Plan:
    """What a case tries, before its values are drawn.

    Attributes:
        name: what it tries, without its sizes.
        kind, magnitude: as the case's.
        sizes: dimension → size.
        index: "first" or "last": inputs with a range hold only the lowest or the
            highest of their values; None: values are drawn.
    """

    name: str
    kind: str
    sizes: dict[str, int]
    magnitude: float = 1.0
    index: Literal["first", "last"] | None = None


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
        sizes: further sizes to try, by dimension, as possible_sizes returns them; names
            that the model doesn't have are passed over.
        magnitudes: of float inputs, beside the nominal ones, which are normal with
            standard deviation 1.
        repeats: how often every case is drawn, each time with other values.

    Returns:
        At least one case, those of the first draw first.

    Raises:
        ParamsError: a size lies outside its dimension's bounds, or a case would hold
            more than MAX_CASE.
    """
    plans = _plans(signature, sizes, magnitudes)
    for plan in plans:
        require_room(signature, plan.sizes)
    cases = []
    for draw in range(repeats):
        for number, plan in enumerate(plans):
            case_seed = (seed + 1) * SEED_STRIDE + draw * len(plans) + number
            cases.append(_draw(signature, plan, case_seed, draw))
    return cases


def draw_fixed_cases(
    signature: Signature,
    fixed: Mapping[str, int],
    *,
    seed: int,
    magnitudes: Sequence[float],
    repeats: int = 1,
) -> list[Case]:
    """The cases of a file with fixed shapes; a nominal one of them is the sample, which
    every file can be run on.

    Args:
        signature: what the model takes.
        fixed: dimension → size.
        seed, magnitudes, repeats: as of draw_cases.

    Raises:
        ParamsError: as draw_cases.
    """
    cases = draw_cases(
        at_sizes(signature, fixed),
        seed=seed + 1,
        sizes={},
        magnitudes=magnitudes,
        repeats=repeats,
    )
    listed = ", ".join(f"{name}={size}" for name, size in fixed.items())
    renamed = []
    for number, case in enumerate(cases):
        name, sizes = f"{case.name}, fixed {listed}", {**case.sizes, **fixed}
        is_sample = number == 0  # a nominal one is the first
        renamed.append(replace(case, name=name, sizes=sizes, is_sample=is_sample))
    return renamed


def _plans(
    signature: Signature,
    sizes: Mapping[str, Sequence[int]],
    magnitudes: Sequence[float],
) -> list[_Plan]:
    """What all cases try, once.

    Nominal values are tried in all shapes, extreme ones in a single small shape, since
    what they reveal doesn't depend on it. Cases of indices need an input with a range,
    those of magnitudes a float.

    Args:
        signature: what the model takes.
        sizes: further sizes to try, by dimension.
        magnitudes: of float inputs, beside the nominal ones.
    """
    kinds = {np.dtype(spec.dtype).kind for spec in signature.inputs}
    plans = []
    for shape in _shapes(signature, sizes):
        plans.append(_Plan(NOMINAL, NOMINAL, shape))
    small = {}
    for name, dimension in signature.dimensions.items():
        small[name] = dimension.nearest(dimension.minimum + EXTREME_SIZE)
    if any(spec.high is not None for spec in signature.inputs):
        what = "index" if kinds & {"i", "u"} else "value"
        plans.append(_Plan(f"first {what}", NOMINAL, small, index="first"))
        plans.append(_Plan(f"last {what}", NOMINAL, small, index="last"))
    if "f" in kinds:
        for magnitude in magnitudes:
            name = f"magnitude {magnitude:g}" if magnitude else "zeros"
            plans.append(_Plan(name, name, small, magnitude))
    return plans


def require_room(
    signature: Signature, sizes: Mapping[str, int], option: str = "parity.sizes"
) -> None:
    """Require inputs that a machine has room for, before any are drawn.

    Args:
        signature: what the model takes.
        sizes: dimension → size.
        option: that asks for them.

    Raises:
        ParamsError: they would hold more than MAX_CASE.
    """
    size = 0
    for spec in signature.inputs:
        items = math.prod(resolve_shape(spec, sizes))
        size += items * np.dtype(spec.dtype).itemsize
    if size > MAX_CASE:
        listed = ", ".join(f"{name}={count}" for name, count in sizes.items())
        raise ParamsError(
            f"{{{option}}} and the dimensions of {{model.signature}} ask for a case"
            f" of {listed}: its inputs would take {size:,} bytes, and"
            f" {MAX_CASE:,} are allowed",
            f"choose smaller sizes in {{{option}}}, or smaller examples and minima in"
            " {model.signature}",
            options=[option, "model.signature"],
        )


def _draw(signature: Signature, plan: _Plan, seed: int, draw: int) -> Case:
    """The case of a plan.

    Args:
        signature: what the model takes.
        plan: what the case tries.
        seed: of its random values.
        draw: how often the plan was drawn before; its name states it from 2 on.
    """
    inputs = sample_inputs(signature, plan.sizes, seed, plan.magnitude)
    if plan.index:
        for spec in signature.inputs:
            if spec.high is not None:
                value = _extreme(spec, plan.index)
                inputs[spec.name] = np.full_like(inputs[spec.name], value)
    name = plan.name
    for dimension, size in plan.sizes.items():
        name += f", {dimension}={size}"
    if draw:
        name += f", draw {draw + 1}"
    drawn = plan.index is None
    return Case(name, plan.kind, plan.magnitude, inputs, drawn, plan.sizes)


def _extreme(spec: TensorSpec, index: Literal["first", "last"]) -> float:
    """The first or the last of the values that an input takes.

    Args:
        spec: of an input with a range.
        index: which of the two.
    """
    low, high = spec.low or 0, spec.high or 0
    if index == "first":
        return low
    return high - 1 if spec.is_integer else high


def _shapes(
    signature: Signature, further: Mapping[str, Sequence[int]]
) -> list[dict[str, int]]:
    """Sizes of all dimensions, none the export's where there is a choice.

    One dimension descends and the others ascend: every size is tried, and no case is
    large in all of them. That one is the dimension with the largest size; sizes of
    dimensions that have fewer are taken again from the first on.

    Args:
        signature: what the model takes.
        further: sizes to try beside the usual ones, by dimension.

    Returns:
        One mapping for each case: name of a dimension → its size.
    """
    if not signature.dimensions:
        return [{}]
    candidates = {}
    for name, dimension in signature.dimensions.items():
        candidates[name] = _candidate_sizes(dimension, further.get(name, ()))
    longest = max(candidates, key=lambda name: max(candidates[name]))
    candidates[longest].reverse()
    count = max(map(len, candidates.values()))
    rows: list[dict[str, int]] = [{} for _ in range(count)]
    for name, sizes in candidates.items():
        for row, size in zip(rows, cycle(sizes), strict=False):
            row[name] = size
    rows.reverse()
    return rows


def _candidate_sizes(dimension: Dimension, further: Sequence[int]) -> list[int]:
    """The sizes to try, ascending.

    The usual ones are the smallest and the next, an odd one near half of the export's
    example, and one beyond the example. The example itself is tried only where it was
    asked for, or where the bounds leave no other.

    Args:
        dimension: whose.
        further: sizes that were asked for, beside the usual ones.

    Raises:
        ParamsError: one of them lies outside the dimension's bounds.
    """
    for size in further:
        if not dimension.allows(size):
            raise ParamsError(
                f"{{parity.sizes}} holds {size} for {dimension.name!r}, and the model"
                f" takes {dimension.bounds}",
                "leave it out, or correct the dimension's bounds in {model.signature}",
                options=["parity.sizes", "model.signature"],
            )
    odd = max(dimension.example // 2, dimension.minimum + 2) | 1
    longer = dimension.example + max(dimension.example // 4, 2)
    sizes = set(further)
    for size in (dimension.minimum, dimension.minimum + 1, odd, longer):
        sizes.add(dimension.nearest(size))
    if dimension.example not in further:
        sizes.discard(dimension.example)
    return sorted(sizes) or [dimension.example]
