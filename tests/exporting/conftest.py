"""Fixtures of the exporters' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.exports import TORCH_FORMATS, export_with_torch


@pytest.fixture(scope="session")
def torch_files(
    figure: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The figure in each of torch's formats: name → file, config.json beside it."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        format: export_with_torch(format, figure, folder / format)
        for format in TORCH_FORMATS
    }
