"""Reads files as a release does, each in a process of its own, and measures what it
took: `python -m tests.support.metered ACT FILE…`, where ACT is `release` or `report`.

The processes are forked from one that has imported everything, so that only reading is
measured. An audit hook watches them, as in `watched`: they may open and map the file,
and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import checkpoint_release.models.stick_figure  # noqa: F401  inspect tries it
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.pth import to_json_value
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.state_dict.inspection import inspect
from checkpoint_release.state_dict.model_weights import read_model_weights
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.tensor import TensorLike
from tests.support import watched

BASE_MEMORY = 64 << 20  # bytes
BASE_SECONDS = 1.0
SECONDS_A_BYTE = 1e-7
MEMORY_A_BYTE = 4


@dataclass(frozen=True)
class Metered:
    """What reading one file took.

    Attributes:
        size: of the file, in bytes.
        error: its message; "" where the file was read.
        crash: a traceback, where one came out of it.
        violations: audit events that no reading causes.
        memory: the peak of the process above what it began with, in bytes.
        seconds: of processor time.
    """

    size: int
    error: str
    crash: str
    violations: list[str]
    memory: int
    seconds: float

    @property
    def memory_share(self) -> float:
        """Of what a file of this size may take; above 1 it is too much."""
        return self.memory / (BASE_MEMORY + MEMORY_A_BYTE * self.size)

    @property
    def time_share(self) -> float:
        return self.seconds / (BASE_SECONDS + SECONDS_A_BYTE * self.size)


def release(path: Path) -> None:
    """What becomes of a file on its way to a release, without writing anything.

    Raises:
        CheckpointReleaseError: at the first step that refuses it.
    """
    checkpoint = read_source(path)
    facts = training_facts(checkpoint.value)
    json.dumps([facts, checkpoint.left_out])
    json.dumps(to_json_value(checkpoint.value))
    if _holds_weights(checkpoint.value):
        stream(read_model_weights(checkpoint).tensors)


def report(path: Path) -> None:
    """What `inspect` prints of a file.

    Raises:
        CheckpointReleaseError: the file can't be read.
    """
    for line in str(inspect(path)).split("\n"):
        assert line.isprintable(), "the report steers the terminal"


def _holds_weights(value: Any) -> bool:
    """Only dicts can; the error for anything else is read_model_weights' first."""
    return isinstance(value, dict) and bool(value)


def stream(tensors: dict[str, TensorLike]) -> None:
    for tensor in tensors.values():
        for piece in tensor.chunks():
            bytes(piece[:1])


ACTS: dict[str, Callable[[Path], None]] = {"release": release, "report": report}


def metered(path: Path, act: Callable[[Path], None] = release) -> Metered:
    """Run an act on a file in a forked process, and measure it."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        with os.fdopen(sender, "w") as out:
            json.dump(asdict(_measure(path, act)), out)
            out.flush()
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver) as came:
        text = came.read()
    _, status = os.waitpid(child, 0)
    if not text:
        crash = f"the process ended with {status}"
        return Metered(path.stat().st_size, "", crash, [], 0, 0)
    return Metered(**json.loads(text))


def _measure(path: Path, act: Callable[[Path], None]) -> Metered:
    size = path.stat().st_size
    memory, begun = watched.peak(), time.process_time()
    error = crash = ""
    sys.addaudithook(watched.hook)
    watched.watching[:] = [str(path)]
    try:
        act(path)
    except CheckpointReleaseError as problem:
        error = str(problem)
    except BaseException:
        watched.watching.clear()
        crash = traceback.format_exc()[-2000:]
    watched.watching.clear()
    seconds = time.process_time() - begun
    return Metered(
        size,
        error,
        crash,
        watched.violations[:5],
        watched.peak() - memory,
        seconds,
    )


def main(act: str, paths: list[str]) -> None:
    results = {}
    for path in paths:
        results[Path(path).name] = asdict(metered(Path(path), ACTS[act]))
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
