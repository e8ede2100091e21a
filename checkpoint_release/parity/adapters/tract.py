"""tract, an engine in Rust, by its Python package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tract

PACKAGE = "tract"


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An ONNX file, optimised for the sizes that it is run with.

    Args:
        file: the ONNX file.
        outputs: names, in the file's order.
    """
    model = tract.onnx().load(str(file))
    names = [model.input_name(number) for number in range(model.input_count())]
    runnable = model.into_model().into_runnable()

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = runnable.run([inputs[name] for name in names])
        arrays = [value.to_numpy() for value in found]
        return dict(zip(outputs, arrays, strict=True))

    return run
