"""Weights in the layout of a framework that alone can put them together again."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.text import printable
from checkpoint_release.pth import Checkpoint
from checkpoint_release.state_dict.written_by import written_by

_FLAT = ("_flat_param", "flat_param", "flat_param_*")
"""The last part of the names of FSDP's own parameters, of torch and of fairscale."""
_MEGATRON = "Megatron-LM"
_MEGATRON_PARTS = "mp_rank_*"  # folders, one for each part of the model
_MAX_LISTED = 3  # names in a message


def refuse_flat_parameters(names: Collection[str]) -> None:
    """Refuse what FSDP saves of its own parameters.

    Args:
        names: of a state dict's tensors.

    Raises:
        CheckpointError: one of them is a flat parameter: many weights, one after the
            other, without their names and shapes.
    """
    for name in names:
        last = name.rpartition(".")[2]
        if any(fnmatchcase(last, pattern) for pattern in _FLAT):
            raise CheckpointError(
                f"{printable(name)} is a flat parameter of FSDP: weights one after the"
                " other, and the file doesn't hold their names and shapes",
                "save it where the model is wrapped, with"
                " StateDictType.FULL_STATE_DICT or by torch.distributed.checkpoint",
            )


def refuse_megatron(checkpoint: Checkpoint) -> None:
    """Refuse a file of Megatron-LM.

    Raises:
        CheckpointError: it is one.
    """
    if written_by(checkpoint).startswith(_MEGATRON):
        raise _megatron(f"{checkpoint.path} is a file of {_MEGATRON}")


def refuse_megatron_folder(folder: Path, inside: Iterable[Path]) -> None:
    """Refuse the folder of a step of Megatron-LM.

    Args:
        folder: for the message.
        inside: the folders in it.

    Raises:
        CheckpointError: it is one.
    """
    names = [each.name for each in inside]
    parts = [name for name in names if fnmatchcase(name, _MEGATRON_PARTS)]
    if parts:
        listed = first_few(parts, _MAX_LISTED)
        raise _megatron(f"{folder} is a folder of {_MEGATRON}, with {listed}")


def _megatron(found: str) -> CheckpointError:
    return CheckpointError(
        f"{found}: weights under names of its own, cut for tensor parallelism in ways"
        " that only its code knows",
        "convert it where Megatron is installed (its tools/checkpoint/convert.py), and"
        " give the result; of a single file, {checkpoint.state_dict} can name a part",
        options=["checkpoint.state_dict"],
    )
