"""The embedding of a diffusion's step, with its frequencies as a tensor of the model.

diffusers computes them in float32 at each call. A traced graph keeps what came out
then, which double precision computes otherwise, so that the graph couldn't be proven.
As a tensor they are the same numbers in the model and in every format.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

_LONGEST_PERIOD = 10_000


class Timesteps(nn.Module):
    """As the module of that name of diffusers."""

    frequencies: Tensor

    def __init__(self, original: Any) -> None:
        """Take the place of diffusers' module.

        Args:
            original: that module.
        """
        super().__init__()
        self.flip_sin_to_cos: bool = original.flip_sin_to_cos
        self.scale: float = original.scale
        self.is_odd = original.num_channels % 2 == 1
        half = original.num_channels // 2
        powers = -math.log(_LONGEST_PERIOD) * torch.arange(half, dtype=torch.float32)
        powers = powers / (half - original.downscale_freq_shift)
        self.register_buffer("frequencies", torch.exp(powers), persistent=False)

    def forward(self, timesteps: Tensor) -> Tensor:
        """Sines and cosines of the steps.

        Args:
            timesteps: (batch,).

        Returns:
            Float32 of shape (batch, num_channels).
        """
        angles = self.scale * (timesteps[:, None].float() * self.frequencies[None, :])
        parts = [torch.sin(angles), torch.cos(angles)]
        if self.flip_sin_to_cos:
            parts.reverse()
        embedding = torch.cat(parts, dim=-1)
        return nn.functional.pad(embedding, (0, 1)) if self.is_odd else embedding


def with_kept_frequencies(model: nn.Module) -> nn.Module:
    """The model with this module in the places of diffusers' own.

    Args:
        model: it is changed.
    """
    from diffusers.models import embeddings

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is embeddings.Timesteps:
                setattr(parent, name, Timesteps(child))
    return model
