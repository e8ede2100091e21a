"""IREE on the CPU, compiled on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import iree.compiler.tools.import_onnx.__main__ as import_onnx
import iree.runtime
import numpy as np
import onnx
from iree.compiler.tools import compile_file

PACKAGE = "iree-base-runtime"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An ONNX file."""
    names = [value.name for value in onnx.load(file).graph.input]
    with TemporaryDirectory() as folder:
        mlir = Path(folder) / "model.mlir"
        arguments = import_onnx.parse_arguments([str(file), "-o", str(mlir)])
        import_onnx.main(arguments)
        binary = compile_file(
            str(mlir),
            input_type="onnx",
            target_backends=["llvm-cpu"],
            extra_args=["--iree-llvmcpu-target-cpu=host"],
        )
    config = iree.runtime.Config("local-task")
    module = iree.runtime.VmModule.copy_buffer(config.vm_instance, binary)
    loaded = iree.runtime.load_vm_modules(module, config=config)[-1]
    (name,) = [each for each in loaded.vm_module.function_names if "$" not in each][:1]

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = loaded[name](*[inputs[each] for each in names])
        arrays = [np.asarray(value.to_host()) for value in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
