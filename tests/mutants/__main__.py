"""Try mutants: `python -m tests.mutants --help`."""

from __future__ import annotations

import argparse
import importlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tests.mutants.coverage_map import CoverageMap, measure
from tests.mutants.operators import Mutant, sample
from tests.mutants.trial import FORK, Checkout
from tests.support.project import ROOT, Project

KILLED, SURVIVED, NOT_RUN = "killed", "survived", "no test runs the line"
LIBRARIES = ("torch.export", "torch.onnx", "onnx", "onnxruntime", "huggingface_hub")
"""Imported before processes are forked."""


class Outcome(msgspec.Struct):
    """What came of a mutant.

    Attributes:
        mutant: what was tried.
        status: KILLED, SURVIVED or NOT_RUN.
        tests: how many were tried.
        killer: the test that failed, or how the process ended.
    """

    mutant: Mutant
    status: str
    tests: int
    killer: str | None = None

    def __str__(self) -> str:
        mutant = self.mutant
        where = f"{mutant.path}:{mutant.lines[0]}"
        return f"{where}: {self.status}, {self.tests} tests\n{mutant.diff}\n"


@dataclass
class Trials:
    """Tries mutants in a copy of the checkout, one after the other.

    Attributes:
        checkout: the copy.
        coverage: what the tests run.
        seconds: that the tests of a mutant may take on a CPU; the quickest are taken.
        sound: tests that were seen to pass here while nothing was changed.
    """

    checkout: Checkout
    coverage: CoverageMap
    seconds: float
    sound: set[str] = field(default_factory=set)

    def outcome(self, mutant: Mutant) -> Outcome:
        """Try one mutant."""
        tests = self._affordable(self.coverage.tests_of(mutant.path, mutant.lines))
        killer = self._killer(mutant, tests)
        if killer is not None:
            return Outcome(mutant, KILLED, len(tests), killer)
        runs = self.coverage.runs(mutant.path, mutant.lines)
        return Outcome(mutant, SURVIVED if runs else NOT_RUN, len(tests))

    def _affordable(self, tests: Sequence[str]) -> list[str]:
        """The first tests, at least one, as far as the time goes."""
        chosen: list[str] = []
        spent = 0.0
        for test in tests:
            spent += self.coverage.seconds[test]
            if chosen and spent > self.seconds:
                break
            chosen.append(test)
        return chosen

    def _killer(self, mutant: Mutant, tests: list[str]) -> str | None:
        """What fails of the mutant and passes of the module as it is; None: nothing."""
        while tests:
            seconds = sum(self.coverage.seconds[test] for test in tests)
            self.checkout.change(mutant.path, mutant.source)
            failed = self.checkout.first_failure(tests, seconds)
            self.checkout.restore(mutant.path)
            if failed is None or failed not in tests or self._is_sound(failed):
                return failed
            tests = [test for test in tests if test != failed]
        return None

    def _is_sound(self, test: str) -> bool:
        """Whether a test passes while nothing is changed."""
        if test not in self.sound:
            seconds = self.coverage.seconds[test]
            if self.checkout.first_failure([test], seconds) is not None:
                return False
            self.sound.add(test)
        return True


def main() -> None:
    options = _options()
    os.environ.update(OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
    mutants = _mutants(options)
    for library in LIBRARIES:
        importlib.import_module(library)
    with TemporaryDirectory(prefix="mutants-") as folder:
        first = Checkout(Project.checkout(Path(folder) / "0").path, ROOT)
        coverage = _coverage(first, options)
        print(f"{len(coverage.seconds)} tests pass, {len(mutants)} mutants", flush=True)
        copies = [first]
        for number in range(1, options.jobs):
            copy = Project(first.folder).copy(Path(folder) / str(number))
            copies.append(Checkout(copy.path, ROOT))
        trials = [Trials(copy, coverage, options.seconds) for copy in copies]
        outcomes = []
        for outcome in _tried(trials, mutants):
            outcomes.append(outcome)
            if outcome.status != KILLED:
                print(outcome, flush=True)
            if options.results:
                with options.results.open("ab") as file:
                    file.write(msgspec.json.encode(outcome) + b"\n")
    _summarise(outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("modules", nargs="+", help="files in the checkout")
    parser.add_argument("--tests", nargs="+", required=True, help="files or folders")
    parser.add_argument("--count", type=int, default=150, help="mutants to try")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each mutant")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--coverage", type=Path, help="file that keeps what tests run")
    parser.add_argument("--again", type=Path, help="results whose survivors to retry")
    parser.add_argument("--results", type=Path, help="file that gets a JSON line each")
    return parser.parse_args()


def _mutants(options: argparse.Namespace) -> list[Mutant]:
    """A random sample, or what survived an earlier try; as they were then."""
    if options.again is None:
        return sample(ROOT, options.modules, options.count, options.seed)
    survivors = []
    for line in options.again.read_bytes().splitlines():
        outcome = msgspec.json.decode(line, type=Outcome)
        if outcome.status != KILLED:
            survivors.append(outcome.mutant)
    return survivors


def _coverage(checkout: Checkout, options: argparse.Namespace) -> CoverageMap:
    """What the tests run; from the file of an earlier try, where there is one."""
    file: Path | None = options.coverage
    if file is not None and file.exists():
        return msgspec.json.decode(file.read_bytes(), type=CoverageMap)
    coverage = measure(checkout, options.modules, options.tests)
    if file is not None:
        file.write_bytes(msgspec.json.encode(coverage))
    return coverage


def _tried(trials: Sequence[Trials], mutants: Sequence[Mutant]) -> Iterator[Outcome]:
    """Try mutants in as many processes as there are copies."""
    results: Any = FORK.Queue()
    processes = []
    for number, one in enumerate(trials):
        share = mutants[number :: len(trials)]
        process = FORK.Process(target=_try_share, args=(one, share, results))
        process.start()
        processes.append(process)
    for _ in mutants:
        yield results.get()
    for process in processes:
        process.join()


def _try_share(trials: Trials, mutants: Sequence[Mutant], results: Any) -> None:
    for mutant in mutants:
        results.put(trials.outcome(mutant))


def _summarise(outcomes: Sequence[Outcome]) -> None:
    """Print how many died, module by module and in all."""
    total: Counter[str] = Counter()
    by_module: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        by_module.setdefault(outcome.mutant.path, Counter())[outcome.status] += 1
        total[outcome.status] += 1
    for path, counts in sorted(by_module.items()):
        print(f"{path}: {dict(counts)}")
    share = total[KILLED] / max(1, total.total())
    print(f"{dict(total)}: {share:.0%} of {total.total()} were noticed")


if __name__ == "__main__":
    main()
