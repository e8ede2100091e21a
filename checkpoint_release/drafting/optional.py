"""Inputs that forward can do without."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import nn

from checkpoint_release.core.signature import Dimension, TensorSpec
from checkpoint_release.drafting.guesses import EXAMPLES, guesses
from checkpoint_release.drafting.trials import (
    Outputs,
    Sizes,
    Specs,
    Trials,
    are_finite,
)


def optional_inputs(
    trials: Trials, specs: Specs, dimensions: Mapping[str, Dimension]
) -> Specs:
    """The inputs that may be left out, of which the model makes something.

    One that changes no value isn't found, and neither is one with which other outputs
    come back, as labels bring a loss.

    Args:
        trials: of the model.
        specs: of the inputs that are needed.
        dimensions: of these.
    """
    sizes = _distinct_sizes(dimensions)
    without = trials.outputs(specs, sizes)
    if not without:
        return ()
    found = []
    for name in _optional_names(trials.model, specs):
        for guess in _guesses(trials.model, name, dimensions):
            if trials.is_late:
                break
            if _is_used(trials.outputs((*specs, guess), sizes), without):
                found.append(guess)
                break
    return tuple(found)


def _optional_names(model: nn.Module, specs: Specs) -> list[str]:
    """The arguments of forward that are None by default, and may be tensors."""
    taken = {spec.name for spec in specs}
    names = []
    for each in inspect.signature(model.forward).parameters.values():
        may_be_tensor = each.annotation is each.empty or "Tensor" in str(
            each.annotation
        )
        if each.default is None and may_be_tensor and each.name not in taken:
            names.append(each.name)
    return names


def _guesses(
    model: nn.Module, name: str, dimensions: Mapping[str, Dimension]
) -> Iterator[TensorSpec]:
    """What an optional input may look like, with dimensions of the needed ones.

    A length may be that of any of these; what is none of their dimensions is a number.
    """
    for guess in guesses(model, name):
        choices = []
        for size in guess.shape or ():
            choices.append(_sizes_like(size, dimensions))
        for shape in product(*choices):
            yield TensorSpec(name, guess.dtype, shape, guess.low, guess.high)


def _sizes_like(
    size: int | str, dimensions: Mapping[str, Dimension]
) -> Sequence[int | str]:
    if isinstance(size, int):
        return [size]
    like = [name for name in dimensions if name.endswith(size)]
    return like or [EXAMPLES[size]]


def _distinct_sizes(dimensions: Mapping[str, Dimension]) -> Sizes:
    """Sizes near the examples, no two the same if they can be others."""
    sizes: Sizes = {}
    for name, dimension in dimensions.items():
        size = dimension.example
        while size in sizes.values() and dimension.allows(size + dimension.multiple):
            size += dimension.multiple
        sizes[name] = size
    return sizes


def _is_used(outputs: Outputs | None, without: Outputs) -> bool:
    """Whether the same outputs come back with other values, finite if they were."""
    if not outputs or outputs.keys() != without.keys():
        return False
    if are_finite(without) and not are_finite(outputs):
        return False
    pairs = [(outputs[name], without[name]) for name in without]
    if any(new.shape != old.shape for new, old in pairs):
        return False
    return not all(torch.equal(new, old) for new, old in pairs)
