"""What the layouts of quantised weights have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.tensors.blocks import Blocks
from checkpoint_release.tensors.tensor import Tensor, TensorLike

Array = np.ndarray[Any, Any]
BITSANDBYTES_4 = "bitsandbytes in 4 bits"
BITSANDBYTES_8 = "bitsandbytes in 8 bits"
GPTQ = "GPTQ"
AWQ = "AWQ"
TORCH_AO = "torch.ao.quantization"
TORCHAO = "torchao"
"""Names of the layouts, as messages and checkpoint.json have them."""
STEP = 1 << 16  # elements that are computed at a time, or a row where that is more
_EXACT = 1 << 15  # a zero point up to here is exact, and so is a value less of it


@dataclass(frozen=True)
class Floats:
    """A weight that was quantised, as floats.

    Attributes:
        name: that a model has for it.
        tensor: computed when it is written.
        parts: names of what described it in the file.
        layout: whose it was.
    """

    name: str
    tensor: TensorLike
    parts: tuple[str, ...]
    layout: str


def stored(weights: Mapping[str, Any], name: str) -> Tensor:
    """A tensor that lies in a file as it is.

    Raises:
        CheckpointError: there is none of that name.
    """
    tensor = weights.get(name)
    if not isinstance(tensor, Tensor):
        raise CheckpointError(
            f"the quantised weights are incomplete: {printable(name)} is missing",
            "save the model again; or release the weights from before they were"
            " quantised",
        )
    return tensor


def require(fits: bool, name: str, how: str) -> None:
    """Require something of a quantised weight.

    Raises:
        CheckpointError: it doesn't hold.
    """
    if not fits:
        raise unfit(name, how)


def unfit(name: str, how: str) -> CheckpointError:
    """The error for a quantised weight that can't be turned into floats.

    Args:
        name: of the weight.
        how: what is the matter, such as "isn't int8 rows".
    """
    return CheckpointError(
        f"the quantised weight {printable(name)} {how}",
        "release the weights from before they were quantised; or turn them into"
        " floats where they were, and save that",
    )


def rows_at_a_time(row: int) -> int:
    """How many elements are computed at a time, in whole rows.

    Args:
        row: elements of one.
    """
    return max(1, row) * max(1, STEP // max(1, row))


def affine(
    name: str,
    integers: Tensor,
    scale: Array,
    zero_point: Array | None,
    block: Sequence[int],
    dtype: str,
) -> Blocks:
    """A tensor as (integer - zero point) · scale, in float32, rounded once.

    Args:
        name: of the tensor, for messages.
        integers: of any shape of one dimension or more, of 8 bits or of a minifloat.
        scale: one number for each block, of any shape.
        zero_point: the same; None: it is zero.
        block: how many elements share a scale along each dimension.
        dtype: safetensors' name of the result's.

    Raises:
        CheckpointError: the blocks don't fit the tensor, or a zero point is none.
    """
    shape = integers.shape
    known = len(block) == len(shape) > 0 and all(type(n) is int for n in block)
    require(known, name, "isn't quantised in blocks of its own dimensions")
    pairs = list(zip(shape, block, strict=True))
    require(all(n > 0 and size % n == 0 for size, n in pairs), name, "has odd blocks")
    counts = tuple(size // n for size, n in pairs)
    blocks = math.prod(counts)
    require(scale.size == blocks, name, f"has {scale.size} scales for {blocks} blocks")
    scales = scale.reshape(counts).astype(np.float32)
    zeros = np.zeros((1,) * len(shape), np.float32)
    if zero_point is not None:
        require(zero_point.size == blocks, name, "lacks zero points for some blocks")
        zeros = zero_point.reshape(counts).astype(np.float32)
        whole = bool((zeros == np.rint(zeros)).all() and (abs(zeros) < _EXACT).all())
        require(whole, name, "has a zero point that is no small integer")
    row = math.prod(shape[1:])

    def compute(start: int, stop: int) -> Array:
        first, last = start // row, stop // row
        places = [np.arange(first, last) // block[0]]
        for size, n in pairs[1:]:
            places.append(np.arange(size) // n)
        grid = np.ix_(*places)
        zero = zeros[grid] if zero_point is not None else zeros
        values = integers.numpy()[first:last].astype(np.float32) - zero
        floats: Array = (values * scales[grid]).astype(DTYPES[dtype].numpy)
        return floats.reshape(-1)

    return Blocks(dtype, shape, rows_at_a_time(row), compute, (integers,))
