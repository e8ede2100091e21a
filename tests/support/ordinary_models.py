"""Ordinary models of every kind, small, with example inputs: what people trace, script
and export.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding="same"),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="reflect"),
            nn.GroupNorm(2, 8),
            nn.Hardswish(),
            nn.MaxPool2d(2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(8, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.norm = nn.InstanceNorm2d(4, affine=True)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + F.gelu(self.norm(layer(x)))
        x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.up(F.pad(x, [1, 1, 1, 1], "constant", 0.0)).mean([2, 3])


class Recurrent(nn.Module):
    def __init__(self, kind: Callable[..., nn.RNNBase]) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8, padding_idx=0)
        self.rnn = kind(8, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.rnn(self.embed(tokens))
        return self.head(hidden), hidden.sum(-1)


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRUCell(4, 4), nn.LSTMCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 4)
        c = torch.zeros(x.shape[0], 4)
        for step in range(x.shape[1]):
            h = self.gru(x[:, step], h)
            h, c = self.lstm(h, (h, c))
        return h


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("frequencies", torch.arange(4.0))

    def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        angle = torch.einsum(
            "s,f->sf", torch.arange(x.shape[1]).float(), self.frequencies
        )
        turned = torch.cat([angle.cos(), angle.sin()], dim=-1)
        q, k = self.query(x) * turned, self.key(x) * turned
        scores = (q @ k.transpose(-1, -2)) * self.scale / q.size(-1) ** 0.5
        scores = scores.masked_fill(~mask[:, None, :], float("-inf"))
        out = F.scaled_dot_product_attention(q[:, None], k[:, None], x[:, None])
        return {"weights": scores.softmax(-1), "out": out.squeeze(1)}


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.encoder(x))


class Control(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.names = ["left", "it's", 'a "b"', "naïve"]

    def forward(self, x: Tensor, scale: float = 1.5) -> tuple[Tensor, Tensor]:
        counts = [0]
        seen = {"left": 1}
        while len(counts) < 3:
            counts.append(len(counts))
        for name in self.names:
            seen[name] = seen.get(name, 0) + 1
        if x.dim() == 2:
            x = torch.where(x > 0, x, x * scale)
        elif x.dim() == 1:
            raise ValueError(f"a tensor of {x.dim()} dimensions")
        assert x.size(0) > 0, "empty"
        return x[..., : counts[-1]].clamp(min=0.0), torch.tensor(sorted(counts))


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Named(nn.Module):
    def forward(self, x: Tensor) -> Pair:
        values, indices = torch.topk(x, 2)
        return Pair(values, indices.to(torch.float32))


class Statistics(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(x).abs()
        q = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return torch.cumsum(spectrum, -1).log1p() / (q + x.std(dim=-1, keepdim=True))


class Complicated(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        order = x.argsort(dim=-1, descending=True)
        picked = torch.gather(x, -1, order)
        parts = picked.chunk(2, dim=-1)
        grid = torch.stack(torch.meshgrid(parts[0][0], parts[1][0], indexing="ij"))
        return [grid.flip(0), picked.new_zeros(2, 3).fill_(1.0), x.unfold(-1, 2, 1)]


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 5, stride=2, dilation=1)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.act = nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.conv(x[:, None]))
        return self.weighted(hidden.transpose(1, 2)).amax(1)


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(30, 4, mode="mean")
        self.bilinear = nn.Bilinear(4, 4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.bag(tokens)
        return self.bilinear(found, found.sigmoid()).log_softmax(-1)


class Vision(nn.Module):
    """A patch embedding, a class token and attention, as ViT has them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.attention(x, x, x)[0][:, 0]


