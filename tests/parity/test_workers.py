"""A process that runs an artifact may do what it likes: its own job alone fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from checkpoint_release.parity.cases import Case, draw_cases
from checkpoint_release.parity.workers import (
    ENVIRONMENT,
    Job,
    WorkerError,
    call_isolated,
    run_isolated,
)
from tests.support.parity_world import (
    Counter,
    Exits,
    Fatal,
    Hangs,
    Patricide,
    Quits,
    counter_architecture,
    trained,
    write_checkpoint,
)
from tests.support.project import ROOT

CASES = draw_cases(counter_architecture().signature, seed=0, sizes={}, magnitudes=[])


def job(folder: Path, kind: type[nn.Module]) -> Job:
    """To run a checkpoint of this kind of model."""
    weights = trained(counter_architecture())
    write_checkpoint(folder / kind.__name__, counter_architecture(kind), weights)
    return Job("checkpoint", folder / kind.__name__)


def test_a_process_that_dies_is_its_jobs_failure_and_no_other_jobs(
    tmp_path: Path,
) -> None:
    (tmp_path / "not-onnx").mkdir()
    (tmp_path / "not-onnx/model.onnx").write_bytes(b"no graph")
    jobs = {
        "fatal": job(tmp_path, Fatal),
        "exits": job(tmp_path, Exits),
        "quits": job(tmp_path, Quits),
        "good": job(tmp_path, Counter),
        "not-onnx": Job("onnx", tmp_path / "not-onnx"),
    }
    results = run_isolated(jobs, CASES)
    assert list(results) == list(jobs)
    assert "ended with -9: last words" in str(results["fatal"].failure)
    assert not results["fatal"].outputs
    assert "ended with 3: it printed nothing" in str(results["exits"].failure)
    assert "SystemExit: usage: quits" in str(results["quits"].failure)
    assert "can't be opened" in str(results["not-onnx"].failure)
    good = results["good"]
    assert good.failure is None and len(good.outputs) == len(CASES)
    assert list(good.outputs[0]) == ["scores", "winner", "tokens_again"]


def test_when_the_process_that_imports_torch_dies_no_job_fails_for_it(
    tmp_path: Path,
) -> None:
    jobs = {
        "kills its parent": job(tmp_path, Patricide),
        "comes later": job(tmp_path, Counter),
    }
    for name, one in jobs.items():
        result = run_isolated({name: one}, CASES)[name]
        assert result.failure is None and len(result.outputs) == len(CASES)


def test_the_case_that_fails_is_named(tmp_path: Path) -> None:
    beyond = Case("beyond the range", "nominal", 1.0, {"tokens": np.full((2, 3), 7)})
    good = job(tmp_path, Counter)
    result = run_isolated({"one": good}, [*CASES, beyond])["one"]
    assert result.failed_case == "beyond the range"
    assert len(result.outputs) == len(CASES)


SCRIPT = """
import signal, sys
from pathlib import Path
from checkpoint_release.parity.workers import Job, run_isolated
from tests.parity.test_workers import CASES

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    jobs = {name: Job("checkpoint", Path(sys.argv[1])) for name in "abcdef"}
    signal.alarm(200)
    print("ready", flush=True)
    run_isolated(jobs, CASES)
"""


def test_a_caller_that_is_stopped_does_not_wait_for_its_jobs(tmp_path: Path) -> None:
    hangs = job(tmp_path, Hangs)
    command = [sys.executable, "-c", SCRIPT, str(hangs.path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(1)  # in which torch is being imported, and the jobs wait for it
        process.terminate()
        assert process.wait(timeout=60) == 143


def large_array(size: int) -> np.ndarray:
    return np.arange(size)


def environment() -> dict[str, str]:
    return dict(os.environ)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


@pytest.mark.parametrize("needs_torch", [False, True])
def test_arrays_of_any_size_come_back(needs_torch: bool) -> None:
    size = 1 << 22
    got = call_isolated(large_array, size, needs_torch=needs_torch)
    assert np.array_equal(got, np.arange(size))


def test_processes_have_one_thread_and_the_caller_keeps_its_environment(
    tmp_path: Path,
) -> None:
    before = dict(os.environ)
    script = """
import json, sys
from checkpoint_release.parity import workers
from tests.parity.test_workers import environment
workers.preload_torch()
forked = workers.call_isolated(environment, needs_torch=True)
json.dump(forked, sys.stdout)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ENVIRONMENT.items() <= json.loads(done.stdout).items()
    run_isolated({"none": Job("onnx", tmp_path / "none")}, CASES)
    assert dict(os.environ) == before


def test_a_call_that_takes_too_long_is_ended() -> None:
    with pytest.raises(WorkerError, match=r"took longer than 0\.1 seconds"):
        call_isolated(sleep, 60.0, needs_torch=False, timeout=0.1)


@pytest.mark.timeout(60)
def test_a_process_that_dies_before_it_reads_its_call_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill hits the whole group, and so a process that is just being started; the
    call is larger than what a pipe holds.
    """
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))  # where Python finds nothing
    with pytest.raises(WorkerError, match="ended with 1"):
        call_isolated(len, bytes(1 << 20), needs_torch=False)


def test_a_temporary_folder_too_deep_for_a_socket_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    assert call_isolated(os.getppid, needs_torch=True) == os.getpid()
