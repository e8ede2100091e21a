"""Which fast test runs which line, and how long it takes."""

from __future__ import annotations

import resource
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from tests.mutants.trial import FORK, SILENT, Checkout


class CoverageMap(msgspec.Struct):
    """What one run of the tests showed.

    Attributes:
        seconds: a test that passed → its time on a CPU, with its processes.
        lines: module → line → the tests that run it, in pytest's own process.
    """

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def tests_of(self, path: str, lines: tuple[int, int]) -> list[str]:
        """The tests of a statement, the quickest first.

        What no test runs in pytest's process may run in others, or while the module is
        imported: then they are all that run anything of the module.
        """
        by_line = self.lines.get(path, {})
        first, last = lines
        found = self._known(by_line, range(first, last + 1))
        return found or self._known(by_line, by_line)

    def runs(self, path: str, lines: tuple[int, int]) -> bool:
        """Whether a test runs the statement in pytest's process."""
        first, last = lines
        return bool(self._known(self.lines.get(path, {}), range(first, last + 1)))

    def _known(self, by_line: dict[int, list[str]], lines: Iterable[int]) -> list[str]:
        names: set[str] = set()
        for line in lines:
            names.update(by_line.get(line, ()))
        return sorted(names & self.seconds.keys(), key=self._order)

    def _order(self, name: str) -> tuple[float, str]:
        return self.seconds[name], name


@dataclass
class _Recorder:
    """A plugin of pytest: each test is a context of coverage's."""

    coverage: Any
    seconds: dict[str, float]
    failed: set[str]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self.coverage.switch_context(item.nodeid)
        start = _cpu_seconds()
        result = yield
        self.seconds[item.nodeid] = _cpu_seconds() - start
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)


def measure(
    checkout: Checkout, paths: Sequence[str], tests: Sequence[str]
) -> CoverageMap:
    """Run the tests once, in a process that is forked off this one.

    Args:
        checkout: nothing in it is changed; its bytecode is left there.
        paths: the modules of interest.
        tests: files or folders of tests.
    """
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_measure, args=(checkout, paths, tests, sender))
    process.start()
    sender.close()
    encoded = receiver.recv_bytes()
    process.join()
    return msgspec.json.decode(encoded, type=CoverageMap)


def _measure(
    checkout: Checkout, paths: Sequence[str], tests: Sequence[str], sender: Any
) -> None:
    """All that the process does."""
    import coverage

    checkout.enter()
    files = [str(checkout.folder / path) for path in paths]
    tracer = coverage.Coverage(data_file=None, config_file=False, include=files)
    recorder = _Recorder(tracer, {}, set())
    tracer.start()
    pytest.main([*SILENT, *tests], plugins=[recorder])
    tracer.stop()
    data = tracer.get_data()
    lines: dict[str, dict[int, list[str]]] = {}
    for path, file in zip(paths, files, strict=True):
        lines[path] = {}
        for line, names in data.contexts_by_lineno(file).items():
            lines[path][line] = [name for name in names if name]
    passed = recorder.seconds.keys() - recorder.failed
    seconds = {name: recorder.seconds[name] for name in passed}
    sender.send_bytes(msgspec.json.encode(CoverageMap(seconds, lines)))


def _cpu_seconds() -> float:
    """What this process and those it waited for have computed so far."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total
