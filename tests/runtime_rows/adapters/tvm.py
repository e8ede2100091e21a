"""TVM's Relax on the CPU, compiled on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

PACKAGE = "apache-tvm"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An ONNX file."""
    model = onnx.load(file)
    names = [value.name for value in model.graph.input]
    compiled = tvm.compile(from_onnx(model), target="llvm")
    machine = relax.VirtualMachine(compiled, tvm.cpu())

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        arguments = [tvm.runtime.tensor(inputs[name]) for name in names]
        found = machine["main"](*arguments)
        arrays = [value.numpy() for value in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
