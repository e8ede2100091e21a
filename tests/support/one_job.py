"""One job of the parity check in this process, with every model taken for a large one.

    python -m tests.support.one_job FOLDER FORMAT DTYPE

FOLDER holds artifacts and `checkpoint`. Prints the most memory that no file is behind,
in bytes above what libraries take, and the size of the weights.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import onnxruntime  # noqa: F401  before memory is looked at
import torch  # noqa: F401

from checkpoint_release.core import large
from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.parity import double_graph, onnx_in_double  # noqa: F401
from checkpoint_release.parity.cases import draw_cases
from checkpoint_release.parity.workers import Job, run_job
from checkpoint_release.runtimes.model_config import require_config


def private() -> int:
    """The memory of this process without what is mapped from files, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise OSError("this system doesn't state a process's memory")


class Watch(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        while True:
            self.most = max(self.most, private())
            time.sleep(0.002)


def main(folder: Path, format: str, dtype: str) -> None:
    large.LARGE = 0
    signature = require_config(folder / "onnx").architecture.signature
    cases = draw_cases(signature, seed=0, sizes={}, magnitudes=[], repeats=1)
    job = Job(format, folder / format, dtype, None, folder / "checkpoint")  # type: ignore[arg-type]
    before = private()
    watch = Watch()
    watch.start()
    result = run_job(job, cases[:2])
    print(
        json.dumps(
            {
                "memory": watch.most - before,
                "weights": (folder / "checkpoint" / WEIGHTS_FILE).stat().st_size,
                "failure": result.failure,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
