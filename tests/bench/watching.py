"""What a command takes at its peak: memory of all its processes, and disk of a folder.

Memory is proportional (Pss): a page that several processes map counts once. Of it,
`private` is what no file is behind: what the system can't drop when memory is short.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EVERY = 0.05  # seconds between two looks


@dataclass
class Peaks:
    """What was seen.

    Attributes:
        seconds: that the command took.
        processor: seconds of all its processes.
        memory: the most that its processes held at once, in bytes.
        private: the same without what is mapped from files.
        disk: the most that the folder held above what it held before, in bytes.
        left: what it held above that at the end.
    """

    seconds: float = 0.0
    processor: float = 0.0
    memory: int = 0
    private: int = 0
    disk: int = 0
    left: int = 0


def watch(
    command: Sequence[str | Path],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Peaks:
    """Run a command in a folder, and look at it until it ends.

    Args:
        command: what to run.
        folder: where, and what is measured on the disk.
        environment: beside this process's.

    Raises:
        CalledProcessError: the command failed; its output is with it.
    """
    peaks = Peaks()
    before = disk_of(folder)
    start, spent = time.perf_counter(), os.times()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ended = threading.Event()
    watcher = threading.Thread(
        target=_look, args=(process.pid, folder, before, ended, peaks)
    )
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    now = os.times()
    peaks.seconds = time.perf_counter() - start
    peaks.processor = now.children_user - spent.children_user
    peaks.processor += now.children_system - spent.children_system
    peaks.left = disk_of(folder) - before
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return peaks


def _look(
    pid: int, folder: Path, before: int, ended: threading.Event, peaks: Peaks
) -> None:
    while not ended.wait(_EVERY):
        memory = private = 0
        for each in family(pid):
            held = memory_of(each)
            memory += held[0]
            private += held[1]
        peaks.memory = max(peaks.memory, memory)
        peaks.private = max(peaks.private, private)
        peaks.disk = max(peaks.disk, disk_of(folder) - before)


def disk_of(folder: Path) -> int:
    """The bytes that a folder takes on the disk; a file with two names counts once."""
    blocks: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:  # it went meanwhile
            continue
        blocks[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())


def family(pid: int) -> Iterator[int]:
    """A process and all that it started, and they."""
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def memory_of(pid: int) -> tuple[int, int]:
    """What a process holds, and the part without a file behind it, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    found = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) << 10
    return found.get("Pss", 0), found.get("Pss_Anon", 0) + found.get("Pss_Shmem", 0)
