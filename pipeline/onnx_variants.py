"""Smaller ONNX files beside the float32 one: float16 weights, and dynamic int8."""

from pathlib import Path
from typing import Any
from pipeline.signature import Signature


def write_variant(precision: str, file: Path, signature: Signature, opset: int, ir_version: int) -> dict[str, Any]:
    raise NotImplementedError
