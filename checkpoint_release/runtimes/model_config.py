"""The config.json that belongs to an artifact: beside it, or inside its archive."""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.artifacts.config import (
    CONFIG,
    ModelConfig,
    parse_config,
    read_config,
)
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.text import printable
from checkpoint_release.runtimes.torch_archive import read_extra


def find_config(path: Path) -> ModelConfig | None:
    """The config.json in a folder, beside a file, or inside an archive.

    Returns:
        None: there is none that this library wrote.

    Raises:
        ArtifactError: it is damaged.
    """
    config = read_config(_folder_of(path))
    if config is not None or not path.is_file():
        return config
    inside = read_extra(path, CONFIG)
    if inside is None:
        return None
    name, content = inside
    return parse_config(content, f"{path}: {printable(name)}")


def require_config(path: Path) -> ModelConfig:
    """The config.json of an artifact that doesn't hold its signature otherwise.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    config = find_config(path)
    if config is None:
        expected = _folder_of(path) / CONFIG
        found = "has no signature" if expected.is_file() else "is missing"
        raise ArtifactError(
            f"{expected} {found}, and {path} doesn't describe its inputs and outputs"
            " itself",
            "keep the file together with the config.json that was exported with it",
        )
    return config


def _folder_of(path: Path) -> Path:
    """The folder itself, or the one that a file lies in."""
    return path if path.is_dir() else path.parent
