"""Reading `.pth` checkpoints without torch, and without running what they name."""

from checkpoint_release.pth.json_values import escape_surrogates, to_json_value
from checkpoint_release.pth.reader import read_checkpoint, refuse_dangerous
from checkpoint_release.pth.records import Checkpoint, Inert
from checkpoint_release.tensors.tensor import Tensor

__all__ = [
    "Checkpoint",
    "Inert",
    "Tensor",
    "escape_surrogates",
    "read_checkpoint",
    "refuse_dangerous",
    "to_json_value",
]
