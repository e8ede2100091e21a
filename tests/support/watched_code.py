"""Loads and verifies what names code, while an audit hook watches, and prints what came
of each: `python -m tests.support.watched_code CASES.json`.

The file holds a list of cases; each runs in this one process, the honest ones first, so
that all they need is imported. A case may read. Whatever else raises an audit event (an
import, a compilation, the execution of code, a file to write, a process, a socket) is
reported as a violation.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import run as run_process
from typing import Any

from checkpoint_release.__main__ import main as command_line
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.core.trust import Trust
from checkpoint_release.release.verify import report, verify
from checkpoint_release.runtimes.loader import load
from checkpoint_release.runtimes.open import open_runtime
from tests.support.project import ROOT

SECONDS = 60  # for one case: a model that is built without end is killed
MODULES = "canary"  # and what is in it: they are imported anew in each case

_READING = (
    "builtins.id",
    "glob.glob",
    "mmap.__new__",
    "object.__getattr__",
    "os.listdir",
    "os.scandir",
    "pathlib.Path.glob",
    "sys._getframe",
)
_THREADS = ("_thread.start_new_thread", "_thread.start_joinable_thread")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Case:
    """Something to do with a model or a release from elsewhere.

    Attributes:
        action: "load", "verify", "open" (the format in a folder) or "command".
        arguments: of the action: a path and options; for "command", the command line.
        mark: a file that the code would leave if it ran; the variable MARK names it.
        trust: what the user trusts; a command has it in its arguments.
        cwd: the folder to stand in.
    """

    action: str
    arguments: Sequence[Any]
    mark: str
    trust: Sequence[str] = ()
    cwd: str = "/"


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        error: the class of the error; "CRASH" if it is none of the library's.
        message: its text, or what was returned or printed.
        violations: the first few events that weren't reading.
        ran: whether the code left its mark.
    """

    error: str = ""
    message: str = ""
    violations: list[str] = field(default_factory=list)
    ran: bool = False


def outcomes_of(
    cases: Sequence[Case], honest: Sequence[Case], modules: Path
) -> list[Outcome]:
    """Run the cases, in order, in one process of their own.

    Args:
        cases: what to do.
        honest: what to do before, without an error, so that all modules are imported.
        modules: a folder whose modules can be imported.
    """
    listed = modules.parent / "cases.json"
    listed.write_text(json.dumps([asdict(case) for case in (*honest, *cases)]))
    done = run_process(
        [sys.executable, "-m", "tests.support.watched_code", str(listed)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{modules}",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [Outcome(**outcome) for outcome in json.loads(done.stdout)]
    for outcome in outcomes[: len(honest)]:
        assert not outcome.error, outcome.message
    return outcomes[len(honest) :]


class Watch:
    """The audit hook; one can't be removed, so it is switched on and off."""

    def __init__(self) -> None:
        self.is_on = False
        self.violations: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on or event in _READING or event in _THREADS:
            return
        if event == "open" and not int(args[2] or 0) & _WRITING:
            return
        self.violations.append(f"{event}{args[:2]!r}"[:200])


def act(case: Case) -> str:
    """Do what the case says, and say what came of it."""
    if case.action == "command":
        return f"exit code {command_line(case.arguments)}"
    path, options = case.arguments
    if case.action == "load":
        return repr(load(path, trust=case.trust, **options))
    if case.action == "open":
        trust = Trust.of(case.trust)
        return repr(open_runtime(options["format"], path, trust=trust))
    key = Path(options["public_key"]) if options else None
    return report(verify(Path(path), public_key=key, trust=case.trust))


def run(case: Case, watch: Watch) -> Outcome:
    """Run a case, watched."""
    os.environ["MARK"] = case.mark
    os.chdir(case.cwd)
    for name in list(sys.modules):
        if name.partition(".")[0] == MODULES:
            del sys.modules[name]
    search_path = list(sys.path)
    outcome = Outcome()
    printed = io.StringIO()
    watch.violations.clear()
    signal.alarm(SECONDS)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        watch.is_on = True
        try:
            outcome.message = act(case)
        except CheckpointReleaseError as error:
            outcome.error, outcome.message = type(error).__name__, str(error)
        except BaseException as error:
            outcome.error = "CRASH"
            outcome.message = f"{type(error).__name__}: {error}"
        watch.is_on = False
    signal.alarm(0)
    sys.path[:] = search_path
    outcome.message += printed.getvalue()
    outcome.violations = watch.violations[:5]
    outcome.ran = os.path.lexists(case.mark)
    return outcome


def main(path: str) -> None:
    """Run the cases of a file, and print their outcomes as JSON."""
    warnings.simplefilter("ignore")
    watch = Watch()
    cases = [Case(**case) for case in json.loads(Path(path).read_text())]
    print(json.dumps([asdict(run(case, watch)) for case in cases]))


if __name__ == "__main__":
    main(sys.argv[1])
