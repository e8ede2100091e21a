"""Models of the library diffusers, by their configuration alone.

configuration  config.json, read and kept as the factory's arguments
building       the model of a configuration
interface      inputs by the model's class, outputs by a run without data

    model:
      factory: checkpoint_release.models.diffusers:build
      source: ../runs/unet
      kwargs: {config: ../runs/unet}  # the folder, or its config.json

A release of such a model is one of diffusers' own: `from_pretrained` of its class
builds it without any code of this project. torch and diffusers are imported only where
a model is built or probed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoint_release.models.diffusers.configuration import (
    config,
    describe,
    read_architecture,
)
from checkpoint_release.models.diffusers.interface import signature

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "WEIGHTS_INDEX",
    "build",
    "config",
    "describe",
    "read_architecture",
    "signature",
]

WEIGHTS_INDEX = "diffusion_pytorch_model.safetensors.index.json"
"""Where diffusers looks for which file holds which weight; its own name for a single
file is another than a release's.
"""


def build(**kwargs: Any) -> nn.Module:
    """The model with random weights.

    Args:
        kwargs: the content of its config.json.

    Raises:
        ValueError: diffusers has no such model.
    """
    from checkpoint_release.models.diffusers.building import build_model

    return build_model(kwargs)
