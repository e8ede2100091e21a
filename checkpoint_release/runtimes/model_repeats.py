"""The same outputs for the same inputs, or the reason why not.

Random draws, layers that stay in training mode and what is kept between calls look
alike from outside. Seeds tell them apart, and a look at what a call changes.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn

from checkpoint_release.core.errors import ModelError, first_few
from checkpoint_release.runtimes.model_alone import (
    ForwardError,
    ModelAlone,
    Outputs,
    Sizes,
)
from checkpoint_release.runtimes.model_diagnosis import explain
from checkpoint_release.runtimes.model_watch import (
    Watch,
    changed,
    state_of,
    training_modules,
)

_LISTED = 3  # names in a message
# Relative to the largest output. Two runs of a model that draws nothing may differ by
# rounding, where threads add in another order.
_ROUNDING = 1e-5
_ROUNDING_HALF = 1e-2


def refuse_training(alone: ModelAlone) -> None:
    """Raise ModelError where layers are still in training mode after eval()."""
    layers = training_modules(alone.model)
    if layers:
        raise _training_error(alone, first_few(layers, _LISTED))


def _training_error(alone: ModelAlone, what: str) -> ModelError:
    """A model that eval() doesn't bring out of training mode."""
    overrides = []
    for module in alone.model.modules():
        kind = type(module)
        for method in ("eval", "train"):
            if getattr(kind, method) is not getattr(nn.Module, method):
                overrides.append(f"{kind.__name__} overrides {method}()")
    why = f"; {overrides[0]}" if overrides else ""
    return alone.error(
        f"the model is in training mode after eval(): {what}{why}",
        "let eval() reach every layer: an override must call super() and return self",
    )


def require_same(alone: ModelAlone, sizes: Sizes, first: Outputs, watch: Watch) -> None:
    """The model must give again what it gave.

    Args:
        alone: the model.
        sizes: of the samples.
        first: what it gave.
        watch: sees what the model does, where it is looked for a cause.

    Raises:
        ModelError: it gives something else; the message says why.
    """
    again = _run(alone, sizes)
    if not _differ(first, again):
        return
    outputs = _differing(alone, first, again)
    if any(module.training for module in alone.model.modules()):
        raise _training_error(alone, f"the same inputs give other outputs: {outputs}")
    if _is_random(alone, sizes, watch):
        draws = first_few(list(watch.draws), _LISTED)
        by = f"by {draws}" if draws else "outside of torch"
        raise alone.error(
            "the model draws random numbers in forward, so that the same inputs give"
            f" other outputs: {outputs}; they are drawn {by}",
            "draw them in training alone (`if self.training`), or let them come in as"
            " an input",
        )
    before = state_of(alone.model)
    _run(alone, sizes)
    names = changed(before, state_of(alone.model))
    where = f"; it changes {first_few(names, _LISTED)}" if names else ""
    raise alone.error(
        "the model keeps something between calls, so that the same inputs give other"
        f" outputs: {outputs}{where}",
        "let what it keeps come in as an input and go out as an output",
    )


def _is_random(alone: ModelAlone, sizes: Sizes, watch: Watch) -> bool:
    """Whether the outputs follow from the seed of random numbers."""

    def seeded(seed: int) -> Outputs:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        with watch:
            return _run(alone, sizes)

    first, again, other = seeded(0), seeded(0), seeded(1)
    return not _differ(first, again) and _differ(first, other)


def _differ(first: Outputs, second: Outputs) -> bool:
    """Whether outputs differ by more than the order of additions explains."""
    pairs = zip(first, second, strict=True)
    return any(_distance(*pair) > 0 for pair in pairs)


def _differing(alone: ModelAlone, first: Outputs, second: Outputs) -> str:
    """The outputs that differ, and by how much, for a message."""
    shown = []
    for spec, *pair in zip(alone.signature.outputs, first, second, strict=True):
        distance = _distance(*pair)
        if distance:
            shown.append(f"{spec.name} by {distance:.2g}")
    return first_few(shown, _LISTED)


def _distance(first: Tensor, second: Tensor) -> float:
    """The largest difference of two outputs; 0 where rounding explains it.

    Infinite where their shapes differ, or one has NaN where the other hasn't.
    """
    if first.shape != second.shape:
        return float("inf")
    if torch.equal(first, second) or not first.numel():
        return 0.0
    wide, again = first.double(), second.double()
    if not torch.equal(wide.isnan(), again.isnan()):
        return float("inf")
    distance = (wide - again).abs().nan_to_num(0.0).max().item()
    if not first.is_floating_point():
        return distance
    half = first.dtype in (torch.float16, torch.bfloat16)
    scale = wide.abs().nan_to_num(0.0).max().item()
    allowed = (_ROUNDING_HALF if half else _ROUNDING) * scale
    return distance if distance > allowed else 0.0


def _run(alone: ModelAlone, sizes: Sizes) -> Outputs:
    """Run the model on samples of these sizes.

    Raises:
        ModelError: it fails.
    """
    try:
        return alone.run(alone.sample(sizes))
    except ForwardError as failure:
        raise explain(alone, sizes, failure) from failure
