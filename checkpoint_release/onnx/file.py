"""ONNX files: a writer that streams weights and whose bytes never vary, and a reader
that leaves weights in the file.

A model here is a `ModelProto` whose weights have a name, a type and dimensions but no
data, so that it stays small. Their data is streamed, piece by piece, from arrays or
from tensors of a mapped file: past the 2 GB that protobuf allows a message, into one
external-data file beside the model, otherwise into the file itself.
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto,
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Array
from checkpoint_release.tensors.safetensors import nbytes
from checkpoint_release.tensors.tensor import Tensor, TensorLike

# protobuf refuses messages of 2 GiB; a mebibyte is left for what readers add
EMBEDDED_LIMIT = 2**31 - 2**20
# bytes; ONNX Runtime maps external data, and vector instructions like this
_ALIGNMENT = 64
_PAGE = 65536  # bytes; the largest granularity that an operating system maps files at
_LENGTH_DELIMITED = 2
_OWN_MISTAKE = "report this: the graph was made for other weights"
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def weight(name: str, array: Array) -> TensorProto:
    """An initialiser whose data `write_onnx` will take from the array of that name."""
    return TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
    )


def is_streamed(tensor: TensorProto) -> bool:
    """Whether the initialiser has no data of its own."""
    return not tensor.ByteSize() or (
        not tensor.HasField("raw_data")
        and not any(
            len(getattr(tensor, field))
            for field in (
                "float_data",
                "int32_data",
                "string_data",
                "int64_data",
                "double_data",
                "uint64_data",
            )
        )
        and math.prod(tensor.dims) > 0
    )


def write_onnx(
    path: Path,
    model: ModelProto,
    weights: Mapping[str, Array | TensorLike],
    *,
    embedded_limit: int = EMBEDDED_LIMIT,
) -> None:
    """Write the model with its weights, or, where that is more than the limit, with
    `<file name>.data` beside it.

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
    kept = [tensor for tensor in model.graph.initializer if not is_streamed(tensor)]
    streamed = [
        (tensor, _matching(tensor, weights.get(tensor.name)))
        for tensor in model.graph.initializer
        if is_streamed(tensor)
    ]
    skeleton = ModelProto()
    skeleton.CopyFrom(model)
    del skeleton.graph.initializer[:]
    skeleton.graph.initializer.extend(kept)
    if (
        sum(nbytes(weight) for _, weight in streamed) + model.ByteSize()
        <= embedded_limit
    ):
        _write_embedded(path, skeleton, streamed)
    else:
        _write_external(path, skeleton, streamed)


def _matching(tensor: TensorProto, weight: Array | TensorLike | None) -> TensorLike:
    """The weight, if it is what the initialiser says."""
    wanted = f"{TensorProto.DataType.Name(tensor.data_type)} {list(tensor.dims)}"
    if weight is None:
        raise ExportError(
            f"the graph's initialiser {tensor.name!r} ({wanted}) is none of the"
            " weights",
            _OWN_MISTAKE,
        )
    found = Tensor.of_numpy(weight) if isinstance(weight, np.ndarray) else weight
    numpy_type = DTYPES[found.dtype].numpy
    kind = (
        helper.np_dtype_to_tensor_dtype(numpy_type) if numpy_type is not None else None
    )
    if kind != tensor.data_type or tuple(found.shape) != tuple(tensor.dims):
        raise ExportError(
            f"the graph's initialiser {tensor.name!r} is {wanted}, and the weight"
            f" {found.dtype} {list(found.shape)}",
            _OWN_MISTAKE,
        )
    return found


def _write_embedded(
    path: Path, skeleton: ModelProto, streamed: list[tuple[TensorProto, TensorLike]]
) -> None:
    graph = skeleton.graph.SerializeToString(deterministic=True)
    heads = []
    for tensor, weight in streamed:
        head = tensor.SerializeToString(deterministic=True) + _head(
            _TENSOR_RAW_DATA, nbytes(weight)
        )
        heads.append(_head(_GRAPH_INITIALIZER, len(head) + nbytes(weight)) + head)
    size = (
        len(graph)
        + sum(map(len, heads))
        + sum(nbytes(weight) for _, weight in streamed)
    )
    skeleton.ClearField("graph")
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString(deterministic=True))
        file.write(_head(_MODEL_GRAPH, size))
        file.write(graph)
        for (_, weight), head in zip(streamed, heads, strict=True):
            file.write(head)
            file.writelines(weight.chunks())


def _write_external(
    path: Path, skeleton: ModelProto, streamed: list[tuple[TensorProto, TensorLike]]
) -> None:
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        for tensor, weight in streamed:
            file.write(
                bytes(-file.tell() % (_PAGE if nbytes(weight) >= _PAGE else _ALIGNMENT))
            )
            entry = skeleton.graph.initializer.add()
            entry.CopyFrom(tensor)
            entry.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", data.name),
                ("offset", file.tell()),
                ("length", nbytes(weight)),
            ):
                entry.external_data.add(key=key, value=str(value))
            file.writelines(weight.chunks())
    path.write_bytes(skeleton.SerializeToString(deterministic=True))


def _head(number: int, length: int) -> bytes:
    """The tag of a length-delimited field, and its length."""
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


# --------------------------------------------------------------------------------------


def read_skeleton(path: Path, keep: int = 1024) -> ModelProto:
    """Read a model without the data of its initialisers, whatever its size.

    Args:
        path: the .onnx file.
        keep: initialisers of at most so many bytes keep their data, for shape inference
            looks at such.
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        model = ModelProto()
        for number, start, payload, stop in _fields(view, 0, len(view)):
            if number != _MODEL_GRAPH:
                model.MergeFromString(bytes(view[start:stop]))
                continue
            for inner, inner_start, inner_payload, inner_stop in _fields(
                view, payload, stop
            ):
                if inner != _GRAPH_INITIALIZER:
                    model.graph.MergeFromString(bytes(view[inner_start:inner_stop]))
                    continue
                parts = [
                    bytes(view[start:stop])
                    for field, start, payload, stop in _fields(
                        view, inner_payload, inner_stop
                    )
                    if field != _TENSOR_RAW_DATA or stop - payload <= keep
                ]
                model.graph.initializer.add().ParseFromString(b"".join(parts))
        return model


def _fields(
    view: memoryview, at: int, stop: int
) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a protobuf message: its number, where it starts, where its payload
    starts, and where it ends.
    """
    while at < stop:
        start = at
        tag, at = _read_varint(view, at)
        match tag & 7:
            case 0:
                payload = at
                _, at = _read_varint(view, at)
            case 1:
                payload, at = at, at + 8
            case 2:
                length, payload = _read_varint(view, at)
                at = payload + length
            case 5:
                payload, at = at, at + 4
            case kind:
                raise ValueError(f"wire type {kind} at byte {start}")
        if at > stop:
            raise ValueError(
                f"the field at byte {start} ends at {at}, its message at {stop}"
            )
        yield tag >> 3, start, payload, at


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
