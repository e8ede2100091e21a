"""A process that has DVC imported, and forks for each member that it is asked to build:

    python -m checkpoint_release.fleet.builder CONTROL

CONTROL is the number of a socket. Each message on it holds the paths of a job, of the
outcome to write and of the fleet's folder, and two open files: the reading end of a
pipe whose end is that of the member, and where output goes. The answer is the fork's
exit code, once it has ended and nothing that it started is left. Imports take as long
as a stage does; so they happen once for each worker, and not for each member.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from checkpoint_release.fleet import build

MESSAGE = 1 << 16  # bytes; three paths fit
# What `dvc repro` and `dvc push` import on their way. None of it starts a thread, which
# a fork would lose.
_PRELOADED = (
    "dvc.cli.parser",
    "dvc.data_cloud",
    "dvc.dirs",
    "dvc.lock",
    "dvc.repo.artifacts",
    "dvc.repo.brancher",
    "dvc.repo.datasets",
    "dvc.repo.index",
    "dvc.repo.metrics",
    "dvc.repo.params",
    "dvc.repo.plots",
    "dvc.repo.push",
    "dvc.repo.reproduce",
    "dvc.repo.stage",
    "dvc.repo.worktree",
    "dvc.rwlock",
    "dvc.scm",
    "dvc.stage.run",
    "dvc_data.index.checkout",
    "dvc_data.index.push",
    "networkx",
)


def serve(control: socket.socket) -> None:
    """Build the members that are asked for, one after the other, until nobody asks.

    Args:
        control: the socket.
    """
    for name in _PRELOADED:
        import_module(name)
    while True:
        message, handles, _, _ = socket.recv_fds(control, MESSAGE, 2)
        if not message:
            return
        job, outcome, home = map(Path, json.loads(message))
        lifeline, output = handles
        process = os.fork()
        if process == 0:
            control.close()
            _build(job, outcome, home, lifeline, output)
        os.close(lifeline)
        os.close(output)
        code = _ended(process)
        try:
            control.sendall(b"%d" % code)
        except BrokenPipeError:
            return  # whoever asked has ended


def _ended(process: int) -> int:
    """Wait for a member's end, and end what it leaves; its exit code."""
    # Its number is its group's, and nobody else's until it has been waited for.
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def _build(job: Path, outcome: Path, home: Path, lifeline: int, output: int) -> None:
    """Build one member in the fork, in a process group of its own; doesn't return."""
    status = 1
    try:
        os.setsid()
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        build.main(job, outcome, home, lifeline)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as control:
        serve(control)
