"""Which files of the formats go into a release, and where they lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from checkpoint_release.core.artifacts.config import CONFIG
from checkpoint_release.core.artifacts.formats import FORMATS, SAFETENSORS
from checkpoint_release.core.artifacts.manifest import Manifest
from checkpoint_release.core.files import FileEntry


@dataclass(frozen=True)
class ReleasedFile:
    """A file of a format in a release.

    Attributes:
        name: its path in the release.
        format: the name of its format.
        path: where it lies in the format's folder.
        entry: its size and digest.
    """

    name: str
    format: str
    path: str
    entry: FileEntry


def released_files(formats: Mapping[str, Manifest]) -> list[ReleasedFile]:
    """The files of all formats, in the order of the formats and of their manifests.

    Of a config.json that is the same as the one in the root, no copy goes along: ONNX,
    TorchScript and .pt2 hold their signature themselves.

    Args:
        formats: name → manifest, of those that are switched on.
    """
    root = None
    if SAFETENSORS.name in formats:
        root = formats[SAFETENSORS.name].files.get(CONFIG)
    files = []
    for format, manifest in formats.items():
        for path, entry in manifest.files.items():
            is_root = format == SAFETENSORS.name
            if path == CONFIG and entry == root and not is_root:
                continue
            name = FORMATS[format].path_in_release(path)
            files.append(ReleasedFile(name, format, path, entry))
    return files
