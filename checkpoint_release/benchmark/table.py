"""The figures of a benchmark as a table for people who look at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from checkpoint_release.core.artifacts.benchmark import (
    Benchmark,
    Measurement,
    sizes_text,
)

_COLUMNS = ("threads", "sizes", "way", "median ms", "p95 ms", "× eager", "peak MB")


def table(benchmark: Benchmark) -> str:
    """All measurements, a line each, and what was not run.

    Args:
        benchmark: with or without measurements.
    """
    rows = [list(_COLUMNS), *map(_cells, benchmark.measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([*lines, *(each.sentence for each in benchmark.not_run)])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()


def _cells(each: Measurement) -> list[str]:
    return [
        str(each.threads),
        sizes_text(each.sizes),
        each.way,
        f"{each.median_ms:g}",
        f"{each.p95_ms:g}",
        "" if each.times_eager is None else f"{each.times_eager:g}",
        "" if each.peak_mb is None else f"{each.peak_mb:g}",
    ]
