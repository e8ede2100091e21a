"""A model of three matrices, as wide as it takes for a graph past 2 GB."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 13_800
"""Three times its square is 2.3 GB, past the 2 GB that protobuf allows a message."""
SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": ["batch", WIDTH]}],
    "outputs": ["y"],
    "dimensions": {"batch": {"minimum": 1, "maximum": 4}},
}


class Wide(nn.Module):
    """`x` [batch, WIDTH] → `y`, the same."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH, bias=False)
        self.second = nn.Linear(WIDTH, WIDTH, bias=False)
        self.third = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(self.first(x))))
        return self.third(hidden)


def random_weights() -> dict[str, Tensor]:
    """Weights that keep the magnitude of what goes through them."""
    torch.manual_seed(0)
    weights = {}
    for name in ("first", "second", "third"):
        matrix = torch.empty(WIDTH, WIDTH).normal_(std=WIDTH**-0.5)
        weights[f"{name}.weight"] = matrix
    return weights
