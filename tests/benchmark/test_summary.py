"""Figures follow from times as their names say, whatever else the machine does."""

from __future__ import annotations

import pytest

from checkpoint_release.benchmark.memory import Memory
from checkpoint_release.benchmark.rounds import Timing
from checkpoint_release.benchmark.settings import MOST_SIZES, Sizes, all_sizes
from checkpoint_release.benchmark.summary import percentile, summarise, times_eager
from checkpoint_release.benchmark.table import table
from checkpoint_release.core.artifacts.benchmark import EAGER, Benchmark, NotRun
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.stated_signature import read_signature
from tests.support.benchmark_models import MACHINE, SIGNATURE
from tests.support.stick_figure import stick_figure

ONE = Sizes({"batch": 1})


def timing(way: str, *rounds: list[float]) -> Timing:
    return Timing(way, ONE, 1, 0.5, list(rounds))


def test_a_machine_that_slows_down_leaves_the_multiple_of_eager_as_it_is() -> None:
    eager = timing(EAGER, [0.010], [0.020], [0.080])
    half = timing("onnx", [0.005], [0.010], [0.040])
    assert times_eager(half, eager) == 0.5
    # one that is slow by itself isn't excused by the machine
    slow = timing("onnx", [0.005], [0.040], [0.160])
    assert times_eager(slow, eager) == 2.0


def test_one_round_of_trouble_changes_no_median() -> None:
    eager = timing(EAGER, [0.010], [0.010], [0.010])
    troubled = timing("onnx", [0.010], [0.500], [0.010])
    assert times_eager(troubled, eager) == 1.0


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (20, 19), (100, 95), (30, 29)])
def test_95_of_100_calls_are_within_the_p95(count: int, expected: int) -> None:
    values = [float(number) for number in range(count, 0, -1)]
    assert percentile(values, 95) == expected


def summary(*timings: Timing, not_run: list[NotRun] | None = None) -> Benchmark:
    return summarise(
        timings,
        {("onnx", ONE.text, 1): Memory(100_000_000, 250_500_000)},
        not_run or [],
        machine=MACHINE,
        checked={"onnx": "1" * 64},
    )


def test_the_metrics_are_the_figures_of_the_first_sizes() -> None:
    larger = Timing("onnx", Sizes({"batch": 8}), 1, 0.5, [[9.0]])
    found = summary(timing(EAGER, [0.010]), timing("onnx", [0.005]), larger)
    assert found.median_ms == {EAGER: 10.0, "onnx": 5.0}
    assert found.peak_mb == {"onnx": 250.5}
    assert found.machine == "Test Processor 9000, 8 cores"
    assert [each.median_ms for each in found.measured] == [10.0, 5.0, 9000.0]
    assert found.measured[2].times_eager is None  # eager wasn't measured there


def test_the_table_has_every_measurement_and_what_was_not_run() -> None:
    absent = [
        NotRun(way="torch.compile", threads=1, reason="there is no C++ compiler"),
        NotRun(threads=64, reason="this machine has 8 cores for it"),
    ]
    found = summary(timing(EAGER, [0.010]), timing("onnx", [0.005]), not_run=absent)
    lines = table(found).splitlines()
    assert lines[2].split() == ["1", "batch=1", "onnx", "5", "5", "0.5", "250.5"]
    assert "torch.compile was not run with 1 thread: there is no C++" in lines[3]
    assert lines[4].startswith("nothing was run with 64 threads: this machine has 8")


def test_every_combination_of_the_stated_sizes_is_measured() -> None:
    signature = stick_figure().signature
    sizes, notes = all_sizes(signature, {"batch": [1, 8], "sequence": [60]})
    assert [each.of["batch"] for each in sizes] == [1, 8]
    assert {each.of["sequence"] for each in sizes} == {60} and not notes
    example, notes = all_sizes(signature, {})
    assert len(example) == 1 and not notes


def test_sizes_that_a_model_does_not_take_are_left_out_with_a_note() -> None:
    signature = read_signature(SIGNATURE)
    sizes, notes = all_sizes(signature, {"batch": [0, 3], "frames": [60]})
    assert [each.of for each in sizes] == [{"batch": 3}]
    assert len(notes) == 2 and all("benchmark.sizes" in note for note in notes)


@pytest.mark.parametrize(
    ("sizes", "part"),
    [
        (list(range(1, MOST_SIZES + 2)), f"{MOST_SIZES + 1} combinations"),
        ([2**31 - 1], "its inputs would take 34,359,738,352 bytes"),
    ],
)
def test_sizes_beyond_reason_are_refused_before_anything_runs(
    sizes: list[int], part: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        all_sizes(read_signature(SIGNATURE), {"batch": sizes})
    assert part in caught.value.problem and "benchmark.sizes" in caught.value.problem
