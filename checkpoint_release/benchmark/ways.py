"""What is measured: eager torch, torch.compile, and every format with its variants."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.benchmark import COMPILED, EAGER
from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.core.artifacts.manifest import Manifest
from checkpoint_release.core.errors import InferenceError
from checkpoint_release.parity.candidates import KEEP, find_candidates
from checkpoint_release.runtimes.runtime import Options, Runtime


@dataclass(frozen=True)
class Way:
    """One way to run the model.

    Attributes:
        name: how reports call it.
        format, path: as checkpoint_release.runtimes.open.open_runtime takes them.
        compiled: whether torch.compile makes it faster first.
    """

    name: str
    format: str
    path: Path
    compiled: bool = False

    def import_libraries(self) -> None:
        """Import what opens it, so that the memory of libraries is known apart."""
        if self.format == ONNX.name:
            from checkpoint_release.runtimes import onnx_runtime  # noqa: F401
        else:
            from checkpoint_release.runtimes import (  # noqa: F401
                eager_runtime,
                torch_files,
            )

    def open(self, options: Options) -> Runtime:
        """Open it.

        Raises:
            CheckpointReleaseError: as open_runtime; or there is no C++ compiler, which
                torch.compile needs on a CPU.
        """
        if self.compiled:
            _require_compiler()  # before torch is imported, which takes seconds
            from checkpoint_release.benchmark.compiled import open_compiled

            return open_compiled(self.path, options)
        from checkpoint_release.runtimes.open import open_with

        return open_with(self.format, self.path, options)


def _require_compiler() -> None:
    """Make sure that torch.compile finds a C++ compiler.

    Raises:
        InferenceError: it doesn't.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InferenceError(
            f"there is no C++ compiler ({compiler}), which torch.compile needs",
            "install one, or name it in CXX",
        )


def find_ways(artifacts: Path, formats: Mapping[str, Manifest]) -> list[Way]:
    """Eager torch, torch.compile, and each file that computes.

    Weights in safetensors are run by the same code as eager torch, so that a difference
    between the two is what the measurement itself is off by.

    Args:
        artifacts: the folder of all artifacts.
        formats: name → manifest, of those that are enabled.
    """
    checkpoint = artifacts / CHECKPOINT
    ways = [
        Way(EAGER, CHECKPOINT, checkpoint),
        Way(COMPILED, CHECKPOINT, checkpoint, compiled=True),
    ]
    for candidate in find_candidates(artifacts, formats, KEEP):
        ways.append(Way(candidate.name, candidate.format, candidate.path))
    return ways
