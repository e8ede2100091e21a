"""Paths that a JSON file names: they stay in the folder that the file lies in.

Whoever wrote the file may have put any path there, and whoever opens or copies what it
names would follow it.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.text import shown

_LONGEST = 255  # bytes of a file's name, on all common file systems


def require_inside(name: str, source: Path, *, links: bool = False) -> None:
    """Require that a path in a JSON file names a file beside it, or further inside.

    Args:
        name: the path, in POSIX form.
        source: the file that names it.
        links: whether the file may be a link to anywhere, because its bytes are
            compared with a digest. Otherwise links may lead into the caches of the
            Hub's client and of DVC, and else nowhere outside.

    Raises:
        ArtifactError: the path leads out of the folder, or no file can have it.
    """
    if _leads_out(name):
        raise ArtifactError(
            f"{source} names {shown(name)}, which leads out of the folder", REMAKE
        )
    if not _is_possible(name):
        raise ArtifactError(
            f"{source} names {shown(name)}, which no file can be called", REMAKE
        )
    if not links and _is_link_out(source.parent, name):
        raise ArtifactError(
            f"{source} names {shown(name)}, which is a link that leads out of the"
            " folder",
            "put the file itself in its place",
        )


def _leads_out(name: str) -> bool:
    """Whether the path is of another folder, on this system or on Windows."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return True
    return "\\" in name or bool(PureWindowsPath(name).drive)


def _is_possible(name: str) -> bool:
    """Whether a file can have the path: JSON can hold NUL, and half a character."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    return b"\0" not in encoded and max(map(len, encoded.split(b"/"))) <= _LONGEST


def _is_link_out(folder: Path, name: str) -> bool:
    """Whether the file is a link, or lies behind one, that leads out of the folder."""
    try:
        own, target = folder.resolve(), (folder / name).resolve()
    except (OSError, RuntimeError):  # links in a circle
        return True
    return not target.is_relative_to(own) and not _is_in_cache(own, target)


def _is_in_cache(folder: Path, target: Path) -> bool:
    """Whether a link's target is where the Hub's client or DVC keeps a file's bytes.

    Args:
        folder: of the link; the Hub's client makes `snapshots/COMMIT`, beside `blobs`.
        target: what the link leads to; in DVC's cache, `files/md5/DIGITS/DIGITS`.
    """
    for above in folder.parents:
        if above.name == "snapshots" and target.parent == above.parent / "blobs":
            return True
    return target.parts[-4:-2] == ("files", "md5")
