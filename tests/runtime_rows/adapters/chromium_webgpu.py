"""onnxruntime-web in Chromium, on WebGPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from checkpoint_release.page.npm import runtime_package
from tests.runtime_rows.chromium import load_on

VERSION = runtime_package().version


def load(file: Path, outputs: list[str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The ONNX file in a release's folder."""
    return load_on("webgpu", file.parents[1])
