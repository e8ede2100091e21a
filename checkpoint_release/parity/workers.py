"""Run artifacts from their files, each in a process of its own, as somebody would who
has nothing else.

A process opens one artifact, calls it with every case's inputs, sends back what came
out, and ends. It has one thread, so that it computes the same on every run. Processes
that need torch are forked off a server that has imported it and done nothing else;
those for ONNX start from scratch, without torch.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Literal

import numpy as np

from checkpoint_release.core.artifacts.formats import FORMATS, ONNX
from checkpoint_release.core.errors import CheckpointReleaseError, one_line
from checkpoint_release.core.inherited_environment import inherited_environment
from checkpoint_release.core.signature import Arrays
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.weights import WeightsReport, compare_weights
from checkpoint_release.runtimes.open import open_runtime

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc would give memory back after every layer and take it anew, which is a fifth
    # of the system's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the largest that it accepts
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}
"""Of the processes: libraries read it when they are loaded."""
_LIBRARY = __name__.partition(".")[0]
_WORKER = "checkpoint-release worker"
_LONGEST_SOCKET = 103  # bytes of the path, on the system that allows the least
_SOCKET = "/pymp-12345678/listener-12345678"  # where multiprocessing puts it


@dataclass(frozen=True)
class Job:
    """One artifact to run on all cases.

    Attributes:
        format, path: as checkpoint_release.runtimes.open.open_runtime takes them.
        dtype: what to compute in: the artifact's own dtypes, or float64. ONNX Runtime
            can't do that: there, onnx's evaluator runs the graph.
        only: names of the cases to run; None: all.
        checkpoint: folder whose weights the artifact's own are compared with; None:
            don't.
    """

    format: str
    path: Path
    dtype: Literal["own", "float64"] = "own"
    only: frozenset[str] | None = None
    checkpoint: Path | None = None

    def chosen(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that it takes."""
        return [case for case in cases if self.only is None or case.name in self.only]

    @property
    def needs_torch(self) -> bool:
        """Whether torch opens the artifact, or computes some of its operators."""
        return self.format != ONNX.name or self.dtype == "float64"

    @property
    def priority(self) -> tuple[bool, bool, bool]:
        """A key that sorts to the front what need not wait for torch, and then what
        takes longest: double precision, a comparison of weights.
        """
        return self.needs_torch, self.dtype != "float64", self.checkpoint is None


@dataclass(frozen=True)
class JobResult:
    """What came of a job.

    Attributes:
        outputs: by case: name → array, in the artifact's order. A failure leaves it
            shorter.
        weights: the comparison of weights, where it was asked for.
        faults: one sentence for each thing in the file that is wrong whatever it
            computes.
        failure: what went wrong, or None.
        failed_case: the name of the case that failed, or None where the artifact
            couldn't even be opened.
    """

    outputs: list[Arrays] = field(default_factory=list)
    weights: WeightsReport | None = None
    faults: list[str] = field(default_factory=list)
    failure: str | None = None
    failed_case: str | None = None


class WorkerError(Exception):
    """A process ended, or had to be ended, before it gave a result."""


