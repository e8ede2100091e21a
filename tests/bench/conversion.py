"""One conversion in this process.

    python -m tests.bench.conversion WAY SOURCE TARGET

Prints the seconds and the processor's seconds that the work takes, and the peak of
memory in bytes above an interpreter that has imported what it needs. TARGET is the file
to write, or for a stage the folder in which it runs.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.watched import peak

Convert = Callable[[Path, Path], object]
KEY = "model_state_dict"
METADATA = {"format": "pt"}


def copy() -> Convert:
    return lambda source, target: subprocess.run(["cp", source, target], check=True)


def digest() -> Convert:
    from checkpoint_release.core.files import sha256

    return lambda source, target: sha256(source)


def read_and_write() -> Convert:
    """This project's reader and writer alone, without the digest of what is written."""
    from checkpoint_release.pth import read_checkpoint
    from checkpoint_release.tensors import safetensors

    class Undigested(io.BufferedWriter):
        entry = None

        def __init__(self, path: Path) -> None:
            super().__init__(io.FileIO(path, "wb"))

    def convert(source: Path, target: Path) -> None:
        weights = read_checkpoint(source).value[KEY]
        safetensors.write_safetensors(target, weights, METADATA)

    safetensors.DigestedFile = Undigested  # type: ignore[assignment,attr-defined]
    return convert


def load() -> Convert:
    from pipeline import load

    return _stage(load.main)


def export_safetensors() -> Convert:
    from pipeline import export_safetensors

    return _stage(export_safetensors.main)


def _stage(main: Callable[[], None]) -> Convert:
    def convert(source: Path, target: Path) -> None:
        os.chdir(target)
        with contextlib.redirect_stdout(None):
            main()

    return convert


def by_hand() -> Convert:
    """The usual script."""
    import torch
    from safetensors.torch import save_file

    return lambda source, target: save_file(torch.load(source)[KEY], target, METADATA)


WAYS: dict[str, Callable[[], Convert]] = {
    "cp": copy,
    "sha256": digest,
    "read and write": read_and_write,
    "load": load,
    "export-safetensors": export_safetensors,
    "torch.load and save_file": by_hand,
}


def main(way: str, source: str, target: str) -> None:
    convert = WAYS[way]()
    memory, start, processor = peak(), time.perf_counter(), sum(os.times()[:4])
    convert(Path(source), Path(target))
    figures = {
        "seconds": time.perf_counter() - start,
        "processor": sum(os.times()[:4]) - processor,
        "peak": peak() - memory,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
