"""What to put into params.yaml for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Checkpoint, escape_surrogates
from checkpoint_release.state_dict.adapter_config import ADAPTER_CONFIG, lora_config
from checkpoint_release.state_dict.adapter_names import has_factors, is_adapter
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.find import find_state_dict
from checkpoint_release.state_dict.fitting import Fit

_YOURS = "your_package.module:callable"


def advised_params(
    checkpoint: Checkpoint, state_dicts: Mapping[str, StateDict], found: list[Fit]
) -> dict[str, Any]:
    """The options that differ from their defaults for this checkpoint.

    Args:
        checkpoint: as it was read.
        state_dicts: dotted key → tensors, of all that it holds.
        found: the families that they fit.

    Returns:
        Dotted option, such as "checkpoint.path" → value. Where only the user can know
        the value, it says so in angle brackets; without weights nothing is advised.
    """
    path = escape_surrogates(str(checkpoint.path))
    models = {key: each for key, each in state_dicts.items() if not is_adapter(each)}
    if ADAPTER_CONFIG in checkpoint.facts:  # a folder of PEFT holds no model
        models = {}
    if not models:
        if not state_dicts:
            return {}
        adapter = next(iter(state_dicts.values()))
        return {
            "checkpoint.path": "<the base checkpoint>",
            "checkpoint.adapter": path,
            **_alpha(checkpoint, adapter),
        }
    params: dict[str, Any] = {"checkpoint.path": path}
    key = _key(checkpoint, found)
    if key is None:
        params["checkpoint.state_dict"] = f"<one of {', '.join(sorted(models))}>"
        key = next(iter(models))
    elif not _is_found(checkpoint, key):
        params["checkpoint.state_dict"] = key
    params |= _selection(found, key)
    params |= _alpha(checkpoint, models[key])
    if checkpoint.left_out.get("dangerous"):
        params["checkpoint.salvage"] = True
    return params | _model(found, key)


def _key(checkpoint: Checkpoint, found: list[Fit]) -> str | None:
    """The key of the weights: the default one, or the only one that fits a family.

    Returns:
        None where several could be meant.
    """
    try:
        return find_state_dict(checkpoint.value, None).key
    except CheckpointError:
        keys = [fit.state_dict for fit in found]
        return keys[0] if len(keys) == 1 else None


def _is_found(checkpoint: Checkpoint, key: str) -> bool:
    """Whether the weights are found without stating their key."""
    try:
        return find_state_dict(checkpoint.value, None).key == key
    except CheckpointError:
        return False


def _selection(found: list[Fit], key: str) -> dict[str, Any]:
    """The prefix to strip and the tensors to leave out."""
    params: dict[str, Any] = {}
    for fit in found:
        if fit.state_dict != key:
            continue
        if fit.selection.prefix is not None:
            params["checkpoint.prefix"] = fit.selection.prefix
        if fit.selection.leave_out:
            params["checkpoint.leave_out"] = list(fit.selection.leave_out)
    return params


def _alpha(checkpoint: Checkpoint, weights: StateDict) -> dict[str, Any]:
    """LoRA's alpha, where there are factors and the file doesn't state it."""
    if not has_factors(weights):
        return {}
    try:
        stated = lora_config(checkpoint).alpha
    except CheckpointError:
        return {}
    return {} if stated else {"checkpoint.lora_alpha": "<as in training>"}


def _model(found: list[Fit], key: str) -> dict[str, Any]:
    """The factory, and what a model from elsewhere needs beside it."""
    for fit in found:
        if fit.state_dict == key:
            return {"model.factory": fit.factory}
    return {
        "model.factory": f"<{_YOURS}>",
        "model.signature": "<inputs, outputs and dimensions>",
        "model.inputs": None,
    }
