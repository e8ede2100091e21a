"""The draft of a signature: forward names its inputs, and running shows the rest.

What inputs hold is guessed from the model's own layers, and a guess stands when the
model runs on it. Sizes are then varied: an axis that may vary is a dynamic dimension,
one that may not a number, and one that follows from others an expression.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace

import torch
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import Signature
from checkpoint_release.drafting.first import first_guess
from checkpoint_release.drafting.optional import optional_inputs
from checkpoint_release.drafting.outputs import output_specs
from checkpoint_release.drafting.ranges import with_ranges
from checkpoint_release.drafting.relations import separated
from checkpoint_release.drafting.sizes import with_dimensions
from checkpoint_release.drafting.trials import Specs, Trials
from checkpoint_release.runtimes.eager import build_model


@dataclass(frozen=True)
class Draft:
    """A signature that a model keeps, as far as running it shows.

    Attributes:
        signature: with the inputs that forward needs.
        optional: inputs that it can do without.
    """

    signature: Signature
    optional: Specs = ()


def draft_signature(architecture: Architecture) -> Draft:
    """The signature that a model keeps, as far as running it shows.

    What an input means, and which integers make sense, nobody can see: read it.

    Args:
        architecture: names the factory and its arguments; its signature isn't used.

    Raises:
        UntrustedCodeError: the code comes from elsewhere, and nobody trusts it.
        ModelError: the factory fails, or forward runs on no inputs that were guessed.
    """
    empty = replace(architecture, signature=Signature((), (), {}))
    torch.manual_seed(0)
    trials = Trials(build_model(empty))
    names = _required_inputs(trials.model)
    guess = first_guess(trials, names)
    if guess is None:
        raise ModelError(
            f"forward of {type(trials.model).__name__} takes {names}, and ran on none"
            " of the inputs that its layers suggest; the likeliest gave"
            f" {trials.first_failure or 'no tensors'}",
            "state {model.signature} by hand; where forward takes tuples or dicts, let"
            " {model.factory} build a subclass whose forward takes the tensors in them",
            options=["model.signature", "model.factory"],
        )
    specs, sizes = separated(trials, *guess)
    specs, dimensions = with_dimensions(trials, specs, sizes)
    example = {name: each.example for name, each in dimensions.items()}
    specs = with_ranges(trials, specs, example)
    outputs = output_specs(trials, specs, dimensions)
    optional = optional_inputs(trials, specs, dimensions)
    return Draft(Signature(specs, outputs, dimensions), optional)


_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _required_inputs(model: nn.Module) -> list[str]:
    """The arguments of forward that have no default.

    Raises:
        ModelError: it names none.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    named = [each for each in parameters if each.kind not in _STARRED]
    names = [each.name for each in named if each.default is each.empty]
    if not names:
        names = [each.name for each in named][:1]
    if not names:
        raise ModelError(
            f"forward of {type(model).__name__} names no inputs",
            "give it named arguments, or state {model.signature} by hand",
            options=["model.signature"],
        )
    return names
