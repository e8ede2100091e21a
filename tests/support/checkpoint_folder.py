"""artifacts/checkpoint as `load` writes it, for tests that start from there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import (
    CHECKPOINT,
    FACTS_FILE,
    WEIGHTS_FILE,
    CheckpointFacts,
    Origin,
)
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.files import artifact_folder
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.statistics import tensor_statistics
from checkpoint_release.tensors.tensor import Tensor


def write_checkpoint(
    folder: Path,
    architecture: Architecture,
    weights: Mapping[str, np.ndarray[Any, Any]],
    training: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder and return it; a weight's dtype is its array's."""
    tensors = {name: Tensor.of_numpy(array) for name, array in weights.items()}
    facts = CheckpointFacts(
        model=architecture.to_json(),
        tensors=tensor_statistics(tensors),
        training=dict(training or {}),
        origin=Origin(
            sha256="0" * 64,
            size=1,
            container="zip",
            state_dict="",
            prefix="",
            half_precision="keep",
        ),
        lora=None,
        left_out={"harmless": {}, "dangerous": {}},
    )
    with artifact_folder(folder) as out:
        write_safetensors(out / WEIGHTS_FILE, tensors, {"format": "pt"})
        facts.write(out / FACTS_FILE)
        write_manifest(out, CHECKPOINT, made_from={"checkpoint": "0" * 64})
    return folder


def state_dict(
    architecture: Architecture, seed: int = 0
) -> dict[str, np.ndarray[Any, Any]]:
    """Random weights of an architecture's model."""
    import torch

    from checkpoint_release.runtimes.eager import build_model

    torch.manual_seed(seed)
    arrays = {}
    model = build_model(architecture.trusting(OWN_ARTIFACTS))
    for name, tensor in model.state_dict().items():
        if tensor.dtype == torch.bfloat16:  # which torch doesn't give to numpy
            bits = tensor.view(torch.int16).numpy().copy()
            arrays[name] = bits.view(DTYPES["BF16"].numpy)
        else:
            arrays[name] = tensor.numpy().copy()
    return arrays
