"""Tensors that are cut into parts, such as over the ranks of a distributed training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.tensors.blocks import Blocks
from checkpoint_release.tensors.tensor import CHUNK, Tensor, TensorLike
from checkpoint_release.tensors.wrappers import Cast

ONE_RUN = "get the files of all ranks again, from one and the same run"
"""What to do where the parts don't go together."""
MAX_PARTS = 4096  # of a tensor that is cut along several dimensions at once


@dataclass(frozen=True, eq=False)
class Part:
    """A block of a tensor.

    Attributes:
        offsets: where its first element lies, along each dimension.
        tensor: its elements; of as many dimensions.
    """

    offsets: tuple[int, ...]
    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.tensor.shape


@dataclass(frozen=True, eq=False)
class Joined:
    """A tensor out of parts, which are put together when its bytes are asked for.

    Attributes:
        dtype: safetensors' name of the element type.
        shape: the size of each dimension.
        parts: they don't overlap and leave no holes (check_parts).
    """

    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    def __repr__(self) -> str:
        return f"<tensor {self.dtype} {list(self.shape)} of {len(self.parts)} parts>"

    def numpy(self) -> np.ndarray[Any, Any]:
        """All elements in one array.

        Raises:
            TypeError: numpy can't hold the dtype.
            CheckpointError: a storage is damaged.
        """
        return self._rows(0, self.shape[0]) if self.shape else self._scalar()

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces.

        Parts that are whole rows are streamed one after another; of others some rows
        are put together at a time.

        Raises:
            CheckpointError: a storage is damaged.
        """
        if not math.prod(self.shape):
            return
        if all(part.shape[1:] == self.shape[1:] for part in self.parts):
            for part in sorted(self.parts, key=lambda part: part.offsets):
                yield from part.tensor.chunks()
            return
        row = math.prod(self.shape[1:]) * DTYPES[self.dtype].bits // 8
        step = max(1, CHUNK // row)
        for at in range(0, self.shape[0], step):
            rows = self._rows(at, min(at + step, self.shape[0]))
            yield rows.reshape(-1).view(np.uint8).data
        for part in self.parts:
            storage = part.tensor.storage
            storage.mapping.drop(storage.start, storage.start + storage.nbytes)

    def _scalar(self) -> np.ndarray[Any, Any]:
        return self.parts[0].tensor.numpy()

    def _rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Rows [start, stop) along the first dimension."""
        dtype = DTYPES[self.dtype].numpy
        if dtype is None:
            raise TypeError(f"numpy has no type for {self.dtype}")
        rows = np.empty((stop - start, *self.shape[1:]), dtype)
        for part in self.parts:
            first = part.offsets[0]
            low, high = max(start, first), min(stop, first + part.shape[0])
            if low >= high or not part.tensor.size:
                continue
            place = [slice(low - start, high - start)]
            for offset, size in zip(part.offsets[1:], part.shape[1:], strict=True):
                place.append(slice(offset, offset + size))
            rows[tuple(place)] = part.tensor.numpy()[low - first : high - first]
        return rows


@dataclass(frozen=True, eq=False)
class Strung:
    """A tensor whose row-major elements are those of several pieces in a row.

    Attributes:
        dtype: safetensors' name of the element type, that of each piece.
        shape: the size of each dimension.
        pieces: of as many elements together.
    """

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[TensorLike, ...]

    def __repr__(self) -> str:
        return f"<tensor {self.dtype} {list(self.shape)} of {len(self.pieces)} pieces>"

    def numpy(self) -> np.ndarray[Any, Any]:
        """All elements in one array.

        Raises:
            CheckpointError: a storage is damaged.
        """
        flat = np.frombuffer(b"".join(self.chunks()), DTYPES[self.dtype].numpy)
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces.

        Raises:
            CheckpointError: a storage is damaged.
        """
        for piece in self.pieces:
            yield from piece.chunks()


@dataclass(frozen=True, eq=False)
class Same:
    """A tensor of which each rank saved a copy; they are compared when it is read.

    Attributes:
        name: for messages.
        copies: of the same dtype and shape, at least one.
    """

    name: str
    copies: tuple[TensorLike, ...]

    def __repr__(self) -> str:
        return f"<tensor {self.dtype} {list(self.shape)}, {len(self.copies)} copies>"

    @property
    def dtype(self) -> str:
        """The safetensors name of the element type."""
        return self.copies[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.copies[0].shape

    def numpy(self) -> np.ndarray[Any, Any]:
        """All elements in one array.

        Raises:
            CheckpointError: the copies differ.
        """
        flat = np.frombuffer(b"".join(self.chunks()), DTYPES[self.dtype].numpy)
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The first copy's bytes in pieces; the others are compared at the end.

        Raises:
            CheckpointError: the copies differ.
        """
        first = hashlib.sha256()
        for piece in self.copies[0].chunks():
            first.update(piece)
            yield piece
        for rank, copy in enumerate(self.copies[1:], start=1):
            other = hashlib.sha256()
            for piece in copy.chunks():
                other.update(piece)
            if other.digest() != first.digest():
                raise CheckpointError(
                    f"the ranks disagree on {printable(self.name)}: the first copy of"
                    f" it and copy {rank} differ",
                    ONE_RUN,
                )


