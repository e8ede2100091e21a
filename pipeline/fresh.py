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
from pipeline.runtimes import open_runtime
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
        failure: what went wrong, or None.
        failed_case: the index of the case that failed, or None where the artifact couldn't even be opened.
    """

    outputs: dict[str, list[Arrays]] = field(default_factory=dict)
    weights: Weights | None = None
    failure: str | None = None
    failed_case: int | None = None


def run_fresh(job: Job, cases: Path, folder: Path) -> Ran:
    """Run the job in a new process.

    Args:
        job: what to run.
        cases: file that write_cases wrote.
        folder: an empty folder for what passes between the processes.
    """
    request = {**asdict(job), "cases": str(cases), "folder": str(folder)}
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
    return Ran(outputs, weights, said["failure"], said["failed_case"])


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


def main(job_file: str) -> None:
    """Do the job that the file describes, and write answer.json beside it."""
    said = json.loads(Path(job_file).read_text(encoding="utf-8"))
    folder, cases = Path(said["folder"]), read_cases(Path(said["cases"]))
    done: list[str] = []
    failure, failed_case, weights = None, None, None
    try:
        for dtype in said["dtypes"]:
            failed_case = None
            runtime = open_runtime(said["format"], said["path"], threads=1, dtype=dtype)
            outputs: list[Arrays] = []
            for number, inputs in enumerate(cases):
                failed_case = number
                outputs.append(runtime.run(inputs))
            write_cases(folder / f"{dtype}.safetensors", outputs)
            done.append(dtype)
        failed_case = None
        if said["checkpoint"]:
            weights = asdict(compare_weights(runtime.weights(), Path(said["checkpoint"])))
    except PipelineError as error:
        failure = error.problem
    answer = {"dtypes": done, "failure": failure, "failed_case": failed_case, "weights": weights}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
