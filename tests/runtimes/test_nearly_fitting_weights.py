"""Weights that nearly fit a model's own: the error says what would make them fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.runtimes.eager import load_model

OWN = {
    "body.weight": torch.zeros(3, 2),
    "body.bias": torch.zeros(3),
    "head.weight": torch.zeros(1, 3),
    "head.bias": torch.zeros(1),
}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(2, 3)
        self.head = nn.Linear(3, 1)


def error_of(weights: dict[str, torch.Tensor]) -> str:
    architecture = Architecture(
        f"{__name__}:Two", {}, Signature((), (), {}), trust=OWN_ARTIFACTS
    )
    with pytest.raises(ModelError, match="doesn't fit Two") as error:
        load_model(architecture, weights)
    return str(error.value)


def under(prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in OWN.items()}


@pytest.mark.parametrize(
    ("weights", "remedy"),
    [
        (OWN | {"scale": torch.zeros(())}, "leave_out to ['scale']"),
        (
            OWN | {"loss.a": torch.zeros(1), "loss.b": torch.zeros(1)},
            "leave_out to ['loss.*']",
        ),
        (OWN | {"head.steps": torch.zeros(1)}, "leave_out to ['head.steps']"),
        (under("net."), "checkpoint.prefix to 'net.'"),
        (
            under("net.") | {"ema.decay": torch.zeros(1)},
            "checkpoint.prefix to 'net.' and checkpoint.leave_out to ['ema.*']",
        ),
    ],
    ids=["a name", "a part", "a name beside others", "a prefix", "both"],
)
def test_the_option_is_named_that_makes_them_fit(
    weights: dict[str, torch.Tensor], remedy: str
) -> None:
    message = error_of(weights)
    assert "the rest fits: set " in message
    assert remedy in message
    assert "model.factory" not in message


@pytest.mark.parametrize(
    "weights",
    [
        {name: OWN[name] for name in list(OWN)[1:]},
        OWN | {"head.bias": torch.zeros(2), "scale": torch.zeros(())},
        {f"x{name}": tensor for name, tensor in OWN.items()},
    ],
    ids=["a missing one", "another shape", "no prefix of a module"],
)
def test_nothing_is_advised_that_would_not_help(
    weights: dict[str, torch.Tensor],
) -> None:
    message = error_of(weights)
    assert "model.factory" in message
    assert "checkpoint." not in message
