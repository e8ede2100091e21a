"""The model of this release for transformers' AutoModel.

`model_code.py` imports the function that builds it; the modules beside this file are
the model's own.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from .configuration_release import ReleaseConfig
from .model_code import build_model


class ReleaseModel(PreTrainedModel):
    """The model, under the names of weights that it has itself."""

    config_class = ReleaseConfig
    base_model_prefix = "model"

    def __init__(self, config: ReleaseConfig) -> None:
        super().__init__(config)
        # On a device that holds values: what the constructor computes and no file has
        # would be lost.
        with torch.device("cpu"):
            self.model = build_model(**config.kwargs)
        names = [output["name"] for output in config.signature["outputs"]]
        self._outputs: Any = namedtuple("Outputs", names)  # type: ignore[misc]
        # transformers gives memory of any content to buffers that no file has
        self._computed = {
            name: buffer.clone() for name, buffer in self.model.named_buffers()
        }
        self.post_init()

    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The outputs by name, as config.json lists them."""
        return self._outputs(*_tensors(self.model(*args, **inputs)))

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Give back what the model's constructor computed and the weights lack."""
        in_file = self.model.state_dict().keys()
        for name, buffer in self.model.named_buffers():
            if name not in in_file:
                buffer.copy_(self._computed[name])


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a nest of mappings, sequences and dataclasses, in order."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    members: Any = value or ()
    if isinstance(value, Mapping):
        members = value.values()
    elif dataclasses.is_dataclass(value):
        members = [getattr(value, field.name) for field in dataclasses.fields(value)]
    for member in members:
        yield from _tensors(member)
