"""The checkpoint's model, made faster by torch.compile."""

from __future__ import annotations

from pathlib import Path

import torch

from checkpoint_release.core.artifacts.checkpoint import CHECKPOINT
from checkpoint_release.runtimes.eager import ExportModule, build_eager
from checkpoint_release.runtimes.runtime import Options, Runtime
from checkpoint_release.runtimes.torch_runtime import prepare_torch, torch_runtime


def open_compiled(path: Path, options: Options) -> Runtime:
    """Open the folder of a checkpoint that was read.

    One compilation is asked to take every size, as the exports do; the first call
    compiles.

    Raises:
        ArtifactError, ModelError: as build_eager.
        InferenceError: torch can't use the device.
    """
    prepare_torch(options)
    model, signature = build_eager(path, options.trust)
    # beyond it, torch would run the model eagerly and say nothing
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    compiled = torch.compile(ExportModule(model, signature), dynamic=True)
    return torch_runtime(CHECKPOINT, path, compiled, signature, options)
