"""Models whose time and memory are known, and a benchmark that needn't be measured."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from checkpoint_release.benchmark.ways import Way
from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.benchmark import (
    COMPILED,
    EAGER,
    Benchmark,
    BenchmarkMachine,
    Checked,
    Measurement,
    NotRun,
)
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.stated_signature import read_signature
from tests.support.checkpoint_folder import state_dict, write_checkpoint

MACHINE = BenchmarkMachine(
    processor="Test Processor 9000",
    cores=8,
    memory_gb=16.0,
    system="Linux 6.1",
    libraries={"torch": "2.13.0"},
    load=0.1,
)
SIGNATURE: dict[str, Any] = {
    "inputs": [{"name": "x", "shape": ["batch", 4]}],
    "outputs": [{"name": "y", "shape": ["batch", 4]}],
    "dimensions": {"batch": {"example": 2}},
}


class Waits(nn.Module):
    """Waits a while, takes memory for as long, and then scales its input."""

    def __init__(self, seconds: float = 0.0, megabytes: int = 0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.seconds = seconds
        self.megabytes = megabytes

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return x * self.scale
        taken = torch.ones(self.megabytes * 1_000_000, dtype=torch.uint8)
        time.sleep(self.seconds)
        return x * self.scale[: 4 + 0 * taken.numel()]


class Doubles(Waits):
    """Gives twice as much once it is compiled."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if torch.compiler.is_compiling() else 1)


class Fails(Waits):
    """Raises an error for batches of one."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1:
            raise ValueError("too small a batch")
        return super().forward(x)


class Ends(Waits):
    """Ends its process in its tenth call."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 10:
            os._exit(7)
        return super().forward(x)


def way(folder: Path, name: str, kind: type[nn.Module] = Waits, **kwargs: Any) -> Way:
    """A way that runs one of these models."""
    architecture = Architecture(
        f"{__name__}:{kind.__name__}", kwargs, read_signature(SIGNATURE)
    )
    path = write_checkpoint(
        folder / name.replace(".", "-"), architecture, state_dict(architecture)
    )
    return Way(name, CHECKPOINT, path, compiled=name == COMPILED)


def benchmark(checked: Mapping[str, str]) -> Benchmark:
    """A benchmark of these formats (name → sha256 of the manifest), every figure
    another number.
    """
    measured = []
    for step, sizes in enumerate(({"batch": 1}, {"batch": 8})):
        for place, name in enumerate((EAGER, *checked)):
            measured.append(
                Measurement(
                    way=name,
                    sizes=sizes,
                    threads=1,
                    median_ms=10.0 * (step + 1) + place,
                    p95_ms=20.0 * (step + 1) + place,
                    times_eager=1.0 + place / 4,
                    first_ms=100.0 + place,
                    calls=60,
                    rounds=20,
                    peak_mb=300.0 + place + 50 * step,
                    libraries_mb=200.0,
                )
            )
    artifacts = [Checked(format=name, sha256=each) for name, each in checked.items()]
    return Benchmark(
        machine="Test Processor 9000, 8 cores",
        measured=measured,
        not_run=[NotRun(way=COMPILED, threads=1, reason="there is no C++ compiler")],
        checked=artifacts,
        machines=[MACHINE],
    )
