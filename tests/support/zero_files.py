"""Files of a training with DeepSpeed ZeRO, laid out as its engine writes them.

Names and keys are those of deepspeed 0.19 (runtime/engine.py, runtime/zero/
stage_1_and_2.py and stage3.py); what the engine computes is a flat row of elements.
"""

from __future__ import annotations

import math
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch

Weights = dict[str, torch.Tensor]


class ZeroStageEnum(IntEnum):
    """DeepSpeed's own, which its files name."""

    disabled = 0
    optimizer_states = 1
    gradients = 2
    weights = 3


@contextmanager
def _named_as_deepspeeds() -> Iterator[None]:
    """Let the Enum be pickled under the name that it has in DeepSpeed."""
    module = types.ModuleType("deepspeed.runtime.zero.config")
    module.ZeroStageEnum = ZeroStageEnum  # type: ignore[attr-defined]
    packages = {"deepspeed.runtime.zero.config": module}
    for name in ("deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero"):
        packages[name] = types.ModuleType(name)
    own = ZeroStageEnum.__module__
    sys.modules.update(packages)
    ZeroStageEnum.__module__ = "deepspeed.runtime.zero.config"
    try:
        yield
    finally:
        ZeroStageEnum.__module__ = own
        for name in packages:
            del sys.modules[name]


def save_zero(
    folder: Path,
    stage: int,
    ranks: int,
    trained: Weights,
    *,
    buffers: Weights | None = None,
    frozen: Weights | None = None,
    shared: dict[str, str] | None = None,
    groups: int = 2,
) -> Path:
    """Write the files of one step, and `latest`; returns the folder of the step.

    Args:
        folder: of the run.
        stage: 1, 2 or 3.
        ranks: how many.
        trained: float32 master weights.
        buffers, frozen: the other tensors of the module.
        shared: tied name → the name that has the parameter.
        groups: of parameters.
    """
    step = folder / "global_step10"
    step.mkdir(parents=True)
    (folder / "latest").write_text("global_step10")
    (folder / "zero_to_fp32.py").write_text("# DeepSpeed's own script\n")
    names = list(trained)
    size = math.ceil(len(names) / groups)
    grouped = [names[at : at + size] for at in range(0, len(names), size)]
    with _named_as_deepspeeds():
        for rank in range(ranks):
            state = _model_state(
                stage, rank, ranks, trained, buffers or {}, frozen or {}, grouped
            )
            state["shared_params"] = shared or {}
            if stage == 3:
                name = f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"
                torch.save(state, step / name)
            elif rank == 0:
                torch.save(state, step / "mp_rank_00_model_states.pt")
            optimizer = _optimizer_state(stage, rank, ranks, trained, grouped)
            whole = {"optimizer_state_dict": optimizer, "ds_version": "0.19.8"}
            prefix = "bf16_" if stage < 3 else ""
            name = f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            torch.save(whole, step / name)
    return step


def _model_state(
    stage: int,
    rank: int,
    ranks: int,
    trained: Weights,
    buffers: Weights,
    frozen: Weights,
    grouped: list[list[str]],
) -> dict[str, Any]:
    halves = {name: tensor.bfloat16() for name, tensor in trained.items()} | frozen
    if stage == 3:  # placeholders
        halves = {name: torch.empty(0).bfloat16() for name in halves}
    fragments = frozen
    if stage == 3:
        fragments = {
            name: _share(tensor, rank, ranks) for name, tensor in frozen.items()
        }
    return {
        "module": halves | buffers,
        "buffer_names": list(buffers),
        "optimizer": None,
        "param_shapes": [
            OrderedDict((name, trained[name].shape) for name in group)
            for group in grouped
        ],
        **_frozen_state(stage, frozen, fragments),
        "global_steps": 10,
        "ds_version": "0.19.8",
        "ds_config": {"zero_optimization": {"stage": stage}},
        "epoch": 3,
    }


def _frozen_state(stage: int, frozen: Weights, fragments: Weights) -> dict[str, Any]:
    """What is kept of frozen parameters; of ZeRO 1 nothing beside the module itself."""
    if stage == 1:
        return {"frozen_param_shapes": None, "frozen_param_fragments": None}
    shapes = {name: tensor.shape for name, tensor in frozen.items()}
    return {
        "frozen_param_shapes": OrderedDict(shapes),
        "frozen_param_fragments": OrderedDict(fragments),
    }


def _share(tensor: torch.Tensor, rank: int, ranks: int) -> torch.Tensor:
    """A rank's part of a parameter in ZeRO 3, the last ones padded."""
    share = math.ceil(tensor.numel() / ranks)
    padded = torch.zeros(share * ranks, dtype=tensor.dtype)
    padded[: tensor.numel()] = tensor.flatten()
    return padded[rank * share : (rank + 1) * share].clone()


def _optimizer_state(
    stage: int, rank: int, ranks: int, trained: Weights, grouped: list[list[str]]
) -> dict[str, Any]:
    parts = []
    for group in grouped:
        if stage == 3:
            shares = [_share(trained[name], rank, ranks) for name in group]
            parts.append(torch.cat(shares))
            continue
        row = torch.cat([trained[name].flatten() for name in group])
        aligned = math.ceil(row.numel() / (2 * ranks)) * 2  # elements of a rank
        end = min((rank + 1) * aligned, row.numel())  # without the padding
        parts.append(row[rank * aligned : end].clone())
    state: dict[str, Any] = {
        "zero_stage": ZeroStageEnum(stage),
        "loss_scaler": None,
        "partition_count": ranks if stage == 3 else [ranks] * len(grouped),
        "base_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
    }
    key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
    return state | {key: parts}
