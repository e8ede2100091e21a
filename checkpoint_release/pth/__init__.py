"""Reading `.pth` checkpoints without importing or calling anything that they name, and
without torch.
"""

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
