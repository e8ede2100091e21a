"""Starting the process that builds a member, and ending it with all it started."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.fleet.outcome import Failed, Job, Outcome
from checkpoint_release.fleet.transcript import Transcript

_MODULE = "checkpoint_release.fleet.build"
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
    read, write = os.pipe()
    transcript = Transcript(report)
    last: deque[str] = deque(maxlen=_KEPT)
    # -P: a folder with a module of some library's name must not come first
    command = [sys.executable, "-P", "-m", _MODULE]
    files = [str(folder / "job.json"), str(folder / "outcome.json"), str(home)]
    try:
        process = subprocess.Popen(
            [*command, *files, str(read)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=[read],
            start_new_session=True,
            env=_environment(home, folder),
            text=True,
            errors="replace",
        )
    except BaseException:
        os.close(write)
        raise
    finally:
        os.close(read)
    try:
        for line in process.stdout or ():
            text = line.rstrip("\n")
            last.append(text)
            transcript.feed(text)
            echo(text)
        return process.wait(), list(last)
    finally:
        os.close(write)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def _environment(home: Path, folder: Path) -> Mapping[str, str]:
    """What the process and its stages see.

    The number of threads is the same everywhere, because sums depend on it.
    """
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        **dict.fromkeys(_THREADS, "1"),
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
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
