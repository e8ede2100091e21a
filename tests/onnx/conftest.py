"""Fixtures of the ONNX tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.exports import export_to_onnx


@pytest.fixture(scope="session")
def onnx_files(figure: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The figure at opset 17 by the direct route, with both variants."""
    folder = tmp_path_factory.mktemp("onnx") / "onnx"
    export_to_onnx(figure, folder, variants=["float16", "int8"])
    return folder
