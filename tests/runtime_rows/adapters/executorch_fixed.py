"""ExecuTorch by its portable kernels, at the sizes of the first case."""

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
    """A .pt2, exported again at fixed sizes once the first inputs are there."""
    exported = torch.export.load(file)
    names = [str(name) for name in exported.graph_signature.user_inputs]
    lowered: list[Any] = []

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        tensors = [torch.from_numpy(inputs[name]) for name in names]
        if not lowered:
            fixed = torch.export.export(exported.module(), tuple(tensors))
            edge = to_edge(fixed).to_executorch()
            program = Runtime.get().load_program(edge.buffer)
            _ALIVE.extend((edge, program))
            lowered.append(program.load_method("forward"))
        found = lowered[0].execute(tensors)
        arrays = [tensor.clone().numpy() for tensor in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
