"""Models that can't be released as they are, each for one reason, and models that look
so and can.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module):
    """What they share: a layer of width 4."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, features: Tensor) -> Any:
        return self.head(features)


class Noisy(Head):
    """Adds noise."""

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features) + 0.1 * torch.randn_like(features)


class DropsAlways(Head):
    """Drops out whatever the mode."""

    def forward(self, features: Tensor) -> Tensor:
        return functional.dropout(self.head(features), 0.5)


class RandomOutsideTorch(Head):
    """Draws from Python's own random numbers."""

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features) * (1 + random.random())


class StaysInTraining(Head):
    """Overrides eval()."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def eval(self) -> StaysInTraining:
        return self

    def forward(self, features: Tensor) -> Tensor:
        return self.drop(self.head(features))


class Counts(Head):
    """Remembers how often it was called."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        self.calls += 1
        return self.head(features) * self.calls


class Accumulates(Head):
    """Remembers its last input, in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.last = 0.0

    def forward(self, features: Tensor) -> Tensor:
        out = self.head(features) + self.last
        self.last = float(features.mean()) + self.last
        return out


class Table(Head):
    """Has positions up to 16."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(16, 4))

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features) + self.positions[: features.shape[1]]


class Windows(nn.Module):
    """Takes lengths of at least 3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features.transpose(1, 2))


class Halves(nn.Module):
    """Takes even lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, features: Tensor) -> Tensor:
        batch, length, width = features.shape
        return self.head(features.reshape(batch, length // 2, 2 * width))


class Words(nn.Module):
    """Takes integers below 11."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)


class TwoInputs(nn.Module):
    """Adds inputs of the same length."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, features: Tensor, others: Tensor) -> Tensor:
        return self.head(features) + others


class Optional(Head):
    """Returns None for an output."""

    def forward(self, features: Tensor) -> dict[str, Tensor | None]:
        out = self.head(features)
        return {"logits": out, "aux": None, "hidden": 2 * out}


class Spectrum(Head):
    """Returns complex numbers."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.fft.rfft(self.head(features))


class HalfOutput(Head):
    """Returns bfloat16."""

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features).bfloat16()


class DecidesByValue(Head):
    """Does one thing or another, by what it computed."""

    def forward(self, features: Tensor) -> Tensor:
        out = self.head(features)
        if out.sum() > 0:
            return out
        return 1 + 2 * out


class LoopsByValue(Head):
    """Repeats until what it computed is small."""

    def forward(self, features: Tensor) -> Tensor:
        out = self.head(features)
        while out.abs().max() > 0.5:
            out = out / 2
        return out


class Broken(Head):
    """Fails whatever it is given."""

    def forward(self, features: Tensor) -> Tensor:
        raise KeyError("lost")


class Buffered(Head):
    """Keeps a cache that changes nothing that it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = torch.zeros(0)

    def forward(self, features: Tensor) -> Tensor:
        if len(self.cache) < features.shape[1]:
            self.cache = torch.arange(features.shape[1] * 2.0)
        return self.head(features) + self.cache[: features.shape[1], None]


class Regularised(Head):
    """Draws random numbers in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, batch_first=True)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, features: Tensor) -> Tensor:
        x = self.drop(self.head(features))
        x = functional.dropout(x, 0.5, self.training)
        x, _ = self.attention(x, x, x)
        return self.norm(x.transpose(1, 2))


class Differences(Head):
    """Computes what torch's dynamo exporter has for ONNX, and its tracing one hasn't.

    GPT-2 of transformers 5 does, to find where packed sequences begin.
    """

    def forward(self, features: Tensor) -> Tensor:
        x = self.head(features)
        return x + torch.diff(x, dim=-1, prepend=x[..., :1])