Composed = Joined | Strung | Same | Blocks
"""The tensors that are made of others."""


def stored_tensors(tensor: TensorLike) -> Iterator[Tensor]:
    """The tensors in files that a tensor is made of; of one in a file, itself.

    Args:
        tensor: of any kind; of a computed one, what it is computed from.
    """
    match tensor:
        case Tensor():
            yield tensor
        case Joined():
            yield from (part.tensor for part in tensor.parts)
        case Strung():
            for piece in tensor.pieces:
                yield from stored_tensors(piece)
        case Same():
            for copy in tensor.copies:
                yield from stored_tensors(copy)
        case Cast():
            yield from stored_tensors(tensor.source)
        case Blocks():
            yield from tensor.sources


def join(
    name: str, dtype: str, shape: tuple[int, ...], parts: Sequence[Part]
) -> Tensor | Joined:
    """A tensor out of its parts; of a single one that is all of it, that one.

    Args:
        name: for messages.
        dtype: of the whole.
        shape: of the whole.
        parts: in any order.

    Raises:
        CheckpointError: they overlap, leave holes, reach out of it, or are of another
            dtype.
    """
    check_parts(name, dtype, shape, parts)
    if len(parts) == 1:
        return parts[0].tensor
    return Joined(dtype, shape, tuple(parts))


def check_parts(
    name: str, dtype: str, shape: tuple[int, ...], parts: Sequence[Part]
) -> None:
    """Require that the parts make up the whole.

    Args:
        name: of the tensor, for messages.
        dtype, shape: of the whole.
        parts: in any order.

    Raises:
        CheckpointError: they don't.
    """
    covered = 0
    for part in parts:
        if part.tensor.dtype != dtype:
            raise _wrong(
                name, f"has a part of {part.tensor.dtype}, and all of it is {dtype}"
            )
        if not _is_within(part, shape):
            raise _wrong(
                name,
                f"of shape {list(shape)} has a part of shape {list(part.shape)} at"
                f" {list(part.offsets)}, outside of it",
            )
        covered += part.tensor.size
    whole = math.prod(shape)
    if not parts or covered < whole:
        raise _wrong(
            name,
            f"has holes: its parts hold {covered:,} of its {whole:,} elements",
        )
    if covered > whole or _overlap(parts, shape):
        raise _wrong(name, "has parts that overlap")


def _is_within(part: Part, shape: tuple[int, ...]) -> bool:
    if not len(part.offsets) == len(part.shape) == len(shape):
        return False
    for offset, size, whole in zip(part.offsets, part.shape, shape, strict=True):
        if offset < 0 or offset + size > whole:
            return False
    return True


def _overlap(parts: Sequence[Part], shape: tuple[int, ...]) -> bool:
    """Whether two of the parts share elements.

    Args:
        parts: within the shape.
        shape: of the whole.
    """
    filled = [part for part in parts if part.tensor.size]
    for axis in range(len(shape)):
        others = [n for n in range(len(shape)) if n != axis]
        if all(part.shape[n] == shape[n] for part in filled for n in others):
            return _spans_overlap(filled, axis)
    return len(filled) > 1 and _blocks_overlap(filled)


def _spans_overlap(parts: Sequence[Part], axis: int) -> bool:
    """Whether two parts, cut along one dimension alone, share elements."""
    end = 0
    for offset, size in sorted((p.offsets[axis], p.shape[axis]) for p in parts):
        if offset < end:
            return True
        end = offset + size
    return False


def _blocks_overlap(parts: Sequence[Part]) -> bool:
    """Whether two blocks, cut along several dimensions, share elements.

    Raises:
        CheckpointError: there are too many to compare each with each.
    """
    if len(parts) > MAX_PARTS:
        raise CheckpointError(
            f"a tensor is cut into {len(parts)} parts along several dimensions, and"
            f" {MAX_PARTS} can be read",
            "save the checkpoint again from fewer ranks",
        )
    starts = np.array([part.offsets for part in parts], np.int64)
    stops = starts + np.array([part.shape for part in parts], np.int64)
    for number in range(len(parts) - 1):
        below = starts[number] < stops[number + 1 :]
        above = starts[number + 1 :] < stops[number]
        if (below & above).all(axis=1).any():
            return True
    return False


def _wrong(name: str, how: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(name)} {how}",
        ONE_RUN,
    )
