"""The first guess of all inputs on which a model runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice, product

from torch import Tensor

from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.drafting.guesses import (
    EXAMPLES,
    LONG_EXAMPLES,
    guesses,
    with_floats_in,
)
from checkpoint_release.drafting.relations import where_one_follows
from checkpoint_release.drafting.trials import Sizes, Specs, Trials

_MOST_TRIES = 3000


def first_guess(trials: Trials, names: Sequence[str]) -> tuple[Specs, Sizes] | None:
    """The inputs of the first guess that runs, and the sizes at which it did.

    Inputs are guessed to share dimensions; then with larger sizes, then to hold floats
    from 0 to 1, then that the length of one follows from another's.

    Args:
        trials: of the model.
        names: of its inputs.
    """
    choices = [guesses(trials.model, name) for name in names]
    ranged: list[Specs] = [with_floats_in(each, 0.0, 1.0) for each in choices]
    for kinds, examples in (
        (choices, EXAMPLES),
        (choices, LONG_EXAMPLES),
        (ranged, EXAMPLES),
    ):
        found = _first_that_runs(trials, product(*kinds), examples)
        if found is not None:
            return found, dict(examples)
    following = chain.from_iterable(map(where_one_follows, product(*choices)))
    found = _first_that_runs(trials, following, EXAMPLES)
    return None if found is None else (found, dict(EXAMPLES))


def _first_that_runs(
    trials: Trials, candidates: Iterable[Specs], examples: Sizes
) -> Specs | None:
    """The first candidate on which the model runs.

    One whose outputs have the batch twice comes after all others: two inputs of other
    shapes were broadcast together.
    """
    second_best: Specs | None = None
    for specs in _some(trials, candidates):
        outputs = trials.outputs(specs, examples)
        if outputs and not _has_batch_twice(outputs, examples["batch"]):
            return specs
        if outputs and second_best is None:
            second_best = specs
    return second_best


def _some(trials: Trials, candidates: Iterable[Specs]) -> Iterator[Specs]:
    """The candidates, as long as patience lasts."""
    for specs in islice(candidates, _MOST_TRIES):
        if trials.is_late:
            return
        yield specs


def _has_batch_twice(outputs: Mapping[str, Tensor], batch: int) -> bool:
    return any(list(tensor.shape).count(batch) > 1 for tensor in outputs.values())


def dimension_names(specs: Sequence[TensorSpec]) -> list[str]:
    """The dimensions of inputs, in the order in which shapes first name them."""
    names: dict[str, None] = {}
    for spec in specs:
        for size in spec.dynamic_axes.values():
            if size in spec.dimension_names:
                names[size] = None
    return list(names)
