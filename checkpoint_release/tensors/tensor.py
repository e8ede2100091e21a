"""Tensors that live in a file: what they are, and their bytes when somebody asks.

A checkpoint is larger than the memory one would like to spend on it, so a `Tensor` is a
record (dtype, shape, strides, offset) over bytes that are mapped, not read. Nothing
here imports torch. Dtypes go by their safetensors names.
"""

from __future__ import annotations

import errno
import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.array_utils import byte_bounds

from checkpoint_release.core.dtypes import DTYPES, of_numpy

# bytes handed on at a time: they fit the cache; larger ones are copied more slowly
CHUNK = 256 << 10

# bytes that Linux may map around a byte that is touched: a large folio
_FAULT_AROUND = 2 << 20


class TensorLike(Protocol):
    """Anything whose bytes can be streamed: a mapped `Tensor`, or a wrapped one."""

    @property
    def dtype(self) -> str:
        """The safetensors name of the element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""

    def chunks(self) -> Iterator[memoryview]:
        """The bytes of all elements, row-major and little-endian, in order and in
        pieces.
        """

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as a numpy array."""


class MappedFile:
    """The bytes of a file, mapped read-only; `drop` gives back the memory of a part
    that has been used.
    """

    def __init__(self, view: memoryview, pages: mmap.mmap | None = None) -> None:
        self.view = view
        self._pages = pages

    @classmethod
    def of_file(cls, path: Path) -> MappedFile:
        """Map the whole of `path`. Raises OSError, also for what is no regular file: a
        pipe would never end.
        """
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        with path.open("rb") as file:
            if path.stat().st_size == 0:  # mmap refuses to map nothing
                return cls(memoryview(b""))
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(memoryview(pages), pages)

    def drop(self, start: int, stop: int) -> None:
        """Say that bytes [start, stop) are no longer needed in memory. They can still
        be read again.
        """
        if self._pages is not None and stop > start and hasattr(mmap, "MADV_DONTNEED"):
            start -= start % _FAULT_AROUND
            stop = min(stop + -stop % _FAULT_AROUND, len(self.view))
            self._pages.madvise(mmap.MADV_DONTNEED, start, stop - start)


@dataclass(eq=False)
class Storage:
    """A run of bytes that one or more tensors look at.

    Attributes:
        key: its identity within its file: tensors whose storages have the same key
            share memory.
        start, nbytes: where the bytes lie within `mapping`.
        big_endian: whether elements are stored most significant byte first.
    """

    key: str
    mapping: MappedFile
    start: int
    nbytes: int
    big_endian: bool = False

    @property
    def view(self) -> memoryview:
        """The bytes as they lie in the file."""
        return self.mapping.view[self.start : self.start + self.nbytes]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A strided look at a storage, as in torch; offset and strides count elements.

    Whoever makes one has checked that every element lies within the storage.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    storage: Storage
    conjugate: bool = False
    negate: bool = False

    @classmethod
    def of_numpy(cls, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor over the memory of an array. Raises TypeError for types that tensors
        don't have.
        """
        array = np.asarray(array)
        array = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        name = of_numpy(array.dtype).name
        view = array.reshape(-1).view(np.uint8).data
        storage = Storage(f"array at {id(array):#x}", MappedFile(view), 0, array.nbytes)
        return cls(name, array.shape, contiguous_strides(array.shape), 0, storage)

    def __repr__(self) -> str:
        return f"<tensor {self.dtype} {list(self.shape)}>"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of all elements laid out without gaps, in bytes."""
        return -(-self.size * DTYPES[self.dtype].bits // 8)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie row-major and without gaps."""
        return _is_contiguous(self.shape, self.strides)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as an array: a read-only view of the file where that is
        possible, else a copy.

        Raises TypeError for types that numpy can't hold (F4, C32).
        """
        dtype = DTYPES[self.dtype]
        if dtype.numpy is None:
            raise TypeError(f"numpy has no type for {self.dtype}")
        plain = not (self.storage.big_endian or self.conjugate or self.negate)
        if plain and self.size:
            return self._strided(dtype.numpy, 1)
        flat = np.frombuffer(bytearray().join(self.chunks()), dtype=dtype.numpy)
        flat.flags.writeable = False
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces, behind which memory is
        given back.
        """
        if self.size == 0:
            return
        moved = self.storage.big_endian and DTYPES[self.dtype].bits > 8
        if self.is_contiguous and not (moved or self.conjugate or self.negate):
            start = self.storage.start + self.offset * DTYPES[self.dtype].bits // 8
            for at in range(start, start + self.nbytes, CHUNK):
                stop = min(at + CHUNK, start + self.nbytes)
                yield self.storage.mapping.view[at:stop]
                self.storage.mapping.drop(at, stop)
            return
        base = np.frombuffer(self.storage.view, np.uint8)
        begin = self.storage.start - byte_bounds(base)[0]
        for block in _blocks(self._units()):
            yield self._arranged(block).data.cast("B")
            low, high = byte_bounds(block)
            # else it is transposed, and the next block needs the same pages
            if high - low < 4 * block.nbytes:
                self.storage.mapping.drop(begin + low, begin + high)
        self.storage.mapping.drop(
            self.storage.start, self.storage.start + self.storage.nbytes
        )

    def _units(self) -> np.ndarray[Any, Any]:
        """The elements as unsigned integers as stored; of a complex number two, on a
        last axis.
        """
        parts = 2 if DTYPES[self.dtype].kind == "complex" else 1
        unit = np.dtype(f"u{DTYPES[self.dtype].bits // 8 // parts}")
        return self._strided(
            unit.newbyteorder(">" if self.storage.big_endian else "<"), parts
        )

    def _strided(self, dtype: np.dtype[Any], parts: int) -> np.ndarray[Any, Any]:
        step = dtype.itemsize * parts
        tail = ((2,), (dtype.itemsize,)) if parts == 2 else ((), ())
        return np.ndarray(
            self.shape + tail[0],
            dtype,
            buffer=self.storage.view,
            offset=self.offset * step,
            strides=tuple(stride * step for stride in self.strides) + tail[1],
        )

    def _arranged(self, block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A contiguous little-endian copy of a block of units, with the pending sign
        changes done.
        """
        block = block.astype(block.dtype.newbyteorder("<"), order="C")
        sign = np.array(1 << (block.dtype.itemsize * 8 - 1), block.dtype)
        if self.conjugate:
            block[..., 1] ^= sign
        # torch sets the bit on floating-point views of complex tensors only
        if self.negate:
            block ^= sign
        return block.reshape(-1)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of a row-major tensor without gaps."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = contiguous_strides(shape)
    return all(
        size == 1 or stride == should
        for size, stride, should in zip(shape, strides, expected, strict=True)
    )


def _blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Split along the leading axes into blocks of about CHUNK bytes, in row-major
    order.
    """
    if array.nbytes <= CHUNK:
        yield array
        return
    row = array.nbytes // array.shape[0]
    if row > CHUNK:
        for part in array:
            yield from _blocks(part)
        return
    rows = CHUNK // row
    for at in range(0, array.shape[0], rows):
        yield array[at : at + rows]
