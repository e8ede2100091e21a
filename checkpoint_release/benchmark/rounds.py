"""Every way has a turn in every round, so that a busy minute hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from checkpoint_release.benchmark.settings import Sizes
from checkpoint_release.benchmark.ways import Way
from checkpoint_release.benchmark.worker import (
    Prepared,
    WayFailedError,
    Worker,
)
from checkpoint_release.core.artifacts.benchmark import COMPILED, EAGER, NotRun
from checkpoint_release.core.progress import Progress
from checkpoint_release.core.signature import Array

_PAUSE = 0.02  # seconds in which threads of the process before stop waiting for work
_SAME = 1e-2  # as a share of an output's largest value: beyond it, outputs are others


@dataclass(frozen=True)
class Timing:
    """The times of one way on inputs of one size.

    Attributes:
        way: its name.
        sizes: of the inputs.
        threads: that one call uses.
        first: seconds of the first call.
        rounds: seconds of the calls in each round.
    """

    way: str
    sizes: Sizes
    threads: int
    first: float
    rounds: list[list[float]] = field(default_factory=list)


@dataclass
class _Contest:
    """The ways that still run with a number of threads.

    Attributes:
        threads: that one call uses.
        workers: way → its process.
        prepared: way and text of the sizes → what is known of them.
        timings: way and text of the sizes → its times.
        not_run: the ways that don't run, and why.
    """

    threads: int
    workers: dict[str, Worker]
    prepared: dict[tuple[str, str], Prepared] = field(default_factory=dict)
    timings: dict[tuple[str, str], Timing] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)

    def prepare(self, way: str, sizes: Sequence[Sizes]) -> None:
        """Run a way on inputs of every size, one after the other."""
        for each in sizes:
            place = (way, each.text)
            prepared = self.workers[way].prepare(each)
            eager = self.prepared.get((EAGER, each.text))
            if way == COMPILED and eager is not None:
                _require_same(prepared.outputs, eager.outputs)
            self.prepared[place] = prepared
            self.timings[place] = Timing(way, each, self.threads, prepared.first)

    def turn(self, way: str, sizes: Sizes) -> None:
        """Time calls of a way."""
        place = (way, sizes.text)
        if self.threads > 1:
            time.sleep(_PAUSE)
        times = self.workers[way].turn(sizes, self.prepared[place].calls)
        self.timings[place].rounds.append(times)

    def drop(self, way: str, reason: str) -> None:
        """Leave out a way that doesn't run."""
        self.not_run.append(NotRun(way=way, threads=self.threads, reason=reason))
        self.workers.pop(way).__exit__(None, None, None)
        for place in [place for place in self.timings if place[0] == way]:
            del self.timings[place]


def take_turns(
    ways: Sequence[Way], sizes: Sequence[Sizes], threads: int, rounds: int
) -> tuple[list[Timing], list[NotRun]]:
    """Time every way, each in a process of its own that stays open, within
    `environment`.

    In each round another way begins, so that none always comes after the same one.

    Args:
        ways: what is run.
        sizes: of the inputs.
        threads: that one call uses.
        rounds: how many turns each way has.

    Returns:
        The times, by sizes and then ways; and the ways that don't run.
    """
    with ExitStack() as stack:
        workers = {}
        for way in ways:
            workers[way.name] = stack.enter_context(Worker(way, threads))
        contest = _Contest(threads, workers)
        for way in ways:
            try:
                contest.prepare(way.name, sizes)
            except WayFailedError as failure:
                contest.drop(way.name, str(failure))
        _all_rounds(contest, sizes, rounds)
    timings = []
    for each in sizes:
        for way in ways:
            if (way.name, each.text) in contest.timings:
                timings.append(contest.timings[way.name, each.text])
    return timings, contest.not_run


def _all_rounds(contest: _Contest, sizes: Sequence[Sizes], rounds: int) -> None:
    """Give every way its turns."""
    order = list(contest.workers)
    with Progress(f"measuring, {contest.threads} threads", rounds) as progress:
        for _ in range(rounds):
            for each in sizes:
                for way in [name for name in order if name in contest.workers]:
                    try:
                        contest.turn(way, each)
                    except WayFailedError as failure:
                        contest.drop(way, str(failure))
            order = [*order[1:], *order[:1]]
            progress.add(1)


def _require_same(outputs: Sequence[Array], expected: Sequence[Array]) -> None:
    """Make sure that a faster way computes the same.

    Args:
        outputs: of the way.
        expected: of eager torch.

    Raises:
        WayFailedError: it doesn't.
    """
    for output, other in zip(outputs, expected, strict=True):
        if output.shape != other.shape:
            raise WayFailedError("its outputs have other shapes than eager torch's")
        if other.dtype.kind != "f":
            continue
        magnitude = float(np.abs(other).max(initial=0.0)) or 1.0
        difference = float(np.abs(output - other).max(initial=0.0)) / magnitude
        if not difference <= _SAME:
            raise WayFailedError(
                f"its outputs differ from eager torch's by {difference:.1%} of their"
                " largest value"
            )
