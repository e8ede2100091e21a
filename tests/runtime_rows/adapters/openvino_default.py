"""OpenVINO on the CPU, in whatever precision it chooses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino

PACKAGE = "openvino"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An ONNX file, compiled."""
    compiled = openvino.Core().compile_model(file, "CPU")

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = compiled(inputs)
        return {name: found[name] for name in outputs}

    return run
