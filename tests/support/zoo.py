"""Families of small random models, for checks that right exports pass and wrong ones
don't.

Each family is a function that builds a module; its weights are those of torch's seed.
What a family takes follows from its group: rows of numbers, sequences, images, tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.stated_signature import read_signature

WIDTH = 8

INPUTS: dict[str, dict[str, Any]] = {
    "rows": {"name": "x", "shape": ["batch", WIDTH]},
    "sequence": {"name": "x", "shape": ["batch", "length", WIDTH]},
    "images": {"name": "x", "shape": ["batch", 4, 12, 10]},
    "tokens": {
        "name": "x",
        "dtype": "int64",
        "shape": ["batch", "length"],
        "low": 0,
        "high": 13,
    },
}
"""Group → the input of its models."""

DIMENSIONS = {"length": {"example": 6, "maximum": 40}}

FAMILIES: dict[str, tuple[str, Callable[[], nn.Module], list[dict[str, Any]]]] = {}
"""Name → group, what builds the module, and its outputs."""

Build = Callable[[], nn.Module]


class Apply(nn.Module):
    """A function of the input."""

    def __init__(self, function: Callable[[Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def build(family: str) -> nn.Module:
    """The model of a family: the factory that an architecture names."""
    module = FAMILIES[family][1]()
    return Apply(lambda x: module(x), module=module)


def architecture(family: str) -> Architecture:
    """The architecture of a family."""
    group, _, outputs = FAMILIES[family]
    stated: dict[str, Any] = {"inputs": [INPUTS[group]], "outputs": outputs}
    if "length" in INPUTS[group]["shape"]:
        stated["dimensions"] = DIMENSIONS
    signature = read_signature(stated)
    return Architecture(f"{__name__}:build", {"family": family}, signature)


def family(
    group: str, *outputs: dict[str, Any], name: str | None = None
) -> Callable[[Build], Build]:
    """Register what builds a module, by its name.

    Args:
        group: of INPUTS.
        outputs: in the signature's form; none: one of floats.
        name: None: the function's.
    """

    def register(build: Build) -> Build:
        listed = list(outputs) or [{"name": "y"}]
        FAMILIES[name or build.__name__] = (group, build, listed)
        return build

    return register


def mlp(*between: nn.Module, shift: float = 0.0) -> nn.Module:
    """A layer, something, a layer.

    Args:
        between: modules after the first layer.
        shift: added to the first layer's bias, to reach tails.
    """
    first, last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)
    with torch.no_grad():
        first.bias.add_(shift)
    return nn.Sequential(first, *between, last)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": lambda: nn.ELU(0.3),
    "celu": lambda: nn.CELU(0.7),
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "prelu": nn.PReLU,
}
for _name, _activation in ACTIVATIONS.items():
    for _shift in (0.0, -5.0, 5.0):
        _label = _name if not _shift else f"{_name} at {_shift:g}"
        family("rows", name=_label)(
            lambda activation=_activation, shift=_shift: mlp(activation(), shift=shift)  # type: ignore[misc]
        )


def sigmoid_head(shift: float) -> nn.Module:
    """Ends in a sigmoid, its tail where the shift is negative."""
    last = nn.Linear(WIDTH, 5)
    with torch.no_grad():
        last.bias.add_(shift)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), last, nn.Sigmoid())


for _shift in (-2.0, -4.6, -7.0, -30.0):
    family("rows", name=f"sigmoid head at {_shift:g}")(
        lambda shift=_shift: sigmoid_head(shift)  # type: ignore[misc]
    )


@family("rows")
def silu_at_minus_five() -> nn.Module:
    return nn.Sequential(mlp(nn.SiLU(), shift=-5.0), nn.LayerNorm(5))


@family("rows")
def softmax_head() -> nn.Module:
    return nn.Sequential(mlp(nn.GELU()), nn.Softmax(-1))


@family("rows")
def sharp_softmax_head() -> nn.Module:
    layers = mlp(nn.GELU())
    return Apply(lambda x: functional.softmax(30 * layers(x), -1), layers=layers)


@family("rows")
def log_softmax_head() -> nn.Module:
    return nn.Sequential(mlp(nn.ReLU()), nn.LogSoftmax(-1))


@family("rows")
def sure_log_softmax() -> nn.Module:
    layers = mlp(nn.ReLU())
    return Apply(lambda x: functional.log_softmax(40 * layers(x), -1), layers=layers)


@family("rows")
def layer_norm() -> nn.Module:
    return mlp(nn.LayerNorm(WIDTH), nn.ReLU())


@family("rows")
def batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(WIDTH)
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.3, 3)  # type: ignore[union-attr]
    return mlp(norm, nn.ReLU())


class RMSNorm(nn.Module):
    """By hand, as many models have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean + 1e-6) * self.weight


