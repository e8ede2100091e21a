"""ONNX Runtime on the CPU; an .ort file as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

PACKAGE = "onnxruntime"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A file with its own threads."""
    session = onnxruntime.InferenceSession(str(file))

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(outputs, session.run(outputs, inputs), strict=True))

    return run
