"""Small models that describe nothing of themselves, as other people's modules do.

Each has one thing that an export could get wrong; SIGNATURES holds what most of them
take and give.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.stated_signature import read_signature
from tests.support.checkpoint_folder import state_dict, write_checkpoint


class Convolutions(nn.Module):
    """Padding, convolution, batch norm and pooling over images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()
        )
        self.head = nn.Linear(6, 4)

    def forward(self, image: Tensor) -> Tensor:
        padded = nn.functional.pad(image, (1, 1, 1, 1))
        return self.head(self.stem(padded).mean((2, 3)))


class Framed(nn.Module):
    """Frames twice as many as tokens, and one; a memory, and a mask of both."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.frames, self.out = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(
        self,
        tokens: Tensor,
        frames: Tensor,
        memory: Tensor,
        mask: Tensor,
        gain: Tensor | None = None,
    ) -> dict[str, Tensor]:
        wide = self.frames(frames)
        heard = self.embedding(tokens) + wide[:, 1::2] + wide[:, :-1:2]
        out = self.out(torch.cat([memory, heard], 1) * mask[:, :, None])
        if gain is not None:
            out = out * gain.sqrt()
        return {"out": out, "wide": wide}


class Recurrent(nn.Module):
    """An embedding and an LSTM; the output is a dict with a nest in it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> dict[str, Any]:
        hidden, (last, _) = self.lstm(self.embedding(tokens))
        return {"logits": self.head(hidden), "state": (last,)}


class TiedLanguageModel(nn.Module):
    """A language model whose output layer is its embedding; a dict comes back.

    It has a buffer that isn't saved, and norms of equal value.
    """

    ramp: Tensor

    def __init__(self, tokens: int = 11, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)
        self.head = nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("ramp", torch.linspace(0, 1, width), persistent=False)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        x = self.first(self.embedding(tokens) + self.ramp)
        hidden = torch.tanh(self.mix(self.second(x.relu()))).cumsum(1)
        return {"logits": self.head(hidden), "hidden": hidden}


class Choice(NamedTuple):
    best: Tensor
    score: Tensor


class Argmax(nn.Module):
    """An output of integers, and one whose shape nobody stated."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 6)

    def forward(self, features: Tensor) -> Choice:
        scores = self.head(features)
        return Choice(scores.argmax(-1), scores.max(-1).values)


class Guided(nn.Module):
    """Inputs and an output without dimensions, such as a diffusion model's step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 4)

    def forward(
        self, features: Tensor, step: Tensor, strength: Tensor
    ) -> tuple[Tensor, Tensor]:
        guided = self.head(features + strength * self.steps(step))
        return guided, guided.mean()


class TinyUNet(nn.Module):
    """Halves an image twice and doubles it again, so that sizes are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 2, 3, stride=2, padding=1)
        self.bottom = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(2, 2, 2, stride=2)
        self.top = nn.ConvTranspose2d(2, 1, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        down = self.down(image).relu()
        up = self.up(self.bottom(down).relu()) + down
        return self.top(up) + image


class Baked(nn.Module):
    """The mistake that tracing invites: a size of the example becomes a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, features: Tensor) -> Tensor:
        steps = int(features.shape[1])
        return self.head(features).cumsum(1) / float(steps)


class Forking(nn.Module):
    """Does one thing or another, by the length."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, features: Tensor) -> Tensor:
        x = self.head(features)
        return x if features.shape[1] <= 6 else 1 + 2 * x


class FourierTransform(nn.Module):
    """Computes what ONNX has an operator for, and torch's tracing exporter has none."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)

    def forward(self, features: Tensor) -> Tensor:
        return torch.fft.rfft(self.head(features)).abs()


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


class Eigenvalues(nn.Module):
    """Computes what ONNX has no operator for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ (self.weight + self.weight.T))


_SEQUENCE = {"sequence": {"example": 5}, "batch": {"example": 2}}
_TOKENS = {
    "name": "tokens",
    "dtype": "int64",
    "shape": ["batch", "sequence"],
    "low": 0,
    "high": 11,
}
_FEATURES = {"name": "features", "shape": ["batch", "sequence", 4]}
SIGNATURES: dict[type[nn.Module], dict[str, Any]] = {
    Convolutions: {
        "inputs": [{"name": "image", "shape": ["batch", 3, "height", "width"]}],
        "outputs": [{"name": "scores", "shape": ["batch", 4]}],
        "dimensions": (
            {name: {"minimum": 4, "example": 9} for name in ("height", "width")}
            | {"batch": {"example": 3}}
        ),
    },
    Framed: {
        "inputs": [
            {**_TOKENS, "shape": ["batch", "tokens"], "high": 30},
            {"name": "frames", "shape": ["batch", "2*tokens + 1", 6]},
            {"name": "memory", "shape": ["batch", "past", 8]},
            {"name": "mask", "shape": ["batch", "past + tokens"], "low": 0, "high": 1},
            {"name": "gain", "shape": [], "low": 0.5, "high": 2},
        ],
        "outputs": [
            {"name": "out", "shape": ["batch", "past + tokens", 4]},
            {"name": "wide", "shape": ["batch", "2*tokens + 1", 8]},
        ],
        "dimensions": {
            "tokens": {"maximum": 64, "example": 5},
            "past": {"maximum": 32, "example": 3},
        },
    },
    Recurrent: {
        "inputs": [_TOKENS],
        "outputs": [{"name": "logits"}, {"name": "last"}],
        "dimensions": _SEQUENCE,
    },
    TiedLanguageModel: {
        "inputs": [_TOKENS],
        "outputs": [
            {"name": "logits", "shape": ["batch", "sequence", 11]},
            {"name": "hidden"},
        ],
        "dimensions": _SEQUENCE,
    },
    Argmax: {
        "inputs": [_FEATURES],
        "outputs": [{"name": "best", "dtype": "int64"}, {"name": "score"}],
        "dimensions": _SEQUENCE,
    },
    Guided: {
        "inputs": [
            _FEATURES,
            {"name": "step", "dtype": "int64", "shape": [], "low": 0, "high": 7},
            {"name": "strength", "shape": []},
        ],
        "outputs": [
            {"name": "guided", "shape": ["batch", "sequence", 4]},
            {"name": "mean", "shape": []},
        ],
        "dimensions": _SEQUENCE,
    },
    Baked: {
        "inputs": [_FEATURES],
        "outputs": [{"name": "means"}],
        "dimensions": _SEQUENCE,
    },
    Forking: {
        "inputs": [_FEATURES],
        "outputs": [{"name": "either"}],
        "dimensions": _SEQUENCE,
    },
    FourierTransform: {
        "inputs": [_FEATURES],
        "outputs": [{"name": "spectrum"}],
        "dimensions": _SEQUENCE,
    },
}


def checkpoint(folder: Path, kind: type[nn.Module]) -> Path:
    """Write artifacts/checkpoint of one of these models with random weights."""
    architecture = Architecture(
        f"{__name__}:{kind.__name__}", {}, read_signature(SIGNATURES[kind])
    )
    return write_checkpoint(folder, architecture, state_dict(architecture))
