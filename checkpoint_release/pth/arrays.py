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

MAX_TEXT = 1 << 16  # bytes of a numpy string, which is copied wherever it is named
MAX_DIMENSIONS = 64  # numpy's own limit
MAX_SIZE = 1 << 59  # elements of up to 16 bytes: numpy counts bytes in 63 bits

_RECONSTRUCT = (
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
)
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
# numpy's codes of types: byte order, kind and bytes of an element
# (https://numpy.org/doc/stable/reference/arrays.interface.html). Text, dates, records
# and Python objects are no tensors.
_NUMBERS = re.compile(r"[<>|=]?(b1|i[1248]|u[1248]|f[248]|c8|c16)")

# loads the codec now: reading a file must import nothing
b"-\0\0\0".decode("utf-32-le")


@dataclass(frozen=True)
class _Array:
    """The parts of a pickled array, not yet checked.

    Attributes:
        data: its elements' bytes.
        dtype: the record of a numpy.dtype.
        shape: a tuple of sizes.
        fortran: whether the first dimension is the one that changes fastest.
    """

    data: Any
    dtype: Any
    shape: Any
    fortran: bool


def is_array(record: Inert) -> bool:
    """Whether a record stands for a numpy array."""
    return record.args is not None and record.name in (*_RECONSTRUCT, *_FROM_BUFFER)


def array_of(record: Inert) -> Tensor | None:
    """The tensor for the record of a numpy array.

    A file may write anything as an array's parts. The size that shape and dtype claim
    has to be that of the bytes, so nothing is allocated by a claim.

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

    Trainers save losses and metrics so, without noticing that they are numpy's.

    Args:
        unpickler: every builder is given it; nothing is charged here.
        args: the record of a numpy.dtype, and the value's bytes as that dtype has them.

    Raises:
        Unsupported: the arguments are not of that kind.
    """
    if len(args) != 2:
        raise Unsupported
    record = args[0]
    data = _bytes_of(args[1])
    if _is_text(record):
        return _text(data)
    dtype = _numpy_dtype(record)
    if len(data) != dtype.itemsize:
        raise Unsupported
    return np.frombuffer(data, dtype)[0].item()


def _text(data: bytes) -> str:
    """The text of a numpy string: UTF-32, with zeros up to the type's length.

    Args:
        data: little-endian.

    Raises:
        Unsupported: it is longer than a text among facts would be.
        ValueError: it isn't UTF-32.
    """
    if len(data) > MAX_TEXT:
        raise Unsupported
    return data.decode("utf-32-le").rstrip("\0")


def _parts(record: Inert) -> _Array:
    """The parts of an array.

    They are the state (version, shape, dtype, fortran order, bytes) of `_reconstruct`,
    since protocol 5 also the arguments of `_frombuffer(bytes, dtype, shape, order)`
    (array_reduce and array_reduce_ex in numpy/_core/src/multiarray/methods.c).

    Args:
        record: one that is_array.

    Raises:
        TypeError, ValueError: there are other parts, or as many as there shouldn't be.
    """
    if record.name in _RECONSTRUCT:
        _, shape, dtype, fortran, data = record.state
        return _Array(data, dtype, shape, bool(fortran))
    data, dtype, shape, order = record.args or ()
    return _Array(data, dtype, shape, order == "F")


def _bytes_of(data: Any) -> bytes:
    """Bytes, or those of a Python 2 string that happened to be UTF-8.

    Python 2 wrote bytes as strings, and the Unpickler reads those that are UTF-8 as
    text, as torch.load does.

    Raises:
        Unsupported: it is something else.
        ValueError: the text holds lone surrogates, which UTF-8 doesn't have.
    """
    if type(data) is str:
        return data.encode()
    if type(data) is bytes:
        return data
    raise Unsupported


def _shape_of(shape: Any) -> tuple[int, ...]:
    """The shape, checked.

    Types are compared exactly: True is an int to isinstance, and no size.

    Raises:
        Unsupported: it isn't a tuple of sizes, or has more dimensions than numpy has.
    """
    if type(shape) is not tuple:
        raise Unsupported
    if len(shape) > MAX_DIMENSIONS:
        raise Unsupported
    for size in shape:
        if type(size) is not int:
            raise Unsupported
        # two negative sizes would have a harmless product, and zero hides a huge one
        if not 0 <= size < MAX_SIZE:
            raise Unsupported
    if math.prod(max(size, 1) for size in shape) >= MAX_SIZE:
        raise Unsupported
    return shape


def _numpy_dtype(record: Any) -> np.dtype[Any]:
    """The type of numbers that a record of numpy.dtype means, its state included.

    numpy writes the code without a byte order and sets that by the state
    (arraydescr_reduce in numpy/_core/src/multiarray/descriptor.c). Only codes of
    _NUMBERS reach np.dtype, which would also parse whole record types out of text.

    Args:
        record: what stands where a pickled array or scalar has its dtype.

    Raises:
        Unsupported: it is another type.
    """
    code = _type_code(record)
    if not _NUMBERS.fullmatch(code):
        raise Unsupported
    dtype = np.dtype(code.lstrip("<>|="))
    if code[0] == ">" or _byte_order(record) == ">":
        return dtype.newbyteorder(">")
    return dtype.newbyteorder("<")


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
    """As the state of a numpy dtype has it: (version, byte order, …).

    Args:
        record: of a numpy.dtype.

    Returns:
        "<", ">" or "|" (not applicable: single bytes), as which a missing state counts;
        from other hands than numpy's anything.
    """
    state = record.state
    if not isinstance(state, tuple):
        return "|"
    return state[1] if len(state) > 1 else "|"
