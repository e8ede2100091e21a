"""Bounds and multiples of each dimension, and which are no dimensions at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import combinations

from checkpoint_release.core.signature import Dimension
from checkpoint_release.drafting.first import dimension_names
from checkpoint_release.drafting.relations import merged, with_sizes
from checkpoint_release.drafting.trials import Sizes, Specs, Trials

_FAR = 32  # times an example, up to which a maximum is looked for
_LONGEST = 8192  # up to which that of a length is, which tables of positions have
_LENGTHS = ("sequence", "length")
_SIDES = {"height", "width"}
_LONG_RUN = 1.0  # seconds of the thread's own
Runs = Callable[[int], bool]


def with_dimensions(
    trials: Trials, specs: Specs, sizes: Sizes
) -> tuple[Specs, dict[str, Dimension]]:
    """The inputs and their dimensions; what may not vary is a number.

    Two that vary only together, as the sides of a square do, become one.

    Args:
        trials: of the model.
        specs: on which it runs.
        sizes: at which it does.
    """
    found: dict[str, Dimension] = {}
    fixed: list[str] = []
    for name in dimension_names(specs):
        dimension = _dimension(trials, specs, sizes, name)
        if dimension is None:
            fixed.append(name)
        else:
            found[name] = dimension
    for first, second in combinations(tuple(fixed), 2):
        if not {first, second} <= {*fixed} or sizes[first] != sizes[second]:
            continue
        name = "side" if {first, second} == _SIDES else first
        one = merged(specs, first, second, name)
        dimension = _dimension(trials, one, sizes | {name: sizes[first]}, name)
        if dimension is not None:
            specs, found[name] = one, dimension
            fixed.remove(first)
            fixed.remove(second)
    numbers = {name: sizes[name] for name in fixed}
    specs = tuple(with_sizes(spec, numbers) for spec in specs)
    return specs, {name: found[name] for name in dimension_names(specs)}


def _dimension(
    trials: Trials, specs: Specs, sizes: Sizes, name: str
) -> Dimension | None:
    """The sizes that a dimension may have; None where there is only one."""

    example = sizes[name]

    def runs(size: int) -> bool:
        return trials.runs(specs, {**sizes, name: size})

    multiple = next((step for step in _divisors(example) if runs(example + step)), None)
    if multiple is None:
        return None
    minimum = _smallest(runs, example, multiple)
    alone = {**sizes, "batch": 1}
    if name.endswith(_LENGTHS) and trials.runs(specs, alone):
        sizes = alone  # in which a long one costs the least
    maximum = _largest(trials, runs, example, multiple, _farthest(name, example))
    return Dimension(name, minimum, maximum, example, multiple)


def _divisors(example: int) -> list[int]:
    """What a size that works can be a multiple of, itself left out unless it is 1.

    A multiple as large as the example would be shown by nothing but two sizes.
    """
    return [step for step in range(1, example // 2 + 1) if example % step == 0] or [1]


def _smallest(runs: Runs, example: int, multiple: int) -> int:
    """The smallest multiple from which on the model runs."""
    if runs(multiple):
        return multiple
    return _boundary(runs, works=example, fails=multiple, multiple=multiple)


def _farthest(name: str, example: int) -> int:
    """The size up to which a maximum is looked for."""
    far = example * _FAR
    return max(far, _LONGEST) if name.endswith(_LENGTHS) else far


def _largest(
    trials: Trials, runs: Runs, example: int, multiple: int, farthest: int
) -> int | None:
    """The largest size; None where none was found that fails, or it takes long."""
    works = example
    while works < farthest:
        started = time.thread_time()
        if not runs(works * 2):
            return _boundary(runs, works, works * 2, multiple)
        works *= 2
        if trials.is_late or time.thread_time() - started > _LONG_RUN:
            return None
    return None


def _boundary(runs: Runs, works: int, fails: int, multiple: int) -> int:
    """The last multiple that works on the way to one that fails, by halving."""
    while abs(fails - works) > multiple:
        middle = (works + fails) // 2 // multiple * multiple
        if runs(middle):
            works = middle
        else:
            fails = middle
    return works
