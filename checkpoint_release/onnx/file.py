"""ONNX files: a writer that streams weights and whose bytes never vary. What reads them
without their weights is checkpoint_release.runtimes.onnx_skeleton.

A model here is a `ModelProto` whose weights have a name, a type and dimensions but no
data, so that it stays small. Their data is streamed, piece by piece, from arrays or
from tensors of a mapped file: past the 2 GB that protobuf allows a message, into one
external-data file beside the model, otherwise into the file itself.
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto,
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from checkpoint_release.core.artifacts.formats import DATA_SUFFIX
from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Array
from checkpoint_release.runtimes.onnx_skeleton import (
    GRAPH_INITIALIZER,
    MODEL_GRAPH,
    TENSOR_RAW_DATA,
)
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import Tensor, TensorLike

NamedArrays = Mapping[str, Array | TensorLike]
"""Name → array, or tensor of a mapped file."""

# protobuf refuses messages of 2 GiB; a mebibyte is left for what readers add
EMBEDDED_LIMIT = 2**31 - 2**20
# bytes; ONNX Runtime maps external data, and vector instructions like this
_ALIGNMENT = 64
_PAGE = 65536  # bytes; the largest granularity that an operating system maps files at
_LENGTH_DELIMITED = 2
_DATA_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "string_data",
    "int64_data",
    "double_data",
    "uint64_data",
)
_OWN_BUG = "this is a bug: report it"


def placeholder(name: str, array: Array) -> TensorProto:
    """An initialiser whose data `write_onnx` will take from the array of that name."""
    return TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
    )


def is_placeholder(tensor: TensorProto) -> bool:
    """Whether the initialiser has elements and no data of its own."""
    for field in _DATA_FIELDS:
        if len(getattr(tensor, field)):
            return False
    dims: list[int] = list(tensor.dims)
    return math.prod(dims) > 0


@dataclass(frozen=True)
class _Weight:
    """An initialiser without data, and its data."""

    tensor: TensorProto
    data: TensorLike

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return nbytes(self.data)


def write_onnx(
    path: Path,
    model: ModelProto,
    weights: NamedArrays,
    *,
    embedded_limit: int = EMBEDDED_LIMIT,
) -> None:
    """Write the model with its weights, or, where that is more than the limit, with
    `<file name>_data` beside it.

    Args:
        path: the .onnx file.
        model: initialisers without data take theirs from `weights`; the model is left
            as it is.
        weights: name → array or tensor of the initialiser's type and dimensions. A
            tensor of a mapped file gives its memory back as it goes by, an array over
            one doesn't.
        embedded_limit: bytes that one file may have.

    Raises:
        ExportError: an initialiser has no weight, or one of another type or other
            dimensions.
    """
    skeleton = ModelProto()
    skeleton.CopyFrom(model)
    del skeleton.graph.initializer[:]
    streamed = []
    for tensor in model.graph.initializer:
        if is_placeholder(tensor):
            streamed.append(_matching_weight(tensor, weights))
        else:
            skeleton.graph.initializer.append(tensor)
    size = model.ByteSize() + sum(weight.size for weight in streamed)
    if size <= embedded_limit:
        _write_embedded(path, skeleton, streamed)
    else:
        _write_external(path, skeleton, streamed)


def _matching_weight(tensor: TensorProto, weights: NamedArrays) -> _Weight:
    """The initialiser with its weight.

    Raises:
        ExportError: there is no weight of that name, or it has another type or other
            dimensions.
    """
    wanted = f"{TensorProto.DataType.Name(tensor.data_type)} {list(tensor.dims)}"
    weight = weights.get(tensor.name)
    if weight is None:
        raise ExportError(
            f"the graph's initialiser {tensor.name!r} ({wanted}) is none of the"
            " weights",
            _OWN_BUG,
        )
    data = Tensor.of_numpy(weight) if isinstance(weight, np.ndarray) else weight
    if _data_type(data) != tensor.data_type or list(data.shape) != list(tensor.dims):
        raise ExportError(
            f"the graph's initialiser {tensor.name!r} is {wanted}, and the weight"
            f" {data.dtype} {list(data.shape)}",
            _OWN_BUG,
        )
    return _Weight(tensor, data)


def _data_type(tensor: TensorLike) -> int | None:
    """ONNX's number of the tensor's dtype; None where it has none."""
    dtype = DTYPES[tensor.dtype].numpy
    return None if dtype is None else helper.np_dtype_to_tensor_dtype(dtype)


def _write_embedded(
    path: Path, skeleton: ModelProto, streamed: Sequence[_Weight]
) -> None:
    """Write one file: the model's message with the weights as its graph's last fields.

    Args:
        path: the .onnx file.
        skeleton: the model without the streamed initialisers; its graph is cleared.
        streamed: the weights, in order.
    """
    graph = skeleton.graph.SerializeToString(deterministic=True)
    heads = [_initializer_head(weight) for weight in streamed]
    size = len(graph)
    for weight, head in zip(streamed, heads, strict=True):
        size += len(head) + weight.size
    skeleton.ClearField("graph")
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString(deterministic=True))
        file.write(_field_head(MODEL_GRAPH, size))
        file.write(graph)
        for weight, head in zip(streamed, heads, strict=True):
            file.write(head)
            file.writelines(weight.data.chunks())


def _initializer_head(weight: _Weight) -> bytes:
    """All of the graph's field that comes before the weight's data."""
    tensor: bytes = weight.tensor.SerializeToString(deterministic=True)
    tensor += _field_head(TENSOR_RAW_DATA, weight.size)
    return _field_head(GRAPH_INITIALIZER, len(tensor) + weight.size) + tensor


def _write_external(
    path: Path, skeleton: ModelProto, streamed: Sequence[_Weight]
) -> None:
    """Write the weights beside the model, each at an offset that can be mapped.

    onnx_ir.save could do so, but needs all weights in memory unless they lie in files,
    and aligns to 4 KiB or not at all.

    Args:
        path: the .onnx file; the weights go to `<file name>_data`.
        skeleton: the model without the streamed initialisers; they are added to it.
        streamed: the weights, in order.
    """
    data = path.with_name(path.name + DATA_SUFFIX)
    with data.open("wb") as file:
        for weight in streamed:
            alignment = _PAGE if weight.size >= _PAGE else _ALIGNMENT
            file.write(bytes(-file.tell() % alignment))
            entry = skeleton.graph.initializer.add()
            entry.CopyFrom(weight.tensor)
            entry.data_location = TensorProto.EXTERNAL
            entry.external_data.add(key="location", value=data.name)
            entry.external_data.add(key="offset", value=str(file.tell()))
            entry.external_data.add(key="length", value=str(weight.size))
            file.writelines(weight.data.chunks())
    path.write_bytes(skeleton.SerializeToString(deterministic=True))


def _field_head(number: int, length: int) -> bytes:
    """The tag of a length-delimited field, and its length."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
