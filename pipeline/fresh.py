"""Run an artifact in a process of its own, from its files, as somebody would who has nothing else.

The process is `python -m pipeline.fresh JOB`: it opens the artifact, calls it with the arrays of a safetensors file
and writes what came out to another. It has one thread, so that it computes the same on every run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import PipelineError
from pipeline.onnx_random import training_nodes
from pipeline.runtimes import FILES, open_runtime
from pipeline.weights import Weights, compare_weights

Arrays = dict[str, npt.NDArray[Any]]
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


def run_fresh(job: Job, cases: Path, folder: Path) -> Ran:
    """Run the job in a new process.

    Args:
        job: what to run.
        cases: file that write_cases wrote.
        folder: an empty folder for what passes between the processes.
    """
    request = {"job": asdict(job), "cases": str(cases.absolute())}
    (folder / "job.json").write_text(json.dumps(request), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.fresh", str(folder / "job.json")],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    answer = folder / "answer.json"
    if done.returncode != 0 or not answer.exists():
        last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return Ran(failure=f"the process that ran it ended with {done.returncode}: {last[0]}")
    said = json.loads(answer.read_text(encoding="utf-8"))
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


def main(job_file: str) -> None:
    """Do the job that the file describes, and write answer.json and the outputs beside it."""
    folder = Path(job_file).parent
    said = json.loads(Path(job_file).read_text(encoding="utf-8"))
    ran = run_here(Job(**said["job"]), read_cases(Path(said["cases"])))
    for dtype, outputs in ran.outputs.items():
        write_cases(folder / f"{dtype}.safetensors", outputs)
    answer = {
        "dtypes": list(ran.outputs),
        "weights": asdict(ran.weights) if ran.weights else None,
        "faults": ran.faults,
        "failure": ran.failure,
        "failed_case": ran.failed_case,
    }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
