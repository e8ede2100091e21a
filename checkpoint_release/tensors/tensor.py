"""Tensors that lie in a file: records of what they are, and their bytes on demand.

A checkpoint is larger than the memory one would like to spend on it, so a `Tensor` is a
record (dtype, shape, strides, offset) over bytes that are mapped, not read. Nothing
here imports torch. Dtypes go by their safetensors names.
"""

from __future__ import annotations

import errno
import math
import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.array_utils import byte_bounds

from checkpoint_release.core.dtypes import DTYPES, of_numpy
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable

# bytes handed on at a time: they fit the cache; larger ones are copied more slowly
CHUNK = 256 << 10

# bytes that Linux may map around a byte that is touched: a large folio
FAULT_AROUND = 2 << 20


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

    def __init__(
        self, view: memoryview, pages: mmap.mmap | None = None, start: int = 0
    ) -> None:
        self.view = view
        self._pages = pages
        self._start = start  # of the view within the pages

    @classmethod
    def of_file(cls, path: Path) -> MappedFile:
        """Map the whole of a file; its pages are read when they are touched.

        Args:
            path: the file, which mustn't be cut short while it is mapped: touching a
                page that it no longer has kills the process.

        Raises:
            OSError: it can't be read, or is no regular file: a pipe would never end.
        """
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a regular file")
        try:
            opened = path.open("rb")
        except ValueError:  # NUL, or what the system's encoding lacks
            raise OSError(errno.EINVAL, "no file can have this name") from None
        with opened as file:
            if path.stat().st_size == 0:  # mmap refuses to map nothing
                return cls(memoryview(b""))
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(memoryview(pages), pages)

    def window(self, start: int, stop: int) -> MappedFile:
        """Bytes [start, stop) as if they were a file of their own."""
        return MappedFile(self.view[start:stop], self._pages, self._start + start)

    def drop(self, start: int, stop: int) -> None:
        """Give back the memory of bytes [start, stop); they can be read again.

        Reading a file that is larger than memory would otherwise fill it, and count
        against the process where memory is limited. Only Linux does it; elsewhere
        nothing happens.

        Args:
            start, stop: positions in `view`. The folios around them, which the system
                mapped along with them, are given back whole.
        """
        if self._pages is None or start >= stop:
            return
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        start, stop = self._start + start, self._start + stop
        first = start - start % FAULT_AROUND
        end = stop + -stop % FAULT_AROUND
        length = min(end, len(self._pages)) - first
        self._pages.madvise(mmap.MADV_DONTNEED, first, length)


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of a storage are compared with when they are read.

    Attributes:
        name: of the archive's entry that holds them, for messages.
        crc: their CRC-32.
    """

    name: str
    crc: int


@dataclass(eq=False, slots=True)
class Storage:
    """A run of bytes that one or more tensors look at.

    Attributes:
        key: its identity within its file: tensors whose storages have the same key
            share memory.
        start, nbytes: where the bytes lie within `mapping`.
        big_endian: whether elements are stored most significant byte first.
        checksum: not yet compared with the bytes; None where there is none, or where
            it has been.
    """

    key: str
    mapping: MappedFile
    start: int
    nbytes: int
    big_endian: bool = False
    checksum: Checksum | None = None

    @property
    def view(self) -> memoryview:
        """The bytes as they lie in the file."""
        return self.mapping.view[self.start : self.start + self.nbytes]

    def check(self) -> None:
        """Compare all of the bytes with the checksum, the first time.

        Raises:
            CheckpointError: they are damaged.
        """
        if self.checksum is not None:
            for _ in self.pieces(self.start, self.start + self.nbytes):
                pass

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Bytes [start, stop) of the mapping, in pieces of CHUNK or less.

        Where they are all bytes of the storage, its checksum is computed while they go
        by, piece by piece, as each is about to be used; otherwise all of the storage
        has to be read for it, before the first piece is handed out. Memory behind a
        piece is given back when the next one is asked for.

        Args:
            start, stop: within the storage.

        Raises:
            CheckpointError: the storage is damaged.
        """
        whole = (start, stop) == (self.start, self.start + self.nbytes)
        if not whole:
            self.check()
        expected = self.checksum
        crc = 0
        for at in range(start, stop, CHUNK):
            end = min(at + CHUNK, stop)
            piece = self.mapping.view[at:end]
            if expected is not None:
                crc = zlib.crc32(piece, crc)
                if end == stop:
                    self._compare(expected, crc)
            yield piece
            self.mapping.drop(at, end)

    def _compare(self, expected: Checksum, crc: int) -> None:
        """Compare the checksum with that of the bytes; it needn't be done again.

        Raises:
            CheckpointError: they differ.
        """
        if crc != expected.crc:
            raise CheckpointError(
                f"the checkpoint's storage {printable(expected.name)} is damaged: its"
                f" bytes have the checksum {crc:08x}, and the archive states"
                f" {expected.crc:08x}",
                "copy or download the checkpoint again",
            )
        self.checksum = None


@dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """A strided look at a storage, as in torch; offset and strides count elements.

    Whoever creates one has checked that every element lies within the storage.

    Attributes:
        dtype: the safetensors name of the element type.
        shape: the size of each dimension.
        strides: the distance between neighbours along each dimension, in elements.
        offset: where the first element lies in the storage, in elements.
        storage: the bytes.
        conjugate: whether the elements are the complex conjugates of those stored.
        negate: whether the elements are the negatives of those stored.
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
        """A tensor over the memory of an array, or of a copy laid out as files are.

        Args:
            array: of any shape. One that isn't row-major and little-endian is copied;
                any other is shared, and its changes show in the tensor.

        Raises:
            TypeError: no dtype holds the array's.
        """
        array = np.asarray(array)
        little_endian = array.dtype.newbyteorder("<")
        array = array.astype(little_endian, order="C", copy=False)
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
        """Whether the elements lie row-major and without gaps.

        Along a dimension of one entry nobody steps, so its stride may be anything.
        """
        packed = contiguous_strides(self.shape)
        axes = zip(self.shape, self.strides, packed, strict=True)
        for size, stride, packed_stride in axes:
            if size != 1 and stride != packed_stride:
                return False
        return True

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements as an array: where possible a read-only view of the file.

        Elements that are stored otherwise than numpy wants them (big-endian, or with
        their signs yet to be changed) are copied.

        Returns:
            An array of the tensor's shape, little-endian, in the tensor's own strides
            or, of copies, row-major.

        Raises:
            TypeError: numpy can't hold the dtype (F4, C32).
            CheckpointError: the storage is damaged.
        """
        dtype = DTYPES[self.dtype]
        if dtype.numpy is None:
            raise TypeError(f"numpy has no type for {self.dtype}")
        self.storage.check()
        converted = self.storage.big_endian or self._changes_sign
        if self.size and not converted:
            return self._strided(dtype.numpy, 1)
        flat = np.frombuffer(bytearray().join(self.chunks()), dtype=dtype.numpy)
        flat.flags.writeable = False
        return flat.reshape(self.shape)

    def forget(self) -> None:
        """Give back the memory of what was read; it can be read again."""
        storage = self.storage
        storage.mapping.drop(storage.start, storage.start + storage.nbytes)

    def chunks(self) -> Iterator[memoryview]:
        """The elements row-major and little-endian, in pieces.

        Memory behind a piece is given back when the next one is asked for.

        Returns:
            Pieces of about CHUNK bytes; a file's own bytes where they lie in this
            order, otherwise copies.

        Raises:
            CheckpointError: the storage is damaged; before the last piece is handed out
                at the latest.
        """
        if self.size == 0:
            return iter(())
        swapped = self.storage.big_endian and DTYPES[self.dtype].bits > 8
        converted = swapped or self._changes_sign
        if self.is_contiguous and not converted:
            return self._stored_chunks()
        return self._converted_chunks()

    @property
    def _changes_sign(self) -> bool:
        """Whether a sign bit of the elements isn't what is stored."""
        return self.conjugate or self.negate

    def _stored_chunks(self) -> Iterator[memoryview]:
        """The bytes as they lie in the file; of a contiguous tensor."""
        start = self.storage.start + self.offset * DTYPES[self.dtype].bits // 8
        return self.storage.pieces(start, start + self.nbytes)

    def _converted_chunks(self) -> Iterator[memoryview]:
        """Copies of one block after the other, put in order.

        numpy states in addresses which bytes a block spans; the memory to give back is
        counted from the start of the file. A block that spans four times its size or
        more is one of a transposed tensor: the next one lies on the same pages, which
        are kept until the end.
        """
        storage = self.storage
        storage.check()
        address = byte_bounds(np.frombuffer(storage.view, np.uint8))[0]
        to_file = storage.start - address
        for block in _blocks(self._units()):
            yield self._arranged(block).data.cast("B")
            low, high = byte_bounds(block)
            transposed = high - low >= 4 * block.nbytes
            if not transposed:
                storage.mapping.drop(to_file + low, to_file + high)
        storage.mapping.drop(storage.start, storage.start + storage.nbytes)

    def _units(self) -> np.ndarray[Any, Any]:
        """The elements as unsigned integers of their size, in the stored byte order.

        numpy can take any element apart so, also one of a dtype that it lacks.

        Returns:
            A view of the tensor's shape. A complex number is two integers, its real and
            its imaginary part, on a further, last axis; dimensions of one are left out
            then.
        """
        dtype = DTYPES[self.dtype]
        parts = 2 if dtype.kind == "complex" else 1
        unit = np.dtype(f"u{dtype.bits // 8 // parts}")
        stored = unit.newbyteorder(">" if self.storage.big_endian else "<")
        return self._strided(stored, parts)

    def _strided(self, dtype: np.dtype[Any], parts: int) -> np.ndarray[Any, Any]:
        """A view of the elements as they lie.

        Args:
            dtype: what to read an element, or one of its parts, as.
            parts: how many of the dtype an element is; two lie on a further, last axis.
        """
        step = dtype.itemsize * parts
        shape = self.shape
        strides = tuple(stride * step for stride in self.strides)
        if parts == 2:
            # numpy has as many dimensions as torch: without those of one there is room
            long = [axis for axis, size in enumerate(shape) if size != 1]
            shape = (*(shape[axis] for axis in long), 2)
            strides = (*(strides[axis] for axis in long), dtype.itemsize)
        offset = self.offset * step
        return np.ndarray(shape, dtype, self.storage.view, offset, strides)

    def _arranged(self, block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A contiguous little-endian copy of a block, its signs changed.

        The sign of a float is its highest bit (IEEE 754), so that changing it needs no
        arithmetic, and keeps the other bits of a NaN.

        Args:
            block: units of whole elements, as _units gives them.

        Returns:
            The units in one dimension.
        """
        block = block.astype(block.dtype.newbyteorder("<"), order="C")
        bits = block.dtype.itemsize * 8
        sign = np.array(1 << (bits - 1), block.dtype)
        if self.conjugate:
            block[..., 1] ^= sign
        # torch sets the bit on floating-point views of complex tensors only
        if self.negate:
            block ^= sign
        return block.reshape(-1)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major tensor without gaps.

    Args:
        shape: of the tensor. A dimension of no entries counts as one of one, as in
            torch.

    Returns:
        One stride for each dimension, in elements; the last is 1.
    """
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _blocks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """Split along the leading axes into row-major blocks of about CHUNK bytes.

    Args:
        array: in any strides.

    Returns:
        Views of it, in row-major order, of at most CHUNK bytes each.
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
