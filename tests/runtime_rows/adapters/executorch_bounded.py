"""ExecuTorch by its portable kernels, from the exported program with upper bounds.

ExecuTorch plans memory for the largest sizes. Where a dimension has no upper bound it
takes the example's size for one, so the program is exported once more, with bounds.

ExecuTorch 1.5 checks a lowered program by running it on symbols, and that check makes
the batch the example's, for good. So it is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from executorch.exir import EdgeCompileConfig, to_edge
from executorch.runtime import Runtime

PACKAGE = "executorch"
LARGEST = 256
_ALIVE: list[Any] = []
"""What a method goes on reading: the buffer that was loaded, and its program."""


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A .pt2, exported again and lowered on the spot."""
    exported = torch.export.load(file)
    tensors = inputs_of(exported)
    names = list(tensors)
    example = tuple(example_of(tensor) for tensor in tensors.values())
    bounded = torch.export.export(
        exported.module(), example, dynamic_shapes=bounds(tensors)
    )
    unchecked = EdgeCompileConfig(_check_ir_validity=False)
    lowered = to_edge(bounded, compile_config=unchecked).to_executorch()
    program = Runtime.get().load_program(lowered.buffer)
    _ALIVE.extend((lowered, program))
    method = program.load_method("forward")

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = method.execute([torch.from_numpy(inputs[name]) for name in names])
        arrays = [tensor.clone().numpy() for tensor in found]
        return dict(zip(outputs, arrays, strict=True))

    return run


def inputs_of(exported: torch.export.ExportedProgram) -> dict[str, Any]:
    """Name of an input → what the program knows of it; a dynamic size is a symbol."""
    values = {}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            values[node.name] = node.meta["val"]
    return {str(name): values[name] for name in exported.graph_signature.user_inputs}


def example_of(tensor: Any) -> torch.Tensor:
    """Zeros of its dtype, each dynamic size from its symbol's digits: s12 is 14."""
    sizes = []
    for size in tensor.shape:
        is_dynamic = isinstance(size, torch.SymInt)
        sizes.append(2 + int(str(size).strip("s")) if is_dynamic else int(size))
    return torch.zeros(sizes, dtype=tensor.dtype)


def bounds(tensors: Mapping[str, Any]) -> tuple[dict[int, Any], ...]:
    """For each input: axis → dimension with an upper bound, of the dynamic ones."""
    dimensions: dict[str, Any] = {}
    found = []
    for tensor in tensors.values():
        axes = {}
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, torch.SymInt):
                name = str(size)
                bound = torch.export.Dim(f"size_{name}", min=1, max=LARGEST)
                axes[axis] = dimensions.setdefault(name, bound)
        found.append(axes)
    return tuple(found)
