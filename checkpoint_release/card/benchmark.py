"""The figures of the benchmark, as a card and the report show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.benchmark import (
    COMPILED,
    EAGER,
    Benchmark,
    BenchmarkMachine,
    Measurement,
    read_benchmark,
    sizes_text,
)
from checkpoint_release.pictures.latency import Point


@dataclass(frozen=True)
class SpeedRow:
    """One size of the inputs, with a number of threads.

    Attributes:
        sizes: of the inputs, such as "batch=1, sequence=250".
        threads: that one call uses.
        times: for each way its median and p95, and the multiple of eager's time; empty
            where it wasn't measured.
        memory: for each way the peak; empty where it wasn't measured.
    """

    sizes: str
    threads: int
    times: list[str]
    memory: list[str]


def benchmark_of(artifacts: Path, formats: Iterable[str]) -> Benchmark | None:
    """The figures, as far as they are about these very artifacts; None: there are none.

    Args:
        artifacts: the folder of all artifacts.
        formats: names of those that are enabled.

    Raises:
        ArtifactError: the file isn't as it was written.
    """
    benchmark = read_benchmark(artifacts)
    if benchmark is None or not benchmark.is_about(artifacts, formats):
        return None
    return benchmark


def speed_rows(benchmark: Benchmark) -> list[SpeedRow]:
    """A row for each size and number of threads, in the order of the benchmark.

    Args:
        benchmark: with at least one measurement; a row has a cell for each of its ways.
    """
    by_place: dict[tuple[str, int], dict[str, Measurement]] = {}
    for each in benchmark.measured:
        place = (sizes_text(each.sizes), each.threads)
        by_place.setdefault(place, {})[each.way] = each
    rows = []
    for (sizes, threads), found in by_place.items():
        cells = [found.get(way) for way in benchmark.ways]
        times = [_time(each) if each else "" for each in cells]
        memory = [_memory(each) if each else "" for each in cells]
        rows.append(SpeedRow(sizes, threads, times, memory))
    return rows


def _time(each: Measurement) -> str:
    """The median and the p95 in milliseconds, and how many times eager's it is."""
    text = f"{each.median_ms:g} ({each.p95_ms:g})"
    if each.times_eager is not None and each.way != EAGER:
        text += f", {each.times_eager:.2f}×"
    return text


def _memory(each: Measurement) -> str:
    return "" if each.peak_mb is None else f"{each.peak_mb:,.0f}"


def benchmarked_on(machine: BenchmarkMachine) -> str:
    """The machine as a phrase."""
    parts = [machine.processor, f"{machine.cores} cores"]
    if machine.memory_gb is not None:
        parts.append(f"{machine.memory_gb:g} GB of memory")
    parts.append(machine.system)
    libraries = [f"{name} {version}" for name, version in machine.libraries.items()]
    phrase = f"{', '.join(parts)}, with {', '.join(libraries)}"
    if machine.busy:
        phrase += (
            f"; it was busy (load {machine.load:g}), so the figures are worth less"
        )
    return phrase


def points(benchmark: Benchmark, sizes: Mapping[str, int], weights: int) -> list[Point]:
    """Size and latency of each way, for the first sizes and number of threads.

    Args:
        benchmark: with at least one measurement.
        sizes: format or variant → bytes.
        weights: bytes of the checkpoint's weights, which eager torch runs.
    """
    found = []
    for each in benchmark.first():
        size = weights if each.way in (EAGER, COMPILED) else sizes.get(each.way)
        if size is not None:
            found.append(Point(each.way, size, each.median_ms, each.p95_ms))
    return found
