"""The config.json that belongs to an artifact: beside it, or inside its archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

from checkpoint_release.core.artifacts.config import (
    CONFIG,
    ModelConfig,
    parse_config,
    read_config,
)
from checkpoint_release.core.errors import ArtifactError

_INSIDE = f"/extra/{CONFIG}"  # where torch keeps the extra files of its archives


def find_config(path: Path) -> ModelConfig | None:
    """The config.json in a folder, beside a file, or inside an archive.

    Returns:
        None: there is none that this library wrote.

    Raises:
        ArtifactError: it is damaged.
    """
    config = read_config(_folder_of(path))
    if config is not None or not path.is_file() or not zipfile.is_zipfile(path):
        return config
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(_INSIDE):
                return parse_config(archive.read(name), f"{path}: {name}")
    return None


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
