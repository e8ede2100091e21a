"""Medians, 95th percentiles and multiples of eager's time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from checkpoint_release.benchmark.memory import Memory
from checkpoint_release.benchmark.rounds import Timing
from checkpoint_release.core.artifacts.benchmark import (
    EAGER,
    Benchmark,
    BenchmarkMachine,
    Checked,
    Measurement,
    NotRun,
)

Place = tuple[str, str, int]
"""A way, the text of its inputs' sizes, and its number of threads."""
_DIGITS = 3
_NO_MEMORY = Memory(None, None)


def place_of(timing: Timing) -> Place:
    """Where the memory of a timing is looked up."""
    return timing.way, timing.sizes.text, timing.threads


def summarise(
    timings: Sequence[Timing],
    memory: Mapping[Place, Memory],
    not_run: Iterable[NotRun],
    *,
    machine: BenchmarkMachine,
    checked: Mapping[str, str],
) -> Benchmark:
    """The figures of all timings.

    Args:
        timings: with at least one round each.
        memory: of those whose memory could be measured.
        not_run: what was not measured.
        machine: that was measured on.
        checked: format → sha256 of the manifest of what was measured.
    """
    eager = {
        (timing.sizes.text, timing.threads): timing
        for timing in timings
        if timing.way == EAGER
    }
    measured = []
    for timing in timings:
        beside = eager.get((timing.sizes.text, timing.threads))
        held = memory.get(place_of(timing), _NO_MEMORY)
        measured.append(_measurement(timing, beside, held))
    artifacts = [Checked(format=name, sha256=each) for name, each in checked.items()]
    whole = Benchmark(measured=measured)
    first = whole.first()
    return Benchmark(
        median_ms={each.way: each.median_ms for each in first},
        p95_ms={each.way: each.p95_ms for each in first},
        peak_mb={each.way: each.peak_mb for each in first if each.peak_mb is not None},
        machine=f"{machine.processor}, {machine.cores} cores",
        measured=measured,
        not_run=list(not_run),
        checked=artifacts,
        machines=[machine],
    )


def _measurement(timing: Timing, eager: Timing | None, memory: Memory) -> Measurement:
    """The figures of one timing.

    Args:
        timing: of a way.
        eager: of eager torch, in the same rounds; None: it didn't run.
        memory: of the way.
    """
    times = [seconds for calls in timing.rounds for seconds in calls]
    return Measurement(
        way=timing.way,
        sizes=timing.sizes.of,
        threads=timing.threads,
        median_ms=_milliseconds(statistics.median(times)),
        p95_ms=_milliseconds(percentile(times, 95)),
        times_eager=times_eager(timing, eager) if eager else None,
        first_ms=_milliseconds(timing.first),
        calls=len(times),
        rounds=len(timing.rounds),
        peak_mb=memory.peak_mb,
        libraries_mb=memory.libraries_mb,
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest of the values that so many of a hundred don't exceed.

    Args:
        values: at least one.
        percent: from 1 to 100.
    """
    place = math.ceil(len(values) * percent / 100)
    return sorted(values)[place - 1]


def times_eager(timing: Timing, eager: Timing) -> float:
    """The median of what a round's median is as a multiple of eager's in that round.

    What slows a round down slows both, so that it falls out.

    Args:
        timing, eager: of the same rounds.
    """
    shares = []
    for own, other in zip(timing.rounds, eager.rounds, strict=True):
        shares.append(statistics.median(own) / statistics.median(other))
    return _rounded(statistics.median(shares))


def _milliseconds(seconds: float) -> float:
    return _rounded(1000 * seconds)


def _rounded(value: float) -> float:
    """A figure with as many digits as it can have a meaning for."""
    return float(f"{value:.{_DIGITS}g}")
