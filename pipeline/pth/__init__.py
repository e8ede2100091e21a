"""Reading `.pth` checkpoints without importing or calling anything that they name, and without torch."""

from pipeline.pth.plain import plain, well_formed
from pipeline.pth.reader import read_checkpoint, refuse_dangerous
from pipeline.pth.records import Checkpoint, Inert
from pipeline.tensor import Tensor

__all__ = ["Checkpoint", "Inert", "Tensor", "plain", "read_checkpoint", "refuse_dangerous", "well_formed"]
