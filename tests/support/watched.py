"""Reads checkpoints while an audit hook watches, and prints what came of each: `python
-m tests.support.watched READER FILE…`.

From the first file on, the process may open the files it was given for reading, and map
them. Whatever else raises an audit event (an import, a compilation, another file, a
process, a socket) is reported as a violation. READER is `ours`, or `pickle`: the
control, which runs what the file says.
"""

from __future__ import annotations

import io
import json
import pickle
import resource
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Checkpoint, Tensor, read_checkpoint, to_json_value

MEMORY = 3 << 30  # bytes of address space; what a bomb would have to stay under
SECONDS = 60  # processor time for one file

violations: list[str] = []
watching: list[str] = []


def hook(event: str, args: tuple[Any, ...]) -> None:
    if not watching or event in ("builtins.id", "mmap.__new__"):
        return
    if event == "open" and str(args[0]) == watching[0] and args[1] in ("r", "rb", None):
        return
    violations.append(f"{event}{args[:2]!r}"[:200])


def ours(path: Path) -> Any:
    checkpoint = read_checkpoint(path)
    walk(checkpoint)
    json.dumps(to_json_value(checkpoint.value))
    repr(checkpoint.left_out)
    return {
        **checkpoint.left_out,
        "tensors": sum(isinstance(value, Tensor) for value in leaves(checkpoint.value)),
    }


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def walk(checkpoint: Checkpoint) -> None:
    """Use what was read as an export would."""
    for leaf in leaves(checkpoint.value)[:1000]:
        if isinstance(leaf, Tensor) and leaf.nbytes < 1 << 28:
            for chunk in leaf.chunks():
                bytes(chunk[:1])


def careless(path: Path) -> Any:
    """What weights_only=False comes to."""
    data = path.read_bytes()
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read("archive/data.pkl")
    unpickler = pickle.Unpickler(io.BytesIO(data))
    unpickler.persistent_load = lambda pid: pid  # type: ignore[method-assign]
    for _ in range(5):
        unpickler.load()
    return {}


def peak() -> int:
    """The most memory that this process has had, in bytes; getrusage would count the
    process that started it too.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(
        int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")
    )


def main(reader: Callable[[Path], Any], paths: list[str]) -> None:
    sys.addaudithook(hook)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    results = {}
    for path in paths:
        file = Path(path)
        violations.clear()
        begun = time.process_time()
        signal.alarm(10 * SECONDS)  # a hang kills the process, and with it the test
        watching[:] = [path]
        try:
            outcome, error = reader(file), ""
        except CheckpointError as problem:
            outcome, error = {}, str(problem)
        except BaseException as crash:
            watching.clear()
            outcome, error = {}, f"CRASH {type(crash).__name__}: {str(crash)[:300]}"
        watching.clear()
        signal.alarm(0)
        seconds = time.process_time() - begun
        results[file.name] = {
            "outcome": outcome,
            "error": error,
            "violations": violations[:5],
            "seconds": seconds,
        }
    print(json.dumps({"files": results, "peak": peak() >> 20}))


if __name__ == "__main__":
    main({"ours": ours, "pickle": careless}[sys.argv[1]], sys.argv[2:])
