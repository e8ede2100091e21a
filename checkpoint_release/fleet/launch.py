"""Starting the process that builds a member, and ending it with all it started."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.fleet.outcome import Failed, Job, Outcome
from checkpoint_release.fleet.transcript import Transcript

_MODULE = "checkpoint_release.fleet.builder"
_KEPT = 40  # lines of output
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def launch(
    job: Job,
    home: Path,
    report: Callable[[str], None] = lambda stage: None,
    echo: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Build a member in a process group of its own.

    Whatever ends this process ends the group. Whatever ends the group's first process,
    such as the kernel for want of memory, is reported as the host's failure.

    Args:
        job: what to build.
        home: the fleet's folder on this host.
        report: is called with the name of each stage as it starts.
        echo: is called with each line that is printed.

    Returns:
        What came of it.
    """
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="fleet-"))
    try:
        job.write(folder / "job.json")
        code, last = _run(folder, home, report, echo)
        with suppress(ArtifactError):
            return read_record(folder / "outcome.json", Outcome)
        return _lost(job, code, last)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    folder: Path,
    home: Path,
    report: Callable[[str], None],
    echo: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Run the process to its end; its exit code and last lines."""
    transcript = Transcript(report)
    last: deque[str] = deque(maxlen=_KEPT)
    with _builder() as builder, builder.building(folder, home) as output:
        for line in output:
            text = line.rstrip("\n")
            last.append(text)
            transcript.feed(text)
            echo(text)
    return builder.code, list(last)


class _Builder:
    """A process that forks for each member; see builder.

    Attributes:
        code: that the last member's process exited with; negative for a signal.
    """

    def __init__(self) -> None:
        self.code = 0
        self._control, other = socket.socketpair()
        with other:
            # -P: a folder with a module of some library's name must not come first
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(other.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                start_new_session=True,
                env=_environment(),
            )

    @property
    def is_alive(self) -> bool:
        """Whether it can build another member."""
        return self._process.poll() is None

    @contextmanager
    def building(self, folder: Path, home: Path) -> Iterator[TextIO]:
        """Start a member, and yield its output; at the end, its whole group has ended.

        Args:
            folder: that holds job.json, and where outcome.json goes.
            home: the fleet's folder on this host.
        """
        lifeline, held = os.pipe()
        output, written = os.pipe()
        files = [folder / "job.json", folder / "outcome.json", home]
        message = json.dumps([str(path) for path in files]).encode()
        try:
            with suppress(OSError):  # it was ended: then there is no output either
                socket.send_fds(self._control, [message], [lifeline, written])
            os.close(lifeline)
            os.close(written)
            with os.fdopen(output, errors="replace") as lines:
                yield lines
        finally:
            os.close(held)
            self.code = self._ended()

    def _ended(self) -> int:
        """Wait for the member's end; its exit code, or this process's own."""
        with suppress(OSError):
            answer = self._control.recv(16)
            if answer:
                return int(answer)
        self._process.kill()
        return self._process.wait()

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.wait()


_idle: list[_Builder] = []


@contextmanager
def _builder() -> Iterator[_Builder]:
    """A builder for one member, which goes on for the next one."""
    builder = _idle.pop() if _idle else _Builder()
    try:
        yield builder
    finally:
        if builder.is_alive:
            _idle.append(builder)


@atexit.register
def end_builders() -> None:
    """End the processes that wait for further members."""
    while _idle:
        _idle.pop().close()


def _environment() -> Mapping[str, str]:
    """What the process and its stages see.

    The number of threads is the same everywhere, because sums depend on it.
    """
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        **dict.fromkeys(_THREADS, "1"),
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "DVC_NO_ANALYTICS": "1",
    }


def _lost(job: Job, code: int, last: list[str]) -> Outcome:
    """What is said of a process that left no outcome."""
    how = f"exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = signal.Signals(-code).name
    failed = Failed(
        name=job.name,
        key=job.key,
        cause="host",
        stage="",
        message=f"the process that built it was ended from outside ({how})",
        log=last,
        host=socket.gethostname(),
    )
    return Outcome(failed=failed)