def _can_fork() -> bool:
    """Whether processes can be forked off a server that has imported torch.

    Not every system has it, and its socket doesn't fit everywhere: the path of the
    temporary folder may be too long for one.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    socket = os.fsencode(gettempdir() + _SOCKET)
    return len(socket) <= _LONGEST_SOCKET


def preload_torch() -> None:
    """Start the server that imports torch, which takes seconds, and don't wait for it.

    It ends with this process.
    """
    if not _can_fork():
        return
    # Processes run this one's main module again, which must not import anew in each.
    loaded = [name for name in sys.modules if name.startswith(f"{_LIBRARY}.")]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*loaded, f"{_LIBRARY}.parity.preload"])
    with inherited_environment(ENVIRONMENT):
        multiprocessing.forkserver.ensure_running()


def run_isolated(
    jobs: Mapping[str, Job], cases: Sequence[Case], at_once: int | None = None
) -> dict[str, JobResult]:
    """Run every job on all cases, each in a process of its own.

    A process imports the main module of this one, as multiprocessing does, so a script
    calls this under `if __name__ == "__main__"`.

    Args:
        jobs: what to run, by any names.
        cases: what to run it on.
        at_once: how many run at a time; None: as many as there are cores.

    Returns:
        What came of each job, by the same names; a job that fails or kills its process
        is no error here.
    """
    preload_torch()
    in_order = sorted(jobs, key=lambda name: jobs[name].priority)
    running, results = {}, {}
    with (
        inherited_environment(ENVIRONMENT),
        ThreadPoolExecutor(at_once or os.cpu_count()) as pool,
    ):
        for name in in_order:
            running[name] = pool.submit(_run_in_process, jobs[name], cases)
        try:
            for name in jobs:
                results[name] = running[name].result()
        except BaseException:
            # such as SIGTERM: nobody waits for the results
            pool.shutdown(wait=False, cancel_futures=True)
            kill_until_done(running.values())
            raise
    return results


def kill_until_done(running: Iterable[Future[Any]]) -> None:
    """End every isolated process, also one that is just being started.

    Args:
        running: the calls that wait for them.
    """
    while any(future.running() for future in running):
        for child in multiprocessing.active_children():
            if child.name == _WORKER:
                child.kill()
        time.sleep(0.05)  # seconds


def _run_in_process(job: Job, cases: Sequence[Case]) -> JobResult:
    """Run the job in a process of its own, whatever becomes of the process.

    Returns:
        What came of it; a process that is killed, such as for want of memory, is a
        failure too.
    """
    try:
        result: JobResult = call_isolated(
            _run_any, job, cases, needs_torch=job.needs_torch
        )
    except WorkerError as error:
        return JobResult(failure=f"the process that ran it {error}")
    return result


def _run_any(job: Job, cases: Sequence[Case]) -> JobResult:
    """Run the job, whatever the artifact's library or the model's code may raise."""
    try:
        return run_job(job, cases)
    except (Exception, SystemExit) as error:
        return JobResult(failure=f"{type(error).__name__}: {one_line(error)}")


def run_job(job: Job, cases: Sequence[Case]) -> JobResult:
    """Run the job in this process.

    Args:
        job: what to run.
        cases: what to run it on, as far as the job takes them.

    Returns:
        What came of it; of a failure, the outputs of the cases before it.
    """
    if job.format == ONNX.name and job.dtype == "float64":
        return _evaluate(job, cases)
    outputs: list[Arrays] = []
    case: Case | None = None
    try:
        runtime = open_runtime(
            job.format, job.path, threads=1, dtype=job.dtype, trust=OWN_ARTIFACTS
        )
        for case in job.chosen(cases):
            outputs.append(runtime.run(case.inputs))
        case = None  # what fails from here on fails in no case
        weights = None
        if job.checkpoint is not None:
            weights = compare_weights(runtime.weights(), job.checkpoint)
        return JobResult(outputs, weights, runtime.faults())
    except CheckpointReleaseError as error:
        failed_case = case.name if case else None
        return JobResult(outputs, failure=error.problem, failed_case=failed_case)


def _evaluate(job: Job, cases: Sequence[Case]) -> JobResult:
    """Evaluate an ONNX graph in float64, with the numbers that its constants are likely
    to stand for.
    """
    from checkpoint_release.parity.constants import weights_of
    from checkpoint_release.parity.double_graph import NO_WEIGHTS, DoubleGraph

    weights = weights_of(job.checkpoint) if job.checkpoint else NO_WEIGHTS
    graph = DoubleGraph(FORMATS[job.format].main_file(job.path), weights)
    graph.set_likely_constants()
    with np.errstate(all="ignore"):  # what is not finite is judged
        return JobResult([graph.run(case.inputs) for case in job.chosen(cases)])


def call_isolated(
    function: Callable[..., Any],
    *arguments: Any,
    needs_torch: bool,
    timeout: float | None = None,
) -> Any:
    """Call a function in a process of its own, and return what it returns.

    Args:
        function: at the top level of its module, so that it can be sent.
        arguments: sent to the process.
        needs_torch: whether to fork a process that has torch.
        timeout: seconds; None: no limit.

    Raises:
        WorkerError: the process ended without a result; the message says how, or that
            it took too long.
    """
    method = "forkserver" if needs_torch and _can_fork() else "spawn"
    context: Any = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    call_receiver, call_sender = context.Pipe(duplex=False)
    with TemporaryDirectory() as folder, receiver, call_sender:
        log = Path(folder) / "stderr"
        process = context.Process(
            target=_send_result,
            args=(call_receiver, sender, log),
            name=_WORKER,
            daemon=True,
        )
        try:
            with call_receiver, sender:
                process.start()
            # Not among the process's own arguments: multiprocessing writes those while
            # it holds the other end as well, and would wait for ever for a process that
            # was killed before it read them.
            call_sender.send((function, arguments))
            if receiver.poll(timeout):
                return receiver.recv()
            raise WorkerError(f"took longer than {timeout} seconds")
        except (EOFError, OSError) as error:
            raise WorkerError(_how_it_ended(process, log)) from error
        finally:
            if process.pid is not None:
                process.kill()
                process.join()


def _how_it_ended(process: BaseProcess, log: Path) -> str:
    """How a process ended that gave no result: its exit code, and its last words.

    Args:
        process: that was to be started.
        log: the file that holds what it printed to standard error, if it got so far.
    """
    if process.pid is None:
        return "could not be started"
    process.join()
    lines = []
    if log.exists():
        printed = log.read_text(encoding="utf-8", errors="replace")
        lines = printed.strip().splitlines()
    last = lines[-1] if lines else "it printed nothing"
    return f"ended with {process.exitcode}: {last}"


def _send_result(receiver: Connection, sender: Connection, log: Path) -> None:
    """All that a process does. What it prints is of use only if it fails.

    Args:
        receiver: gives what to call, and with which arguments.
        sender: where to send the result.
        log: the file that takes the place of standard error.
    """
    with log.open("wb") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    with Path(os.devnull).open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
    function, arguments = receiver.recv()
    sender.send(function(*arguments))
    sender.close()
