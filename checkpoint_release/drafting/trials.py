"""Runs of a model on what is guessed of its inputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from checkpoint_release.core.errors import one_line
from checkpoint_release.core.signature import (
    Arrays,
    Signature,
    TensorSpec,
    resolve_shape,
    sample_inputs,
)
from checkpoint_release.runtimes.eager import named_leaves

PATIENCE = 60.0
"""Seconds that a draft may look for what isn't sure to be there.

They are the thread's own, so that a draft on a busy machine is the same.
"""
Sizes = dict[str, int]
Specs = tuple[TensorSpec, ...]
Outputs = dict[str, Tensor]


@dataclass
class Trials:
    """A model that is tried out.

    Attributes:
        model: in evaluation mode.
        until: when patience ends, by time.thread_time().
        first_failure: what the model raised first; empty: nothing yet.
    """

    model: nn.Module
    until: float = field(default_factory=lambda: time.thread_time() + PATIENCE)
    first_failure: str = ""

    @property
    def is_late(self) -> bool:
        """Whether patience is at its end."""
        return time.thread_time() > self.until

    def outputs(self, specs: Sequence[TensorSpec], sizes: Sizes) -> Outputs | None:
        """What the model returns, by names; None: it fails, or returns no tensors.

        It runs on random values, and on the highest of the integers too.

        Args:
            specs: of its inputs.
            sizes: of all dimensions that they name.
        """
        inputs = sample(specs, sizes)
        highest = {
            spec.name: np.full_like(inputs[spec.name], spec.high - 1)
            for spec in specs
            if spec.is_integer and spec.high is not None
        }
        if highest and self.call(inputs | highest) is None:
            return None
        return self.call(inputs)

    def runs(self, specs: Sequence[TensorSpec], sizes: Sizes) -> bool:
        """Whether the model returns tensors.

        Args:
            specs: of its inputs.
            sizes: of all dimensions that they name.
        """
        return bool(self.outputs(specs, sizes))

    def call(self, inputs: Arrays) -> Outputs | None:
        """What the model returns, by names; None: it fails, or returns no tensors.

        Args:
            inputs: by name.
        """
        tensors = {name: torch.tensor(array) for name, array in inputs.items()}
        try:
            with torch.no_grad():
                return dict(named_leaves(self.model(**tensors)))
        except (Exception, SystemExit) as error:  # anybody's code, and this is a guess
            if not self.first_failure:
                self.first_failure = f"{type(error).__name__}: {one_line(error, 200)}"
            return None


def sample(specs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> Arrays:
    """Random inputs, always the same; empty ones where a size isn't above 0.

    Args:
        specs: of the inputs.
        sizes: of all dimensions that they name.
    """
    for spec in specs:
        if any(size < 0 for size in resolve_shape(spec, sizes)):
            return {}  # with which no model runs
    return sample_inputs(Signature(tuple(specs), (), {}), sizes, seed=0)


def are_finite(outputs: Mapping[str, Tensor]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in outputs.values())
