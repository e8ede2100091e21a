"""ExecuTorch by its portable kernels, from the exported program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from executorch.exir import to_edge
from executorch.runtime import Runtime

PACKAGE = "executorch"
_ALIVE: list[Any] = []
"""What a method goes on reading: the buffer that was loaded, and its program."""


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A .pt2, lowered on the spot."""
    exported = torch.export.load(file)
    names = [
        spec.arg.name
        for spec in exported.graph_signature.input_specs
        if spec.kind.name == "USER_INPUT"
    ]
    lowered = to_edge(exported).to_executorch()
    program = Runtime.get().load_program(lowered.buffer)
    _ALIVE.extend((lowered, program))
    method = program.load_method("forward")

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = method.execute([torch.from_numpy(inputs[name]) for name in names])
        arrays = [tensor.clone().numpy() for tensor in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
