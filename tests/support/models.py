"""Small models that are none of the project's own, each with one thing that a pipeline
could get wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Positions(nn.Module):
    """Holds values that its constructor computes and no state dict has."""

    angles: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width))
        self.register_buffer(
            "angles", torch.arange(width).float() / width, persistent=False
        )
        self.offsets = torch.linspace(0, 1, width)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.angles + self.offsets


class TiedLanguageModel(nn.Module):
    """Integer inputs; the output layer is the embedding; a dict comes back."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.mix(self.embedding(tokens))).cumsum(1)
        return {"logits": self.head(hidden), "hidden": hidden}


class Reading(NamedTuple):
    """One of Reader's outputs."""

    mixed: Tensor
    weights: Tensor


class Reader(nn.Module):
    """Four dynamic dimensions, a mask of booleans, and tuples within a dict."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(
        self, query: Tensor, memory: Tensor, mask: Tensor, image: Tensor
    ) -> dict[str, object]:
        scores = self.query(query) @ memory.transpose(1, 2)
        weights = torch.softmax(scores.masked_fill(~mask[:, None], -1e9), -1)
        seen = self.conv(image).relu()
        return {
            "read": Reading(weights @ memory, weights),
            "seen": (seen, [seen.mean((2, 3))]),
        }


class Spectrum(nn.Module):
    """Computes what ONNX has no operator for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ (self.weight + self.weight.T))