@family("rows")
def rms_norm() -> nn.Module:
    return mlp(RMSNorm(), nn.SiLU())


@family("images")
def group_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.GroupNorm(3, 6), nn.SiLU())


@family("images")
def instance_norm() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 6, 3), nn.InstanceNorm2d(6, affine=True))


@family("images")
def convolution_and_batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(6)
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.3, 3)  # type: ignore[union-attr]
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(4, 6, 3), norm, nn.ReLU(), pool, nn.Flatten())


@family("images")
def strided_and_depthwise_convolutions() -> nn.Module:
    depthwise = nn.Conv2d(6, 6, 3, groups=6, dilation=2, padding=2)
    return nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), depthwise, nn.Hardswish())


@family("images")
def transposed_convolution() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1), nn.Tanh())


@family("images")
def pooling() -> nn.Module:
    largest, mean = nn.MaxPool2d(3, 2), nn.AvgPool2d(2, ceil_mode=True)
    return nn.Sequential(nn.Conv2d(4, 5, 3), largest, mean)


@family("images")
def upsampling() -> nn.Module:
    nearest = nn.Upsample(scale_factor=2, mode="nearest")
    return nn.Sequential(nn.Conv2d(4, 5, 3), nearest, nn.Conv2d(5, 2, 1))


@family("images")
def bilinear_upsampling() -> nn.Module:
    bilinear = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(nn.Conv2d(4, 5, 3), bilinear)


@family("images")
def squeeze_and_excitation() -> nn.Module:
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
    return Apply(lambda x: x * squeeze(x), squeeze=squeeze)


@family("images")
def a_mean_of_many() -> nn.Module:
    layer = nn.Conv2d(4, 64, 1)
    return Apply(lambda x: layer(x).mean((1, 2, 3), keepdim=True), layer=layer)


def recurrent(layer: nn.RNNBase) -> nn.Module:
    """A recurrent layer, and a linear one on what it gives."""
    directions = 2 if layer.bidirectional else 1
    last = nn.Linear(layer.hidden_size * directions, 4)
    return Apply(lambda x: last(layer(x)[0]), layer=layer, last=last)


@family("sequence")
def gru() -> nn.Module:
    return recurrent(nn.GRU(WIDTH, 7, batch_first=True))


@family("sequence")
def gru_in_both_directions() -> nn.Module:
    return recurrent(nn.GRU(WIDTH, 7, batch_first=True, bidirectional=True))


@family("sequence")
def lstm() -> nn.Module:
    return recurrent(nn.LSTM(WIDTH, 7, batch_first=True))


@family("sequence")
def two_layers_of_lstm() -> nn.Module:
    return recurrent(nn.LSTM(WIDTH, 7, 2, batch_first=True))


@family("sequence")
def rnn() -> nn.Module:
    return recurrent(nn.RNN(WIDTH, 7, batch_first=True))


class Attention(nn.Module):
    """Attention with two heads.

    Args:
        mask: sizes of queries and keys → what is added to the scores; None: nothing.
    """

    def __init__(self, mask: Callable[[int], Tensor] | None = None) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = self.project(x).view(batch, length, 3, 2, WIDTH // 2)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // 2)
        if self.mask is not None:
            scores = scores + self.mask(length)
        mixed = scores.softmax(-1) @ value
        merged = mixed.transpose(1, 2).reshape(batch, length, WIDTH)
        output: Tensor = self.last(merged)
        return output


def causal(length: int) -> Tensor:
    """Nothing is seen of what comes later."""
    positions = torch.arange(length)
    later = positions[None, :] > positions[:, None]
    return torch.where(later, float("-inf"), 0.0)


@family("sequence")
def attention() -> nn.Module:
    return Attention()


@family("sequence")
def causal_attention() -> nn.Module:
    return Attention(causal)


@family("sequence")
def attention_with_distances() -> nn.Module:
    def distances(length: int) -> Tensor:
        positions = torch.arange(length)
        return -0.1 * (positions[None, :] - positions[:, None]).abs()

    return Attention(distances)


class Rotary(nn.Module):
    """Pairs of numbers rotated by their positions."""

    def __init__(self) -> None:
        super().__init__()
        exponents = torch.arange(0, WIDTH, 2) / WIDTH
        self.register_buffer("inv_freq", 10000.0**-exponents)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], dtype=x.dtype)
        angles = positions[:, None] * self.get_buffer("inv_freq")
        first, second = x.chunk(2, -1)
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


