"""Casts and checks that wrap a tensor and do their work while its bytes are streamed.

None of them holds more than a piece of the tensor, except Computed, whose function
gives all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError, ExportError
from checkpoint_release.core.text import printable
from checkpoint_release.tensors.tensor import Tensor, TensorLike


@dataclass(frozen=True, eq=False)
class Computed:
    """A tensor computed when its bytes are asked for, and forgotten afterwards.

    Attributes:
        dtype: safetensors' name of what `compute` returns.
        shape: of what `compute` returns.
        compute: gives the elements.
    """

    dtype: str
    shape: tuple[int, ...]
    compute: Callable[[], np.ndarray[Any, Any]]

    def numpy(self) -> np.ndarray[Any, Any]:
        """Compute the elements.

        Raises:
            TypeError: they haven't the dtype and shape of the record.
        """
        array = self.compute()
        if array.shape != self.shape or array.dtype != DTYPES[self.dtype].numpy:
            raise TypeError(
                f"computed {array.dtype}{array.shape} for a tensor of"
                f" {self.dtype}{self.shape}"
            )
        return array

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces.

        Raises:
            TypeError: as numpy.
        """
        return Tensor.of_numpy(self.numpy()).chunks()


@dataclass(frozen=True)
class Cast:
    """A tensor that is cast piece by piece: rounded to nearest, ties to even.

    Attributes:
        name: for messages.
        source: the tensor as it is.
        dtype: safetensors' name of what it becomes.
    """

    name: str
    source: TensorLike
    dtype: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.source.shape

    def numpy(self) -> np.ndarray[Any, Any]:
        """The cast elements as one array.

        Raises:
            ExportError: as chunks.
        """
        flat = np.frombuffer(b"".join(self.chunks()), DTYPES[self.dtype].numpy)
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The cast elements in pieces.

        A cast rounds a number beyond the dtype's range to infinity (IEEE 754), so a
        finite value that becomes infinite didn't fit.

        Raises:
            ExportError: a finite value doesn't fit into the dtype.
        """
        source, target = DTYPES[self.source.dtype].numpy, DTYPES[self.dtype].numpy
        for piece in self.source.chunks():
            values = np.frombuffer(piece, source)
            with np.errstate(over="ignore"):
                cast = values.astype(target)
            overflowed = np.isfinite(values) & ~np.isfinite(cast)
            if overflowed.any():
                raise ExportError(
                    f"{printable(self.name)} {list(self.shape)} holds"
                    f" {values[overflowed][0]}, which is beyond what {self.dtype} can"
                    " hold",
                    "set {safetensors.dtype} to bfloat16, which has float32's range, or"
                    " to keep",
                    options=["safetensors.dtype"],
                )
            yield cast.view(np.uint8).data


@dataclass(frozen=True)
class Finite:
    """A tensor that is searched for NaN and infinity while its bytes go by.

    Attributes:
        name: for messages.
        source: the tensor.
    """

    name: str
    source: TensorLike

    @property
    def dtype(self) -> str:
        """The safetensors name of the element type."""
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.source.shape

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements, unchecked."""
        return self.source.numpy()

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in pieces.

        Raises:
            CheckpointError: a piece holds NaN or infinity.
        """
        dtype = DTYPES[self.dtype]
        for piece in self.source.chunks():
            if dtype.numpy is not None and not dtype.is_integral:
                self._check(np.frombuffer(piece, dtype.numpy))
            yield piece

    def _check(self, values: np.ndarray[Any, Any]) -> None:
        """Require that all values of a piece are finite.

        Raises:
            CheckpointError: some aren't; the message counts those of this piece.
        """
        if np.isfinite(values).all():
            return
        nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
        raise CheckpointError(
            f"{printable(self.name)} {list(self.shape)} holds at least {nan} NaN and"
            f" {infinite} infinite values",
            "release a checkpoint from before training diverged, or set"
            " {checkpoint.non_finite} to keep if they are meant (such as the -inf of an"
            " attention mask)",
            options=["checkpoint.non_finite"],
        )
