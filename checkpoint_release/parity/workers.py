"""Run artifacts from their files, each in a process of its own, as somebody would who
has nothing else.

Such a process opens the artifact, calls it with the arrays of a safetensors file and
writes what came out to another. It has one thread, so that it computes the same on
every run.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from checkpoint_release.core.errors import CheckpointReleaseError, one_line
from checkpoint_release.parity.weights import Weights, compare_weights
from checkpoint_release.runtimes.open import open_runtime

Arrays = dict[str, npt.NDArray[Any]]
Process = subprocess.Popen[str]
CASES, JOB, OUTPUTS, ANSWER = (
    "cases.safetensors",
    "job.json",
    "outputs.safetensors",
    "answer.json",
)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc would give memory back after every layer and take it anew, which is a fifth
    # of the system's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),  # the largest that it accepts
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
}


@dataclass(frozen=True)
class Job:
    """One artifact to run on all cases.

    Attributes:
        format, path: as checkpoint_release.runtimes.open.open_runtime takes them.
        dtype: what to compute in; float64 for the eager formats only.
        checkpoint: folder whose weights the artifact's own are compared with; None:
            don't.
    """

    format: str
    path: str
    dtype: Literal["float32", "float64"] = "float32"
    checkpoint: str | None = None


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
        failed_case: the index of the case that failed, or None where the artifact
            couldn't even be opened.
    """

    outputs: list[Arrays] = field(default_factory=list)
    weights: Weights | None = None
    faults: list[str] = field(default_factory=list)
    failure: str | None = None
    failed_case: int | None = None


@contextmanager
def torch_worker() -> Iterator[Process]:
    """A process that imports torch while jobs and cases are being made, and takes the
    jobs from run_isolated.
    """
    with _start() as process:
        try:
            yield process
        finally:
            process.kill()


def run_isolated(
    jobs: Mapping[str, Job],
    cases: Sequence[Mapping[str, npt.NDArray[Any]]],
    importing: Process,
) -> dict[str, JobResult]:
    """Run every job on all cases, each in a process of its own, and as many at once as
    there are cores.

    Args:
        jobs: what to run, by any names.
        cases: inputs of every case.
        importing: what torch_worker started; the processes of the formats that need
            torch are forked off it.

    Returns:
        What came of each job, by the same names; a job that fails or kills its process
        is no error here.
    """
    with TemporaryDirectory() as temporary:
        write_cases(Path(temporary) / CASES, cases)
        folders = {}
        for number, (name, job) in enumerate(jobs.items()):
            folders[name] = Path(temporary) / str(number)
            folders[name].mkdir()
            (folders[name] / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
        alone = [folders[name] for name, job in jobs.items() if job.format == "onnx"]
        longest_first = sorted(jobs.items(), key=lambda item: _duration(item[1]))
        forked = [folders[name] for name, job in longest_first if job.format != "onnx"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            running = pool.map(_run_alone, alone)
            _, said = importing.communicate(
                json.dumps([str(folder) for folder in forked])
            )
            list(running)
        for folder in forked:
            _answer_for(folder, importing.returncode, said)
        return {name: _read(folder) for name, folder in folders.items()}


def _duration(job: Job) -> tuple[bool, bool]:
    """A key that sorts what takes longest to the front: double precision, then a
    comparison of weights.
    """
    return job.dtype != "float64", job.checkpoint is None


def _run_alone(folder: Path) -> None:
    with _start(str(folder)) as process:
        _, said = process.communicate()
    _answer_for(folder, process.returncode, said)


def _start(*arguments: str) -> Process:
    """This module's main in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "checkpoint_release.parity.workers", *arguments],
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _answer_for(folder: Path, code: int, said: str = "") -> None:
    """Say of a job whose process ended before it could answer how that ended."""
    if not (folder / ANSWER).exists():
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        _answer(
            folder,
            JobResult(failure=f"the process that ran it ended with {code}: {last[0]}"),
        )


def _answer(folder: Path, ran: JobResult) -> None:
    write_cases(folder / OUTPUTS, ran.outputs)
    (folder / ANSWER).write_text(
        json.dumps(asdict(replace(ran, outputs=[]))), encoding="utf-8"
    )


def _read(folder: Path) -> JobResult:
    said = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    weights = Weights(**said["weights"]) if said["weights"] else None
    return JobResult(
        read_cases(folder / OUTPUTS),
        weights,
        said["faults"],
        said["failure"],
        said["failed_case"],
    )


def write_cases(path: Path, cases: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Write named arrays, case by case; read_cases gives them back in the same order."""
    from safetensors.numpy import save_file

    # ascontiguousarray would make a vector of a scalar.
    arrays = {
        f"{i}/{name}": np.asarray(a, order="C")
        for i, case in enumerate(cases)
        for name, a in case.items()
    }
    save_file(
        arrays, path, metadata={"names": json.dumps([list(case) for case in cases])}
    )


def read_cases(path: Path) -> list[Arrays]:
    """Read what write_cases wrote."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names = json.loads(file.metadata()["names"])
        return [
            {name: file.get_tensor(f"{i}/{name}") for name in case}
            for i, case in enumerate(names)
        ]


def run_job(job: Job, cases: Sequence[Mapping[str, npt.NDArray[Any]]]) -> JobResult:
    """Run the job in this process."""
    outputs: list[Arrays] = []
    running: int | None = None
    try:
        runtime = open_runtime(job.format, job.path, threads=1, dtype=job.dtype)
        for running, inputs in enumerate(cases):  # noqa: B007 (told when it fails)
            outputs.append(runtime.run(inputs))
        running = None
        faults = runtime.faults()
        weights = (
            compare_weights(runtime.weights(), Path(job.checkpoint))
            if job.checkpoint
            else None
        )
    except CheckpointReleaseError as error:
        return JobResult(outputs, failure=error.problem, failed_case=running)
    return JobResult(outputs, weights, faults)


def main() -> None:
    """Do the job of the folder that the command names, or of each folder that standard
    input lists.

    The latter are for torch, whose import takes longer than all else together. Where
    the system can fork, it is imported once, and each job gets a process that has
    imported torch and done nothing else.
    """
    if len(sys.argv) > 1:
        _do(Path(sys.argv[1]))
        return
    gc.disable()  # while a million objects are made that all stay
    import checkpoint_release.runtimes.eager  # noqa: F401 (torch, before the fork)

    gc.freeze()
    gc.enable()
    running: dict[int, Path] = {}
    for folder in map(Path, json.load(sys.stdin)):
        if not hasattr(os, "fork"):
            _do(folder)
            continue
        if len(running) >= (os.cpu_count() or 1):
            _finish(running)
        process = os.fork()
        if process == 0:
            try:
                _do(folder)
            finally:
                # without this process's copies of the parent's buffers and hooks
                os._exit(0)
        running[process] = folder
    while running:
        _finish(running)
    sys.stderr.flush()
    os._exit(0)  # taking torch down in good order takes 0.2 s more


def _finish(running: dict[int, Path]) -> None:
    """Wait for one of the processes; one that was killed before it could answer is
    answered for.
    """
    process, status = os.wait()
    _answer_for(running.pop(process), os.waitstatus_to_exitcode(status))


def _do(folder: Path) -> None:
    job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    try:
        ran = run_job(job, read_cases(folder.parent / CASES))
    except (Exception, SystemExit) as error:
        # what a library raises on a broken artifact, or the model's own code
        ran = JobResult(failure=f"{type(error).__name__}: {one_line(error)}")
    _answer(folder, ran)


if __name__ == "__main__":
    main()
