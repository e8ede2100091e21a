"""Tests that run in a copy of the checkout, in a process of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

OURS = ("checkpoint_release", "pipeline", "tests")
SILENT = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler"]
STARTING = 60.0  # seconds on a CPU that imports and fixtures may take
MEMORY = 8 << 30  # bytes
FORK: Any = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Checkout:
    """A copy of the checkout, in which one module at a time is changed.

    Attributes:
        folder: of the copy.
        original: of the checkout.
    """

    folder: Path
    original: Path

    def change(self, path: str, source: str) -> None:
        """Put a mutant in the place of a module."""
        (self.folder / path).write_text(source, encoding="utf-8")

    def restore(self, path: str) -> None:
        """Put the module back, with its time, so that its bytecode holds again."""
        shutil.copy2(self.original / path, self.folder / path)

    def enter(self) -> None:
        """Make it the working folder, and what modules are imported from."""
        for name in [*sys.modules]:
            if name.partition(".")[0] in OURS:
                del sys.modules[name]
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        os.environ["PYTHONPATH"] = str(self.folder)

    def first_failure(self, tests: Sequence[str], seconds: float) -> str | None:
        """Run tests in a process that is forked off this one.

        Args:
            tests: their names; they run in this order.
            seconds: that they take on a CPU while no module is changed.

        Returns:
            The first test that fails, or how the process ended before there was one;
            None: all pass.
        """
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=self._run, args=(tests, seconds, sender))
        process.start()
        sender.close()
        failed: str | None = "it took too long"
        try:
            if receiver.poll(2 * _limit(seconds)):
                failed = receiver.recv()
        except EOFError:
            process.join()
            failed = f"the process ended with {process.exitcode}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
            receiver.close()
        return failed

    def _run(self, tests: Sequence[str], seconds: float, sender: Any) -> None:
        """All that the process does."""
        os.setsid()
        limit = _limit(seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        # bytecode of a mutant must not outlive it
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        sys.dont_write_bytecode = True
        silence()
        self.enter()
        order = {name: position for position, name in enumerate(tests)}
        failures = _Failures(order)
        files = sorted({name.partition("::")[0] for name in tests})
        temporary = f"--basetemp={self.folder}-temporary"
        code = pytest.main([*SILENT, "-x", temporary, *files], plugins=[failures])
        failed = failures.names[0] if failures.names else None
        if failed is None and code:
            failed = f"pytest ended with {int(code)}"
        sender.send(failed)
        sender.close()
        os._exit(0)  # whatever a test left running


@dataclass
class _Failures:
    """A plugin of pytest: runs the chosen tests, and notes which fail.

    Attributes:
        order: name of a chosen test → its place.
        names: of those that failed.
    """

    order: dict[str, int]
    names: list[str] = field(default_factory=list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(chosen, key=lambda item: self.order[item.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.append(report.nodeid)


def silence() -> None:
    """Send what this process prints nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def _limit(seconds: float) -> int:
    return int(4 * seconds + STARTING)