class Squeeze(nn.Module):
    """Depthwise convolutions with squeeze and excitation, as MobileNet has them."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(
            nn.Conv2d(4, 2, 1), nn.SiLU(), nn.Conv2d(2, 4, 1), nn.Hardsigmoid()
        )
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.depthwise(x), 0.1)
        x = x * self.gate(self.pool(x))
        return self.shuffle(x)


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.CrossEntropyLoss(label_smoothing=0.1)

    def forward(self, x: Tensor) -> Tensor:
        target = torch.zeros(x.shape[0], dtype=torch.int64)
        return self.cross(x, target) + F.smooth_l1_loss(x, torch.zeros_like(x))


class Coder(nn.Module):
    """A decoder with a causal mask and tied weights, as language models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.position = nn.Embedding(16, 8)
        self.layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.embed(tokens) + self.position(places)
        mask = torch.triu(torch.full((x.shape[1], x.shape[1]), -1e9), diagonal=1)
        return self.head(self.layer(x, x, tgt_mask=mask, memory_mask=mask))


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Language(nn.Module):
    """TorchScript's language: enums, dicts, texts, threads, loops, messages."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = Colour.GREEN
        self.sizes = {"a": 1, "b": 2}
        self.missing: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.colour == Colour.RED:
            x = -x
        started = torch.jit.fork(torch.relu, x)
        x = x + torch.jit.wait(started)
        for name, size in self.sizes.items():
            x = x + size + len(name)
        with torch.no_grad():
            x = x * 2
        count = 3
        parts = "x%dy".replace("%d", str(count)).upper().split("X")
        numbers = {1: [1.0, float("inf"), -float("inf")]}
        while count > 0:
            if count == 2:
                x = x - 1
            count -= 1
        print("shape", x.shape)
        assert len(parts) > 0, "it's empty"
        return x + numbers[1][0] + x.shape[-1] // 2 + int(x.size(0) ** 2)


class OddNames(nn.Module):
    """Names of layers that are no identifiers, or are those of operators."""

    def __init__(self) -> None:
        super().__init__()
        layers = {"a b": nn.Linear(8, 8), "lambda": nn.ReLU(), "save": nn.Tanh()}
        self.layers = nn.ModuleDict(layers)
        self.seed = nn.Parameter(torch.zeros(8))
        self.backward_layer = nn.BatchNorm1d(8)
        self.turn = torch.complex(torch.ones(8), torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return self.backward_layer(x + self.seed) * self.turn.real


class Branches(nn.Module):
    """Control flow that depends on values, without gradients and in half precision."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))
        with torch.no_grad():
            x = x + 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = x @ x.T
        return x.float()


class Counts(nn.Module):
    """Sizes that only the values tell, and what has to hold of them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        count: Any = x.sum().to(torch.int64).item()
        torch._check(count >= 0)
        torch._check(count < 100)
        return torch.zeros(count + 1), torch.nonzero(x)


class Sizes(nn.Module):
    """Arithmetic with sizes."""

    def forward(self, x: Tensor) -> list[Tensor]:
        rows = x.shape[0]
        return [
            x.new_ones(rows**2 + x.shape[1] ** 3),
            x.sum() / math.sqrt(rows),
            torch.arange(0, rows, 2),
            x[: rows // 2 + 1],
            F.interpolate(x[None, None], scale_factor=1.7),
        ]


_IMAGE = (torch.rand(2, 3, 16, 16),)
_PLANES = (torch.rand(2, 4, 8, 8),)
_TOKENS = (torch.randint(0, 20, (2, 6)),)
_ROWS = (torch.rand(4, 8),)

Example = tuple[Callable[[], nn.Module], tuple[Tensor, ...]]

ORDINARY: dict[str, Example] = {
    "convolutions": (Convolutions, _IMAGE),
    "residual": (Residual, _PLANES),
    "rnn": (lambda: Recurrent(nn.RNN), _TOKENS),
    "lstm": (lambda: Recurrent(nn.LSTM), _TOKENS),
    "gru": (lambda: Recurrent(nn.GRU), _TOKENS),
    "cells": (Cells, (torch.rand(2, 3, 4),)),
    "attention": (
        Attention,
        (torch.rand(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)),
    ),
    "transformer": (Transformer, (torch.rand(2, 5, 8),)),
    "control": (Control, _ROWS),
    "named": (Named, _ROWS),
    "statistics": (Statistics, _ROWS),
    "complicated": (Complicated, _ROWS),
    "signal": (Signal, (torch.rand(2, 32),)),
    "bags": (Bags, _TOKENS),
    "vision": (Vision, _IMAGE),
    "squeeze": (Squeeze, _PLANES),
    "loss": (Loss, _ROWS),
    "coder": (Coder, _TOKENS),
    "language": (Language, _ROWS),
    "odd_names": (OddNames, _ROWS),
    "branches": (Branches, _ROWS),
    "counts": (Counts, _ROWS),
    "sizes": (Sizes, _ROWS),
}
"""Name → what builds the model, and example inputs."""
