"""Floats that have to be in a range, lest the model gives NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.drafting.guesses import is_float
from checkpoint_release.drafting.trials import (
    Sizes,
    Specs,
    Trials,
    are_finite,
    sample,
)

_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.001, 1.0))
"""Of images and probabilities, of sound, and of what is divided by or has a logarithm.
"""


def with_ranges(trials: Trials, specs: Specs, sizes: Sizes) -> Specs:
    """The inputs, with ranges where the model gives NaN or infinity without them.

    As few inputs as possible get one.

    Args:
        trials: of the model.
        specs: on which it runs.
        sizes: at which it does.
    """
    if _stays_finite(trials, specs, sizes):
        return specs
    for ranged in _ranged(specs):
        if _stays_finite(trials, ranged, sizes):
            return ranged
    return specs


def _ranged(specs: Specs) -> Iterator[Specs]:
    """The inputs with a range for one of them, and then with one for all."""
    places = [number for number, spec in enumerate(specs) if is_float(spec)]
    chosen = [[place] for place in places]
    if len(places) > 1:
        chosen.append(places)
    for each in chosen:
        for low, high in _RANGES:
            ranged = list(specs)
            for place in each:
                ranged[place] = replace(specs[place], low=low, high=high)
            yield tuple(ranged)


def _stays_finite(trials: Trials, specs: Specs, sizes: Sizes) -> bool:
    """Whether all outputs are finite, at the ends of the ranges too."""
    inputs = sample(specs, sizes)
    ends = [
        {spec.name: np.full_like(inputs[spec.name], value) for spec, value in values}
        for values in _ends(specs)
    ]
    for changed in ({}, *ends):
        outputs = trials.call(inputs | changed)
        if not outputs or not are_finite(outputs):
            return False
    return True


def _ends(specs: Specs) -> list[list[tuple[TensorSpec, float]]]:
    """The inputs of floats that have a range, with their lowest and highest values."""
    lows, highs = [], []
    for spec in specs:
        if not spec.is_integer and spec.low is not None and spec.high is not None:
            lows.append((spec, spec.low))
            highs.append((spec, spec.high))
    return [lows, highs] if lows else []
