"""Models of the library transformers, by their configuration alone.

configuration  config.json, read and kept as the factory's arguments
interface      inputs by forward's names, outputs by a run without data
names          weights as transformers saves them, and as its models have them
files          tokenizers and processors, which a release carries along

    model:
      factory: checkpoint_release.models.transformers:build
      source: ../runs/tagger            # its config.json and tokenizer
      kwargs: {config: ../runs/tagger}  # the folder, the file, or a name on the Hub

A release of such a model is one of transformers' own: its config.json is the model's,
and `AutoModel.from_pretrained` builds its architecture without any code of this
project. torch and transformers are imported only where a model is built or probed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from checkpoint_release.models.transformers.configuration import (
    config,
    describe,
    read_architecture,
)
from checkpoint_release.models.transformers.files import companion_files
from checkpoint_release.models.transformers.interface import signature
from checkpoint_release.models.transformers.names import own_names

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "build",
    "companion_files",
    "config",
    "describe",
    "own_names",
    "read_architecture",
    "signature",
]


def build(**kwargs: Any) -> nn.Module:
    """The model with random weights.

    Args:
        kwargs: the content of its config.json.

    Raises:
        ValueError: transformers has no such model.
    """
    from checkpoint_release.models.transformers.building import build_model

    return build_model(kwargs)
