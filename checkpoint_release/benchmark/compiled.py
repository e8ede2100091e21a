"""The checkpoint's model, made faster by torch.compile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.core.errors import InferenceError
from checkpoint_release.runtimes.eager import ExportModule, build_eager
from checkpoint_release.runtimes.runtime import Options, Runtime
from checkpoint_release.runtimes.torch_runtime import prepare_torch, torch_runtime


def open_compiled(path: Path, options: Options) -> Runtime:
    """Open the folder of a checkpoint that was read.

    One compilation is asked to take every size, as the exports do; the first call
    compiles.

    Raises:
        ArtifactError, ModelError: as build_eager.
        InferenceError: there is no C++ compiler, which torch.compile needs on a CPU.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise InferenceError(
            f"there is no C++ compiler ({compiler}), which torch.compile needs",
            "install one, or name it in CXX",
        )
    prepare_torch(options)
    model, signature = build_eager(path, options.trust)
    # beyond it, torch would run the model eagerly and say nothing
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    compiled = torch.compile(ExportModule(model, signature), dynamic=True)
    return torch_runtime(CHECKPOINT, path, compiled, signature, options)
