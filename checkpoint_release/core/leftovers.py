"""Temporary files and folders beside artifacts: their rights, and what dead runs left.

A temporary lies beside what it will replace and is called `.name.` and some random
characters. Whoever writes it holds a lock on it, which the system takes back when the
process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "posix":
    import fcntl

# Seconds in which a new temporary may not be locked yet. They are microseconds where
# nothing goes wrong; with more, the run that follows a kill would spare its leftovers.
_YOUNG = 1.0

RETIRED = ".old"
"""Ending of the name under which the last artifact waits while it is replaced."""


@contextmanager
def held(handle: int) -> Iterator[None]:
    """Hold an open temporary, so that no other run takes it for a leftover."""
    if os.name == "posix":
        fcntl.flock(handle, fcntl.LOCK_EX)
    yield


def sweep_leftovers(path: Path) -> None:
    """Remove the temporaries of `path` whose runs are dead.

    A run that was killed between its two renames had the last artifact set aside and
    nothing put in its place: that artifact is brought back.

    Args:
        path: the file or folder that they were to replace.
    """
    if os.name != "posix":
        return  # a file that is open can't be removed there anyhow
    for leftover in path.parent.glob(f".{path.name}.*"):
        try:
            young = time.time() - leftover.stat().st_mtime < _YOUNG
            if young or leftover.is_symlink() or _is_held(leftover):
                continue
            if leftover.name.endswith(RETIRED) and not path.exists():
                leftover.rename(path)
            elif leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()
        except OSError:
            continue  # another run sweeps it, or it may not be touched


def sweep_beside_artifacts(artifacts: Path) -> None:
    """Remove the temporaries of every artifact there is.

    DVC takes from its cache what a killed stage was making again, and then doesn't run
    the stage, which would have swept its own.

    Args:
        artifacts: the folder of all artifacts; it need not exist.
    """
    for artifact in sorted(artifacts.glob("[!.]*")):
        sweep_leftovers(artifact)


def _is_held(leftover: Path) -> bool:
    """Whether the run that writes it, or has set it aside, is alive."""
    written = leftover.with_name(leftover.name.removesuffix(RETIRED))
    handle = os.open(written if written.exists() else leftover, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def follow_umask(path: Path) -> None:
    """Give a file, or a folder and all that is in it, the rights that the umask leaves.

    Temporaries are made for their owner alone, and libraries differ in what they do; an
    artifact has one mode for all its files.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    inside = path.rglob("*") if path.is_dir() else ()
    for each in (*inside, path):
        if not each.is_symlink():
            each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)
