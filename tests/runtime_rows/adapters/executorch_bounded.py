"""ExecuTorch by its portable kernels, from the exported program with upper bounds.

ExecuTorch plans memory for the largest sizes. Where a dimension has no upper bound it
takes the example's size for one, so the program is exported once more, with bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from executorch.exir import to_edge
from executorch.runtime import Runtime

PACKAGE = "executorch"
LARGEST = 512


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A .pt2, exported again and lowered on the spot."""
    exported = torch.export.load(file)
    example, _ = exported.example_inputs
    names = list(inputs_of(exported))
    bounded = torch.export.export(
        exported.module(), example, dynamic_shapes=bounds(inputs_of(exported))
    )
    lowered = to_edge(bounded).to_executorch()
    method = Runtime.get().load_program(lowered.buffer).load_method("forward")

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = method.execute([torch.from_numpy(inputs[name]) for name in names])
        arrays = [tensor.clone().numpy() for tensor in found]
        return dict(zip(outputs, arrays, strict=True))

    return run


def inputs_of(exported: torch.export.ExportedProgram) -> dict[str, Any]:
    """Name of an input → its shape, in which a dynamic size is a symbol."""
    values = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = node.meta["val"]
    shapes = {}
    for name in exported.graph_signature.user_inputs:
        shapes[str(name)] = values[name].shape
    return shapes


def bounds(shapes: Mapping[str, Any]) -> tuple[dict[int, Any], ...]:
    """For each input: axis → dimension with an upper bound, of the dynamic ones."""
    dimensions: dict[str, Any] = {}
    found = []
    for shape in shapes.values():
        axes = {}
        for axis, size in enumerate(shape):
            if isinstance(size, torch.SymInt):
                name = str(size)
                bound = torch.export.Dim(f"size_{name}", min=1, max=LARGEST)
                axes[axis] = dimensions.setdefault(name, bound)
        found.append(axes)
    return tuple(found)
