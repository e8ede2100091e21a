"""Which tool wrote a checkpoint, by what it leaves in every file of its own.

A sign is a set of keys that lie together at the top, and perhaps the key that holds the
tool's version. Keys are the tools' own: see the function of each that saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.text import printable
from checkpoint_release.pth import Checkpoint
from checkpoint_release.pth.kinds import Kind

_LONGEST_VERSION = 40  # characters of a version, which is the file's own text


@dataclass(frozen=True)
class _Sign:
    """What shows a tool.

    Attributes:
        tool: its name.
        keys: all of them lie at the top of its checkpoints; dotted where nested.
        version: the key that holds its version, dotted where nested; "": none does.
    """

    tool: str
    keys: tuple[str, ...]
    version: str = ""


_SIGNS = (
    _Sign(
        "PyTorch Lightning", ("pytorch-lightning_version",), "pytorch-lightning_version"
    ),
    _Sign("MMEngine", ("meta.mmengine_version",), "meta.mmengine_version"),
    _Sign("MMCV", ("meta.mmcv_version",), "meta.mmcv_version"),
    _Sign("DeepSpeed", ("ds_version",), "ds_version"),
    _Sign("DeepSpeed", ("ds_config", "module")),
    _Sign("Megatron-LM", ("checkpoint_version", "args", "model"), "checkpoint_version"),
    _Sign("Ultralytics", ("train_args", "model", "ema"), "version"),
    _Sign("fairseq", ("optimizer_history", "extra_state", "model")),
    _Sign("timm", ("arch", "state_dict", "args", "version")),
    _Sign("Detectron2", ("__author__", "model")),
    _Sign("BasicSR", ("params_ema",)),
    _Sign("torch's AveragedModel", ("n_averaged",)),
    _Sign("PEFT", ("adapter_config.peft_type",), "adapter_config.peft_version"),
    _Sign(
        "Transformers", ("config.transformers_version",), "config.transformers_version"
    ),
    _Sign("Diffusers", ("config._diffusers_version",), "config._diffusers_version"),
)
"""The more telling first: Lightning's files hold keys of others as well."""

_CONTAINERS = {
    "zip": "torch.save",
    "legacy": "torch.save of before torch 1.6",
    str(Kind.SAFETENSORS): "safetensors",
}


def written_by(checkpoint: Checkpoint) -> str:
    """The tool that wrote a checkpoint, and its version where the file says it.

    Args:
        checkpoint: as it was read.

    Returns:
        Such as "PyTorch Lightning 2.5.1"; where nothing shows a trainer, what wrote the
        container, such as "torch.save".
    """
    entries = checkpoint.entries
    for sign in _SIGNS:
        if all(_at(entries, key) is not None for key in sign.keys):
            return f"{sign.tool}{_version(entries, sign)}"
    container = checkpoint.container.partition(",")[0]
    return _CONTAINERS.get(container, container)


def _version(entries: Mapping[Any, Any], sign: _Sign) -> str:
    """The tool's version with a blank before it; "" where none is stated."""
    found = _at(entries, sign.version) if sign.version else None
    if not isinstance(found, str | int | float):
        return ""
    return f" {printable(str(found), _LONGEST_VERSION)}"


def _at(entries: Mapping[Any, Any], dotted: str) -> Any:
    """What lies under a dotted key; None where it leads nowhere."""
    found: Any = entries
    for key in dotted.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found
