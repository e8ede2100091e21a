"""TorchScript in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PACKAGE = "torch"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A module that takes its inputs in the order of the files' names."""
    module = torch.jit.load(str(file)).eval()
    names = [argument.name for argument in module.forward.schema.arguments[1:]]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            found = module(*[torch.from_numpy(inputs[name]) for name in names])
        arrays = [tensor.numpy() for tensor in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
