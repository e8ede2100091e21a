"""A checkpoint and unchanged exports of it, for all tests of parity."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.parity_world import World, stick_figure_architecture


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.create(tmp_path_factory.mktemp("world"), stick_figure_architecture())


@pytest.fixture(scope="session")
def exported(world: World) -> dict[str, Path]:
    """Unchanged exports of the world's checkpoint."""
    return {
        format: world.export(format, world.folder / format)
        for format in ("safetensors", "onnx", "torchscript")
    }
