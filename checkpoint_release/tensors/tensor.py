"""Tensors that lie in a file: records of what they are, and their bytes on demand.

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
        """The elements' bytes, row-major and little-endian, in order and in pieces."""

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as a numpy array."""


class MappedFile:
    """The bytes of a file, mapped read-only.

    Attributes:
        view: all bytes.
    """

    def __init__(self, view: memoryview, pages: mmap.mmap | None = None) -> None:
        self.view = view
        self._pages = pages

    @classmethod
    def of_file(cls, path: Path) -> MappedFile:
        """Map the whole of `path`.

        Raises:
            OSError: it can't be read, or is no regular file: a pipe would never end.
        """
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        with path.open("rb") as file:
            if path.stat().st_size == 0:  # mmap refuses to map nothing
                return cls(memoryview(b""))
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(memoryview(pages), pages)

    def drop(self, start: int, stop: int) -> None:
        """Give back the memory of bytes [start, stop); they can be read again."""
        if self._pages is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        if start < stop:
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

    Whoever creates one has checked that every element lies within the storage.
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
        """A tensor over the memory of an array.

        Raises:
            TypeError: no dtype holds the array's.
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
        return DTYPES[self.dtype].nbytes(self.size)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie row-major and without gaps."""
        return _is_contiguous(self.shape, self.strides)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as an array: where possible a read-only view of the file.

        Raises:
            TypeError: numpy can't hold the dtype (F4, C32).
        """
        dtype = DTYPES[self.dtype]
        if dtype.numpy is None:
            raise TypeError(f"numpy has no type for {self.dtype}")
        converted = self.storage.big_endian or self._changes_sign
        if self.size and not converted:
            return self._strided(dtype.numpy, 1)
        flat = np.frombuffer(bytearray().join(self.chunks()), dtype=dtype.numpy)
        flat.flags.writeable = False
        return flat.reshape(self.shape)

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces.

        Memory behind a piece is given back.
        """
        if self.size == 0:
            return iter(())
        swapped = self.storage.big_endian and DTYPES[self.dtype].bits > 8
        if self.is_contiguous and not (swapped or self._changes_sign):
            return self._stored_chunks()
        return self._converted_chunks()

    @property
    def _changes_sign(self) -> bool:
        return self.conjugate or self.negate

    def _stored_chunks(self) -> Iterator[memoryview]:
        """The bytes as they lie in the file."""
        mapping = self.storage.mapping
        start = self.storage.start + self.offset * DTYPES[self.dtype].bits // 8
        end = start + self.nbytes
        for at in range(start, end, CHUNK):
            stop = min(at + CHUNK, end)
            yield mapping.view[at:stop]
            mapping.drop(at, stop)

    def _converted_chunks(self) -> Iterator[memoryview]:
        """Copies of one block after the other, put in order."""
        storage = self.storage
        address = byte_bounds(np.frombuffer(storage.view, np.uint8))[0]
        for block in _blocks(self._units()):
            yield self._arranged(block).data.cast("B")
            low, high = byte_bounds(block)
            transposed = high - low >= 4 * block.nbytes
            if not transposed:  # otherwise the next block needs the same pages
                start = storage.start - address
                storage.mapping.drop(start + low, start + high)
        storage.mapping.drop(storage.start, storage.start + storage.nbytes)

    def _units(self) -> np.ndarray[Any, Any]:
        """The elements as unsigned integers, as stored.

        A complex number is two of them, on a last axis.
        """
        parts = 2 if DTYPES[self.dtype].kind == "complex" else 1
        unit = np.dtype(f"u{DTYPES[self.dtype].bits // 8 // parts}")
        stored = unit.newbyteorder(">" if self.storage.big_endian else "<")
        return self._strided(stored, parts)

    def _strided(self, dtype: np.dtype[Any], parts: int) -> np.ndarray[Any, Any]:
        """The elements as they lie, each as one or two (on a last axis) of a dtype."""
        step = dtype.itemsize * parts
        shape = self.shape
        strides = tuple(stride * step for stride in self.strides)
        if parts == 2:
            shape, strides = (*shape, 2), (*strides, dtype.itemsize)
        offset = self.offset * step
        return np.ndarray(shape, dtype, self.storage.view, offset, strides)

    def _arranged(self, block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A contiguous little-endian copy of a block of units, its signs changed."""
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
    for size, stride, expected_stride in zip(shape, strides, expected, strict=True):
        if size != 1 and stride != expected_stride:
            return False
    return True


def _blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Split along the leading axes into row-major blocks of about CHUNK bytes."""
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
