"""Tensors that aren't a model's as they are, and would be with a prefix stripped or
some of them left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import islice
from typing import TypeVar

from checkpoint_release.core.architecture import TensorShapes
from checkpoint_release.core.errors import ArchitectureError
from checkpoint_release.core.selection import (
    SELECTION_OPTIONS,
    Selection,
    pattern_of,
    remedy,
)
from checkpoint_release.state_dict.quantised import (
    OPTION,
    quantisation,
)
from checkpoint_release.state_dict.quantised import remedy as remedy_for

_COUNTERS = ("*total_ops", "*total_params")  # thop's, in every module that it profiled
_MAX_TRIED = 100  # selections, each of which is held against the model

T = TypeVar("T")


def with_advice(read: Callable[[TensorShapes], T], shapes: TensorShapes) -> T:
    """Read something off the tensors' names and shapes; where they don't fit but nearly
    do, the error says what would make them fit.

    Args:
        read: raises ArchitectureError for tensors that don't fit.
        shapes: of all tensors.

    Raises:
        ArchitectureError: as `read`.
    """
    try:
        return read(shapes)
    except ArchitectureError as error:
        layout = quantisation(shapes)
        if layout:
            raise ArchitectureError(
                f"the checkpoint's weights are quantised, as {layout} lays them out,"
                f" and so they don't fit: {error.problem}",
                remedy_for(layout),
                options=[OPTION],
            ) from None
        selection = near_miss(shapes, lambda nearby: _fits(read, nearby))
        if selection is None:
            raise
        raise ArchitectureError(
            error.problem, remedy(selection), options=SELECTION_OPTIONS
        ) from None


def _fits(read: Callable[[TensorShapes], object], shapes: TensorShapes) -> bool:
    try:
        read(shapes)
    except ArchitectureError:
        return False
    return True


def near_miss(
    shapes: TensorShapes, fits: Callable[[TensorShapes], bool]
) -> Selection | None:
    """A selection with which tensors that don't fit a model would fit it.

    Args:
        shapes: of the tensors that don't.
        fits: whether tensors of these names and shapes are the model's.

    Returns:
        None where neither a prefix nor leaving out what lies beside it helps.
    """
    for selection in islice(_nearby(shapes), _MAX_TRIED):
        kept = {}
        for name, shape in shapes.items():
            if not _matches_any(name, selection.leave_out):
                kept[name.removeprefix(selection.prefix or "")] = shape
        if kept and fits(kept):
            return selection
    return None


def _nearby(names: Collection[str]) -> Iterator[Selection]:
    """Selections that could be meant, the simplest first.

    What profilers count is always left out, and so is what lacks the prefix. Beyond
    that, one small part of the names at most is left out: a loss, a teacher, a head.

    Args:
        names: of all tensors.
    """
    counters, wanted = _set_counters_aside(names)
    for prefix in ("", *_beginnings(names)):
        inside, outside = _split(wanted, prefix)
        left_out = (*counters, *dict.fromkeys(pattern_of(name) for name in outside))
        yield Selection(left_out, prefix or None)
        for part in _small_parts(inside):
            yield Selection((*left_out, f"{prefix}{part}"), prefix or None)


def _set_counters_aside(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The patterns of profilers' counters that occur, and the names without them."""
    patterns: dict[str, None] = {}
    others = []
    for name in names:
        matching = [each for each in _COUNTERS if fnmatchcase(name, each)]
        patterns |= dict.fromkeys(matching)
        if not matching:
            others.append(name)
    return list(patterns), others


def _split(names: Iterable[str], prefix: str) -> tuple[list[str], list[str]]:
    """The names with the prefix, without it; and the others."""
    inside, outside = [], []
    for name in names:
        if name.startswith(prefix):
            inside.append(name.removeprefix(prefix))
        else:
            outside.append(name)
    return inside, outside


def _beginnings(names: Collection[str]) -> list[str]:
    """Beginnings of one or two parts that at least half of the names have."""
    counts = Counter[str]()
    for name in names:
        parts = name.split(".")
        for length in range(1, min(3, len(parts))):
            counts[".".join(parts[:length]) + "."] += 1
    return [start for start, count in counts.items() if 2 * count >= len(names)]


def _small_parts(names: Collection[str]) -> list[str]:
    """The patterns of first parts that less than half of the names have."""
    counts = Counter(pattern_of(name) for name in names)
    return [pattern for pattern, count in counts.items() if 2 * count < len(names)]


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
