"""A tensor that is computed block by block while its bytes are streamed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.tensors.tensor import Tensor


@dataclass(frozen=True, eq=False)
class Blocks:
    """A tensor of which any run of elements can be computed by itself.

    Attributes:
        dtype: safetensors' name of the element type.
        shape: the size of each dimension.
        step: how many elements are computed at a time.
        compute: gives elements [start, stop) in row-major order, in the dtype; both
            are multiples of `step`, but for the end.
        sources: what it is computed from.
    """

    dtype: str
    shape: tuple[int, ...]
    step: int
    compute: Callable[[int, int], np.ndarray[Any, Any]]
    sources: tuple[Tensor, ...]

    def __repr__(self) -> str:
        return f"<tensor {self.dtype} {list(self.shape)}, computed>"

    def numpy(self) -> np.ndarray[Any, Any]:
        """All elements in one array."""
        flat = np.frombuffer(b"".join(self.chunks()), DTYPES[self.dtype].numpy)
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces.

        Raises:
            CheckpointError: a storage is damaged.
        """
        size = math.prod(self.shape)
        for start in range(0, size, self.step):
            computed = self.compute(start, min(start + self.step, size))
            yield np.ascontiguousarray(computed).view(np.uint8).data
        for source in self.sources:
            source.forget()
