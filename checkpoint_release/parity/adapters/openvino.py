"""OpenVINO on the CPU, in float32; by itself it takes bfloat16 where the CPU can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino

PACKAGE = "openvino"


def load(
    file: Path, outputs: list[str], precision: str | None = "f32"
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An ONNX file, compiled.

    Args:
        file: the ONNX file.
        outputs: names, in the file's order.
        precision: what to compute in; None leaves that to OpenVINO.
    """
    options = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    compiled = openvino.Core().compile_model(file, "CPU", options)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = compiled(inputs)
        return {name: found[name] for name in outputs}

    return run
