"""optimum, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optimum.onnxruntime import ORTModelForCustomTasks

PACKAGE = "optimum"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A release's folder, whose code is trusted."""
    model = ORTModelForCustomTasks.from_pretrained(str(file), trust_remote_code=True)

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = model(**inputs)
        return {name: found[name] for name in outputs}

    return run
