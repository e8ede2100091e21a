"""Files of one's own that go into a release as they are: a licence, pictures, a
tokenizer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from checkpoint_release.core.artifacts.config import CONFIG
from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.text import printable
from checkpoint_release.release.front_matter import split_card

LEFT_OUT = frozenset({".gitkeep", ".gitignore", ".DS_Store", "__pycache__"})
"""Names that git and systems leave in folders; DVC's own files end in .dvc."""

_OF_THE_HUB = frozenset({".gitattributes"})
_WEIGHTS = frozenset(
    {
        *(
            ".bin",
            ".ckpt",
            ".gguf",
            ".h5",
            ".msgpack",
            ".onnx",
            ".onnx_data",
            ".pickle",
        ),
        *(".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".tflite"),
    }
)
"""Suffixes of what a program may take for the model: such files come from the pipeline,
which proves them.
"""


def extra_files(folder: Path) -> dict[str, Path]:
    """The files below a folder that go into a release.

    Args:
        folder: what {publish.extra} names.

    Returns:
        Path in the release → the file, sorted.

    Raises:
        PublishError: there is no such folder, or a file in it can't be of a release.
    """
    if not folder.is_dir():
        raise PublishError(
            f"{{publish.extra}} is {folder}, and there is no such folder",
            "correct the path, or make the folder; an empty one adds nothing",
            options=["publish.extra"],
        )
    found = {}
    for path in sorted(_files_below(folder)):
        name = path.relative_to(folder).as_posix()
        _require_releasable(path, name)
        found[name] = path
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    """All files at any depth; a linked folder isn't followed, a linked file is.

    Raises:
        PublishError: something there is neither file nor folder.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name in LEFT_OUT or path.suffix == ".dvc":
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(path)
            elif path.is_file():
                yield path
            else:
                raise PublishError(
                    f"{printable(str(path))} is no file that a release could hold",
                    "put a file in its place, or remove it",
                )


def _require_releasable(path: Path, name: str) -> None:
    """Require that a file's name is one that a release may have from a person.

    Args:
        path: of the file.
        name: its path in the release.

    Raises:
        PublishError: it isn't.
    """
    shown = printable(str(path))
    if not name.isprintable() or "\\" in name:
        raise PublishError(
            f"{shown} has a name that not every system can have", "rename the file"
        )
    if name in _OF_THE_HUB:
        raise PublishError(
            f"{shown}: the Hub writes that file itself", "remove the file"
        )
    if name == CONFIG:
        raise PublishError(
            f"{shown}: {CONFIG} states which model the release holds, and comes from"
            " the pipeline",
            "rename the file",
        )
    if PurePosixPath(name).suffix.lower() in _WEIGHTS:
        raise PublishError(
            f"{shown} may be taken for a model, which no check has seen",
            "remove it from {publish.extra}; formats of the model come from {formats}",
            options=["publish.extra", "formats"],
        )


def require_linked_files(card: str, files: Mapping[str, object]) -> None:
    """Require that the licence, where the card's front matter names a file of the
    release, is there.

    Args:
        card: README.md.
        files: path in the release → anything.

    Raises:
        PublishError: it isn't.
    """
    link = _license_link(card)
    if link is None or urlsplit(link).scheme:
        return
    name = PurePosixPath(link.partition("#")[0]).as_posix()
    if name not in files:
        raise PublishError(
            f"{{card.license_link}} is {printable(link)}, and the release holds no such"
            " file",
            f"put {printable(name)} into the folder that {{publish.extra}} names, or"
            " give the licence's address",
            options=["card.license_link", "publish.extra"],
        )


def _license_link(card: str) -> str | None:
    """What the front matter links as the licence; None: nothing, or nothing readable.

    Args:
        card: README.md.
    """
    fields, _ = split_card(card)
    link = fields.get("license_link")
    return link if isinstance(link, str) and link else None