@family("sequence")
def rotary_attention() -> nn.Module:
    return nn.Sequential(Rotary(), Attention(causal))


@family("sequence")
def transformer_block() -> nn.Module:
    attention, first, second = Attention(causal), nn.LayerNorm(WIDTH), RMSNorm()
    feed = nn.Sequential(nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, WIDTH))

    def forward(x: Tensor) -> Tensor:
        x = x + attention(first(x))
        return x + feed(second(x))

    parts = {"attention": attention, "first": first, "second": second, "feed": feed}
    return Apply(forward, **parts)


@family("sequence")
def mean_over_the_length() -> nn.Module:
    layers = mlp(nn.GELU())
    return Apply(lambda x: layers(x).mean(1), layers=layers)


@family("sequence")
def cumulated() -> nn.Module:
    layers = mlp(nn.Tanh())
    return Apply(lambda x: layers(x).cumsum(1), layers=layers)


@family("tokens")
def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(13, WIDTH), mlp(nn.ReLU()))


@family("tokens", {"name": "y"}, {"name": "best", "dtype": "int64"})
def language_model() -> nn.Module:
    table = nn.Embedding(13, WIDTH)
    layers = nn.Sequential(table, RMSNorm(), Attention(causal))

    def forward(x: Tensor) -> dict[str, Tensor]:
        logits = layers(x) @ table.weight.T
        return {"y": logits, "best": logits.argmax(-1)}

    return Apply(forward, layers=layers)


@family("tokens", {"name": "y"}, {"name": "x_again", "dtype": "int64"})
def exact_outputs() -> nn.Module:
    table = nn.Embedding(13, WIDTH)
    return Apply(lambda x: {"y": table(x), "x_again": x + 1}, table=table)


@family("rows", {"name": "y"}, {"name": "positive", "dtype": "bool"})
def booleans() -> nn.Module:
    layers = mlp(nn.ELU())

    def forward(x: Tensor) -> dict[str, Tensor]:
        y = layers(x)
        return {"y": y, "positive": y > 0}

    return Apply(forward, layers=layers)


@family("rows", {"name": "tiny"}, {"name": "huge"})
def tiny_and_huge_outputs() -> nn.Module:
    layers = mlp(nn.Softsign())

    def forward(x: Tensor) -> dict[str, Tensor]:
        y = layers(x)
        return {"tiny": y * 1e-20, "huge": y * 1e20}

    return Apply(forward, layers=layers)


@family("rows", {"name": "y"}, {"name": "nothing"})
def empty_output() -> nn.Module:
    layers = mlp(nn.ReLU())

    def forward(x: Tensor) -> dict[str, Tensor]:
        y = layers(x)
        return {"y": y, "nothing": y[:, :0]}

    return Apply(forward, layers=layers)


@family("rows")
def cancelling() -> nn.Module:
    layers = mlp(nn.Tanh())
    return Apply(lambda x: layers(x) - layers(x + 1e-3), layers=layers)


@family("rows")
def sines_of_positions() -> nn.Module:
    frequencies = torch.arange(1, WIDTH + 1) * math.pi
    layers = mlp(nn.ReLU())
    return Apply(lambda x: layers(torch.sin(x * frequencies)), layers=layers)


@family("rows")
def powers_and_roots() -> nn.Module:
    layers = mlp(nn.ReLU())
    return Apply(lambda x: layers((x * x + 0.1).sqrt() + x.abs() ** 1.7), layers=layers)


@family("rows")
def exponentials_and_logarithms() -> nn.Module:
    layers = mlp(nn.ReLU())
    return Apply(lambda x: layers(torch.log1p(torch.exp(-x.abs()))), layers=layers)


@family("rows")
def cosine_similarity() -> nn.Module:
    layers = mlp(nn.ReLU())
    return Apply(lambda x: functional.normalize(layers(x), dim=-1), layers=layers)


@family("rows")
def standardised_by_hand() -> nn.Module:
    layers = mlp(nn.ReLU())

    def forward(x: Tensor) -> Tensor:
        y = layers(x)
        return (y - y.mean(-1, keepdim=True)) / (y.std(-1, keepdim=True) + 1e-5)

    return Apply(forward, layers=layers)


@family("rows")
def residual_network() -> nn.Module:
    blocks = nn.ModuleList(
        [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU()) for _ in range(12)]
    )

    def forward(x: Tensor) -> Tensor:
        for block in blocks:
            x = x + block(x)
        return x

    return Apply(forward, blocks=blocks)
