"""Run artifacts from their files, each in a process of its own, as somebody would who has nothing else.

Such a process opens the artifact, calls it with the arrays of a safetensors file and writes what came out to another.
It has one thread, so that it computes the same on every run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.onnx_random import training_nodes
from pipeline.runtimes import FILES, open_runtime
from pipeline.weights import Weights, compare_weights

Arrays = dict[str, npt.NDArray[Any]]
CASES, JOB, ANSWER = "cases.safetensors", "job.json", "answer.json"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Job:
    """One artifact to run on all cases.

    Attributes:
        format, path: as pipeline.runtimes.open_runtime takes them.
        dtypes: what to compute in, one run each; more than one for the eager formats only.
        checkpoint: folder whose weights the artifact's own are compared with; None: don't.
    """

    format: str
    path: str
    dtypes: tuple[Literal["float32", "float64"], ...] = ("float32",)
    checkpoint: str | None = None


@dataclass(frozen=True)
class Ran:
    """What came of a job.

    Attributes:
        outputs: by dtype, then by case: name → array, in the artifact's order. A failure leaves it shorter.
        weights: the comparison of weights, where it was asked for.
        faults: one sentence for each thing in the file that is wrong whatever it computes.
        failure: what went wrong, or None.
        failed_case: the index of the case that failed, or None where the artifact couldn't even be opened.
    """

    outputs: dict[str, list[Arrays]] = field(default_factory=dict)
    weights: Weights | None = None
    faults: list[str] = field(default_factory=list)
    failure: str | None = None
    failed_case: int | None = None


def run_fresh(jobs: Mapping[str, Job], cases: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, Ran]:
    """Run every job on all cases, each in a process of its own, and as many at once as there are cores.

    Args:
        jobs: what to run, by any names.
        cases: inputs of every case.

    Returns:
        What came of each job, by the same names; a job that fails or kills its process is no error here.
    """
    with TemporaryDirectory() as temporary:
        write_cases(Path(temporary) / CASES, cases)
        folders = {}
        for number, (name, job) in enumerate(jobs.items()):
            folders[name] = Path(temporary) / str(number)
            folders[name].mkdir()
            (folders[name] / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
        # Those that need torch come first: they share a parent that has imported it, and take longest.
        alone = [[folder] for name, folder in folders.items() if jobs[name].format == "onnx"]
        shared = [folder for name, folder in folders.items() if jobs[name].format != "onnx"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_start, [shared, *alone] if shared else alone))
        return {name: _read(folder) for name, folder in folders.items()}


def _start(folders: Sequence[Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.fresh", *map(str, folders)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    for folder in folders:
        if not (folder / ANSWER).exists():
            last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            _answer(folder, Ran(failure=f"the process that ran it ended with {done.returncode}: {last[0]}"))


def _answer(folder: Path, ran: Ran) -> None:
    for dtype, outputs in ran.outputs.items():
        write_cases(folder / f"{dtype}.safetensors", outputs)
    said = {**asdict(replace(ran, outputs={})), "dtypes": list(ran.outputs)}
    (folder / ANSWER).write_text(json.dumps(said), encoding="utf-8")


def _read(folder: Path) -> Ran:
    said = json.loads((folder / ANSWER).read_text(encoding="utf-8"))
    outputs = {dtype: read_cases(folder / f"{dtype}.safetensors") for dtype in said["dtypes"]}
    weights = Weights(**said["weights"]) if said["weights"] else None
    return Ran(outputs, weights, said["faults"], said["failure"], said["failed_case"])


def write_cases(path: Path, cases: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
    """Write named arrays, case by case; read_cases gives them back in the same order."""
    from safetensors.numpy import save_file

    arrays = {f"{i}/{name}": np.ascontiguousarray(a) for i, case in enumerate(cases) for name, a in case.items()}
    save_file(arrays, path, metadata={"names": json.dumps([list(case) for case in cases])})


def read_cases(path: Path) -> list[Arrays]:
    """Read what write_cases wrote."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        names = json.loads(file.metadata()["names"])
        return [{name: file.get_tensor(f"{i}/{name}") for name in case} for i, case in enumerate(names)]


def run_here(job: Job, cases: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Ran:
    """Run the job in this process."""
    outputs: dict[str, list[Arrays]] = {}
    failed: int | None = None
    try:
        faults: list[str] = []
        for dtype in job.dtypes:
            failed = None
            runtime = open_runtime(job.format, job.path, threads=1, dtype=dtype)
            computed: list[Arrays] = []
            for number, inputs in enumerate(cases):
                failed = number
                computed.append(runtime.run(inputs))
            outputs[dtype], failed = computed, None
        if job.format == "onnx":
            faults = training_nodes(_onnx_file(Path(job.path)))
        weights = compare_weights(runtime.weights(), Path(job.checkpoint)) if job.checkpoint else None
    except PipelineError as error:
        return Ran(outputs, failure=error.problem, failed_case=failed)
    return Ran(outputs, weights, faults)


def _onnx_file(path: Path) -> Path:
    return path / FILES["onnx"] if path.is_dir() else path


def main(folders: Sequence[Path]) -> None:
    """Do the job of each folder in a process of its own.

    Importing torch takes longer than all else together. Where the system can fork, it is imported once, and each job
    gets a process that has imported torch and done nothing else.
    """
    if len(folders) == 1 or not hasattr(os, "fork"):
        for folder in folders:
            _do(folder)
        return
    import pipeline.eager  # noqa: F401 (torch, before the fork)

    running: dict[int, Path] = {}
    for folder in folders:
        if len(running) >= (os.cpu_count() or 1):
            _finish(running)
        process = os.fork()
        if process == 0:
            try:
                _do(folder)
            finally:
                os._exit(0)  # without this process's copies of the parent's buffers and hooks
        running[process] = folder
    while running:
        _finish(running)


def _finish(running: dict[int, Path]) -> None:
    """Wait for one of the processes; one that was killed before it could answer is answered for."""
    process, status = os.wait()
    folder = running.pop(process)
    if not (folder / ANSWER).exists():
        code = os.waitstatus_to_exitcode(status)
        _answer(folder, Ran(failure=f"the process that ran it ended with {code} and said nothing"))


def _do(folder: Path) -> None:
    job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    try:
        ran = run_here(job, read_cases(folder.parent / CASES))
    except Exception as error:  # what a library raises on an artifact that is broken
        ran = Ran(failure=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    _answer(folder, ran)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
