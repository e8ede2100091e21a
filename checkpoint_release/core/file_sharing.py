"""Files that share their bytes on the disk, and files that give theirs back.

A release holds each format once, and so does a disk, where the file system allows it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import IO

from checkpoint_release.core.files import FileEntry, copy_file

if os.name == "posix":
    import fcntl

_WORTH_SHARING = 16 << 20  # bytes
_WRITABLE = 0o222  # the bits of a file's mode by which anybody may write to it
_FICLONE = 0x40049409  # of Linux's ioctl, which btrfs, xfs and others answer
_PUNCH_HOLE = 0x01 | 0x02  # of Linux's fallocate; the file keeps its size


def share_file(source: Path, destination: Path) -> FileEntry:
    """Give a file a second place, without a second copy of its bytes where that is
    safe, and digest it.

    A reflink is: what is written to one file doesn't show in the other. A hard link is
    where nobody may write to the file, as DVC leaves what it links into its cache where
    a project asks for that.
    Anything else is copied, and so are small files, which cost nothing.

    Args:
        source: the file.
        destination: its second place, where nothing is yet.

    Raises:
        OSError: it can't be read, or there is something already.
    """
    status = source.stat()
    if status.st_size < _WORTH_SHARING:
        return copy_file(source, destination)
    is_protected = status.st_mode & _WRITABLE == 0
    if _reflink(source, destination) or (is_protected and _link(source, destination)):
        return FileEntry.of(destination)
    return copy_file(source, destination)


def _reflink(source: Path, destination: Path) -> bool:
    """Let a new file share the blocks of another until either is written to.

    Returns:
        Whether the system and the file system can; if not, there is no new file.
    """
    if os.name != "posix":
        return False
    with source.open("rb") as read, destination.open("xb") as write:
        try:
            fcntl.ioctl(write.fileno(), _FICLONE, read.fileno())
        except OSError:
            destination.unlink()
            return False
    return True


def _link(source: Path, destination: Path) -> bool:
    """Give a file a second name; returns whether the file system can."""
    try:
        destination.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def give_back(file: IO[bytes], start: int, stop: int) -> None:
    """Free the blocks of bytes [start, stop) of a file; they read as zeros from then
    on, and the file keeps its size.

    Only Linux does it, and not on each file system; elsewhere nothing happens.

    Args:
        file: open for writing.
        start, stop: in bytes.
    """
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (AttributeError, OSError, TypeError):
        return
    offset, length = ctypes.c_long(start), ctypes.c_long(stop - start)
    fallocate(file.fileno(), _PUNCH_HOLE, offset, length)
