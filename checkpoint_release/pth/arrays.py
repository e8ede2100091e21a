"""numpy's arrays and scalars, out of the records of what a pickle would call."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import of_numpy
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.unpickler import Unpickler, Unsupported
from checkpoint_release.tensors.tensor import (
    MappedFile,
    Storage,
    Tensor,
    contiguous_strides,
)

MAX_TEXT = 1 << 16  # bytes of a numpy string
MAX_DIMENSIONS = 64  # numpy's own limit

_RECONSTRUCT = (
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_NUMBERS = re.compile(r"[<>|=]?(b1|i[1248]|u[1248]|f[248]|c8|c16)")

# loads the codec now: reading a file must import nothing
b"-\0\0\0".decode("utf-32-le")


@dataclass(frozen=True)
class _Array:
    """The parts of a pickled array, not yet checked."""

    data: Any
    dtype: Any
    shape: Any
    fortran: bool


def is_array(record: Inert) -> bool:
    """Whether a record stands for a numpy array."""
    return record.args is not None and record.name in (*_RECONSTRUCT, *_FROM_BUFFER)


def array_of(record: Inert) -> Tensor | None:
    """The tensor for the record of a numpy array.

    Args:
        record: one that is_array.

    Returns:
        A tensor over the pickle's own bytes, of the array's shape and order; None where
        the array holds other things than numbers, or isn't what numpy writes.
    """
    try:
        array = _parts(record)
        dtype = _numpy_dtype(array.dtype)
        name = of_numpy(dtype.newbyteorder("<")).name
        shape = _shape_of(array.shape)
        data = _bytes_of(array.data)
    except (TypeError, ValueError, Unsupported):
        return None
    if data is None:
        return None
    if math.prod(shape) * dtype.itemsize != len(data):
        return None
    strides = contiguous_strides(shape)
    if array.fortran:
        strides = tuple(reversed(contiguous_strides(shape[::-1])))
    key = f"array {id(record):#x}"
    mapping = MappedFile(memoryview(data))
    storage = Storage(key, mapping, 0, len(data), dtype.byteorder == ">")
    return Tensor(name, shape, strides, 0, storage)


def scalar(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """Builds what numpy.core.multiarray.scalar(dtype, bytes) means: a number or text.

    Raises:
        Unsupported: the arguments are not of that kind.
    """
    if len(args) != 2:
        raise Unsupported
    record, data = args[0], _bytes_of(args[1])
    if data is None:
        raise Unsupported
    if _is_text(record):
        return _text(data)
    dtype = _numpy_dtype(record)
    if len(data) != dtype.itemsize:
        raise Unsupported
    return np.frombuffer(data, dtype)[0].item()


def _text(data: bytes) -> str:
    """numpy's strings are UTF-32, with zeros up to their length."""
    if len(data) > MAX_TEXT:
        raise Unsupported
    return data.decode("utf-32-le").rstrip("\0")


def _parts(record: Inert) -> _Array:
    """The parts of an array.

    They are the state (version, shape, dtype, fortran order, bytes) of `_reconstruct`,
    since protocol 5 also the arguments of `_frombuffer(bytes, dtype, shape, order)`.

    Raises:
        TypeError, ValueError: they aren't.
    """
    if record.name in _RECONSTRUCT:
        _, shape, dtype, fortran, data = record.state
        return _Array(data, dtype, shape, bool(fortran))
    data, dtype, shape, order = record.args or ()
    return _Array(data, dtype, shape, order == "F")


def _bytes_of(data: Any) -> bytes | None:
    """Bytes, or those of a Python 2 string that happened to be UTF-8."""
    if type(data) is str:
        return data.encode()
    return data if type(data) is bytes else None


def _shape_of(shape: Any) -> tuple[int, ...]:
    """The shape, checked.

    Raises:
        Unsupported: it isn't a tuple of sizes.
    """
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise Unsupported
    for size in shape:
        if type(size) is not int or size < 0:
            raise Unsupported
    return shape


def _numpy_dtype(record: Any) -> np.dtype[Any]:
    """The type of numbers that a record of numpy.dtype means, its state included.

    Raises:
        Unsupported: it is another type.
    """
    code = _type_code(record)
    if not _NUMBERS.fullmatch(code):
        raise Unsupported
    big_endian = code[0] == ">" or _byte_order(record) == ">"
    return np.dtype(code.lstrip("<>|=")).newbyteorder(">" if big_endian else "<")


def _is_text(record: Any) -> bool:
    """Whether it is the record of a little-endian text type, such as "U5".

    Raises:
        Unsupported: it is no numpy type at all.
    """
    return _type_code(record).startswith("U") and _byte_order(record) == "<"


def _type_code(record: Any) -> str:
    """The code, such as "f4", in a record of `numpy.dtype(code, align, copy)`.

    Raises:
        Unsupported: it is something else.
    """
    match record:
        case Inert(name="numpy.dtype", args=(str() as code, *_)):
            return code
    raise Unsupported


def _byte_order(record: Inert) -> Any:
    """As the state of a numpy dtype has it: (version, byte order, …)."""
    state = record.state
    return state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
