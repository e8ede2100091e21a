"""One load in this process.

    python -m tests.bench.load_way WAY FOLDER KWARGS

Prints the seconds that it takes, and the bytes that the process holds afterwards above
what it held before; where what was loaded is a model, again after one run, which is
when mapped weights are read. Libraries are imported before the clock starts.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoint_release.pth
import checkpoint_release.state_dict.find
import checkpoint_release.tensors.safetensors  # noqa: F401  before the clock starts
from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.runtimes.loader import load
from tests.support.tiny_release import FILES, sizes_of

Load = Callable[[Path, dict[str, Any]], Any]


def torch_load(**options: Any) -> Load:
    """torch.load alone, with some options."""
    import torch

    def load_pth(folder: Path, kwargs: dict[str, Any]) -> Any:
        return torch.load(folder / FILES["pth"], **options)["model_state_dict"]

    return load_pth


def load_file() -> Load:
    """safetensors' own."""
    from safetensors.torch import load_file

    return lambda folder, kwargs: load_file(folder / FILES["safetensors"])


def into_model(load_weights: Load) -> Load:
    """Weights loaded into a model that was built before."""
    from checkpoint_release.models.stick_figure import build

    def load_into(folder: Path, kwargs: dict[str, Any]) -> Any:
        model = build(**kwargs)
        model.load_state_dict(load_weights(folder, kwargs))
        return model.eval()

    return load_into


def ours(format: str) -> Load:
    """This project's loader, for one file of a release."""
    if format == "onnx":
        import onnxruntime  # noqa: F401
    else:
        import torch  # noqa: F401

        import checkpoint_release.runtimes.eager  # noqa: F401
    return lambda folder, kwargs: load(folder / FILES[format])


WAYS: dict[str, Callable[[], Load]] = {
    "torch.load": torch_load,
    "torch.load(weights_only=False)": lambda: torch_load(weights_only=False),
    "torch.load(mmap=True)": lambda: torch_load(mmap=True),
    "safetensors load_file": load_file,
    "torch.load into a model": lambda: into_model(torch_load()),
    "load_file into a model": lambda: into_model(load_file()),
    "load safetensors": lambda: ours("safetensors"),
    "load onnx": lambda: ours("onnx"),
    "load torchscript": lambda: ours("torchscript"),
    "load pth": lambda: ours("pth"),
}


def resident() -> int:
    """The bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def main(way: str, folder: str, kwargs: str) -> None:
    warnings.simplefilter("ignore")
    load_it = WAYS[way]()
    arguments = json.loads(kwargs)
    gc.collect()
    before = resident()
    start = time.perf_counter()
    loaded = load_it(Path(folder), arguments)
    figures: dict[str, float] = {"seconds": time.perf_counter() - start}
    figures["held"] = resident() - before
    if way.startswith("load "):
        signature = loaded.signature
        loaded(**sample_inputs(signature, sizes_of(signature), 0))
        figures["held after a run"] = resident() - before
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
