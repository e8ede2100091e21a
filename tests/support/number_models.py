"""Models whose numbers aren't all float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FourierLayer(nn.Module):
    """Complex weights on a spectrum, as in a Fourier neural operator."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, 3, dtype=torch.complex64))
        self.skip = nn.Linear(4, 4)

    def forward(self, features: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(features.transpose(1, 2))
        low = torch.einsum("bix,iox->box", spectrum[..., :3], self.weight)
        rest = torch.zeros_like(spectrum[..., 3:])
        mixed = torch.fft.irfft(torch.cat([low, rest], -1), n=features.shape[1])
        return mixed.transpose(1, 2) + self.skip(features)


class Rotations(nn.Module):
    """A table of complex rotations that no state dict holds, as Llama's freqs_cis."""

    freqs_cis: Tensor

    def __init__(self) -> None:
        super().__init__()
        angles = torch.outer(torch.arange(64).float(), torch.tensor([1.0, 0.1]))
        table = torch.polar(torch.ones_like(angles), angles)
        self.register_buffer("freqs_cis", table, persistent=False)
        self.head = nn.Linear(4, 4)

    def forward(self, features: Tensor) -> Tensor:
        x = self.head(features)
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        rotated = pairs * self.freqs_cis[: x.shape[1]]
        return torch.view_as_real(rotated).flatten(2).type_as(x)


class StateSpace(nn.Module):
    """A kernel out of complex parameters, as in S4."""

    def __init__(self) -> None:
        super().__init__()
        self.poles = nn.Parameter(torch.complex(-torch.rand(8) / 4, torch.randn(8)))
        self.readout = nn.Parameter(torch.randn(4, 8, dtype=torch.complex64))

    def forward(self, features: Tensor) -> Tensor:
        steps = torch.ones_like(features[0, :, 0]).cumsum(0) - 1
        kernel = torch.exp(self.poles[:, None] * steps)
        return features * (self.readout @ kernel).real.T


class DoubleBuffer(nn.Module):
    """A float64 buffer whose digits float32 doesn't have."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4)
        self.register_buffer("offset", torch.tensor(1 + 1e-12, dtype=torch.float64))

    def forward(self, features: Tensor) -> Tensor:
        fine = (self.offset - 1) * 1e12
        return self.head(features) * fine.float()


class Double(nn.Module):
    """Works in float64 throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4).double()

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features)


class BFloat16(nn.Module):
    """Works in bfloat16 between float32 inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4).bfloat16()

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.head(features.bfloat16())).float()


class Float16(nn.Module):
    """Works in float16 between float32 inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 4).half()

    def forward(self, features: Tensor) -> Tensor:
        return torch.tanh(self.head(features.half())).float()
