"""Half-precision weights: kept, widened or refused."""

from __future__ import annotations

import numpy as np

from checkpoint_release.core.dtypes import HALF
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.tensor import TensorLike
from checkpoint_release.tensors.wrappers import Computed


def cast_half(weights: StateDict, policy: str) -> StateDict:
    """Apply checkpoint.half_precision to float16 and bfloat16 weights.

    Args:
        weights: the state dict, name → tensor; tensors of other dtypes stay as they
            are.
        policy: keep, cast or refuse. Casting is to float32 and exact, since float32 has
            every value of both.

    Returns:
        A state dict of the same names in the same order; the same one where nothing
        changes.

    Raises:
        CheckpointError: the policy is to refuse, and there are some.
    """
    half = [name for name, tensor in weights.items() if tensor.dtype in HALF]
    if not half or policy == "keep":
        return weights
    if policy == "refuse":
        raise CheckpointError(
            f"{len(half)} of {len(weights)} tensors are in half precision"
            f" ({printable(half[0])}:"
            f" {weights[half[0]].dtype})",
            "set {checkpoint.half_precision} to keep, or to cast for float32",
            options=["checkpoint.half_precision"],
        )
    return weights | {name: _widened(weights[name]) for name in half}


def _widened(tensor: TensorLike) -> Computed:
    """The tensor in float32, converted when its bytes are asked for.

    A whole model in float32 would take twice the memory that the file has.
    """
    return Computed("F32", tensor.shape, lambda: tensor.numpy().astype(np.float32))
