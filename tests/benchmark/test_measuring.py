"""What is measured is what a model takes, and what fails costs the others nothing."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from checkpoint_release.benchmark.memory import Memory
from checkpoint_release.benchmark.rounds import take_turns
from checkpoint_release.benchmark.settings import Sizes
from checkpoint_release.benchmark.summary import times_eager
from checkpoint_release.benchmark.ways import Way
from checkpoint_release.benchmark.worker import Worker, environment
from checkpoint_release.core.artifacts.benchmark import COMPILED, EAGER
from checkpoint_release.core.artifacts.formats import ONNX
from tests.support.benchmark_models import Doubles, Ends, Fails, Waits, way
from tests.support.fleets import wait_until
from tests.support.project import ROOT

pytestmark = pytest.mark.slow
SIZES = [Sizes({"batch": 1}), Sizes({"batch": 3})]


def test_a_model_that_waits_is_measured_as_slower_and_failing_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/model.onnx").write_bytes(b"no graph")
    ways = [
        way(tmp_path, EAGER, seconds=0.002),
        way(tmp_path, "slow", seconds=0.05),
        way(tmp_path, "fails", Fails),
        way(tmp_path, "ends", Ends),
        way(tmp_path, COMPILED),
        Way("onnx", ONNX.name, tmp_path / "damaged"),
    ]
    with environment(1):
        timings, not_run = take_turns(ways, SIZES, 1, 3)
    assert [(each.way, each.sizes) for each in timings] == [
        (name, sizes) for sizes in SIZES for name in (EAGER, "slow")
    ]
    for place in (0, 2):
        eager, slow = timings[place : place + 2]
        assert min(slow.rounds[0]) >= 0.05 > min(eager.rounds[0]) >= 0.002
        assert times_eager(slow, eager) > 1.5
        assert len(eager.rounds) == 3
    reasons = {each.way: each.reason for each in not_run}
    assert "ValueError: too small a batch" in reasons["fails"]
    assert "its process ended with 7" in reasons["ends"]
    assert "there is no C++ compiler (no-such-compiler)" in reasons[COMPILED]
    assert "can't be opened" in reasons["onnx"]
    assert not multiprocessing.active_children()


def memory(way: Way) -> Memory:
    with environment(1), Worker(way, 1) as worker:
        return worker.memory(SIZES[0])


def test_the_memory_that_a_model_takes_is_in_its_peak(tmp_path: Path) -> None:
    nominal = memory(way(tmp_path, "nominal"))
    large = memory(way(tmp_path, "large", megabytes=200))
    assert nominal.peak and large.peak and nominal.libraries and large.libraries
    assert 190e6 < large.peak - nominal.peak < 260e6
    assert abs(large.libraries - nominal.libraries) < 20e6


SCRIPT = """
import sys
from pathlib import Path
from checkpoint_release.benchmark.measure import memory_of_all
from checkpoint_release.benchmark.rounds import Timing, take_turns
from checkpoint_release.benchmark.settings import Sizes
from checkpoint_release.benchmark.worker import environment
from checkpoint_release.core import stage
from tests.support.benchmark_models import way

SIZES = Sizes({"batch": 1})

def main():
    waits = way(Path("models"), "waits", seconds=60)
    with environment(1):
        if sys.argv[1] == "time":
            take_turns([waits], [SIZES], 1, 3)
        else:
            memory_of_all([waits], [Timing("waits", SIZES, 1, 1.0)], 1)

if __name__ == "__main__":
    stage.run(main)
"""


def processes_of(parent: int) -> list[int]:
    """The processes that one has started and that haven't ended."""
    found: list[int] = []
    for children in Path(f"/proc/{parent}/task").glob("*/children"):  # of each thread
        with suppress(OSError):
            found += map(int, children.read_text().split())
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("what", ["time", "memory"])
def test_a_benchmark_that_is_ended_leaves_no_process_behind(
    tmp_path: Path, what: str
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    started = subprocess.Popen(
        [sys.executable, "script.py", what],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: len(processes_of(started.pid)) >= 2, "a process that runs it")
    own = processes_of(started.pid)  # the one that runs the model, and its tracker
    time.sleep(3)  # the model waits by now, or its libraries are being imported
    started.terminate()
    _, printed = started.communicate(timeout=120)
    assert started.returncode == 128 + signal.SIGTERM
    wait_until(lambda: not any(map(is_alive, own)), "the end of its processes")
    assert b"Traceback" not in printed


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler"
)
def test_torch_compile_runs_and_is_refused_where_it_computes_something_else(
    tmp_path: Path,
) -> None:
    eager = way(tmp_path, EAGER)
    with environment(1):
        same = [eager, way(tmp_path, COMPILED, Waits)]
        timings, not_run = take_turns(same, SIZES[1:], 1, 3)
        other = [eager, way(tmp_path, COMPILED, Doubles)]
        others, refused = take_turns(other, SIZES[1:], 1, 3)
    assert not not_run and [each.way for each in timings] == [EAGER, COMPILED]
    compiled = timings[1]
    assert compiled.first > 10 * min(compiled.rounds[-1])  # it compiles
    assert [each.way for each in others] == [EAGER]
    assert "differ from eager torch's by 100.0%" in refused[0].reason
