"""LiteRT, from the release's own model code, at the sizes of the first case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from transformers import AutoModel

PACKAGE = "litert-torch"


class ByPosition(torch.nn.Module):
    """The model with a tuple of outputs, and its inputs by position."""

    def __init__(self, model: torch.nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tensors in the order of the names."""
        found = self.model(**dict(zip(self.names, tensors, strict=True)))
        return tuple(found)


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A release's folder, whose code is trusted."""
    model = AutoModel.from_pretrained(str(file), trust_remote_code=True).eval()
    converted: list[Any] = []

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        names = list(inputs)
        tensors = tuple(torch.from_numpy(array) for array in inputs.values())
        if not converted:
            module = ByPosition(model, names)
            converted.append(litert_torch.convert(module, tensors))
        # it has no integers of 64 bits
        narrow = [t.int() if t.dtype == torch.int64 else t for t in tensors]
        found = converted[0](*narrow)
        arrays = [np.asarray(array) for array in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
