"""ONNX files: a writer that streams weights and whose bytes never vary, and a reader that leaves weights in the file.

A model here is a `ModelProto` whose weights have a name, a type and dimensions but no data, so that it stays small.
Their data is streamed from arrays, which may be mapped files: past the 2 GB that protobuf allows a message, into one
external-data file beside the model, otherwise into the file itself.
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from onnx import ModelProto, TensorProto, helper

from pipeline.signature import Array

EMBEDDED_LIMIT = 2**31 - 2**20  # protobuf refuses messages of 2 GiB; a mebibyte is left for what readers add
_ALIGNMENT = 64  # bytes; ONNX Runtime maps external data, and vector instructions like this
_PAGE = 65536  # bytes; the largest granularity that an operating system maps files at
_CHUNK = 4 << 20  # bytes written at a time
_LENGTH_DELIMITED = 2
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9


def weight(name: str, array: Array) -> TensorProto:
    """An initialiser whose data `write_onnx` will take from the array of that name."""
    return TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)


def is_streamed(tensor: TensorProto) -> bool:
    """Whether the initialiser has no data of its own."""
    return not tensor.ByteSize() or (
        not tensor.HasField("raw_data")
        and not any(
            len(getattr(tensor, field))
            for field in ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
        )
        and math.prod(tensor.dims) > 0
    )


def write_onnx(
    path: Path, model: ModelProto, weights: Mapping[str, Array], *, embedded_limit: int = EMBEDDED_LIMIT
) -> None:
    """Write the model with its weights, or, where that is more than the limit, with `<file name>.data` beside it.

    Args:
        path: the .onnx file.
        model: initialisers without data take theirs from `weights`; the model is left as it is.
        weights: name → array of the initialiser's type and dimensions.
        embedded_limit: bytes that one file may have.
    """
    streamed = [tensor for tensor in model.graph.initializer if is_streamed(tensor)]
    kept = [tensor for tensor in model.graph.initializer if not is_streamed(tensor)]
    total = sum(weights[tensor.name].nbytes for tensor in streamed)
    skeleton = ModelProto()
    skeleton.CopyFrom(model)
    del skeleton.graph.initializer[:]
    skeleton.graph.initializer.extend(kept)
    if total + model.ByteSize() <= embedded_limit:
        _write_embedded(path, skeleton, streamed, weights)
    else:
        _write_external(path, skeleton, streamed, weights)


def _write_embedded(
    path: Path, skeleton: ModelProto, streamed: list[TensorProto], weights: Mapping[str, Array]
) -> None:
    graph = skeleton.graph.SerializeToString(deterministic=True)
    heads = []
    for tensor in streamed:
        head = tensor.SerializeToString(deterministic=True) + _head(_TENSOR_RAW_DATA, weights[tensor.name].nbytes)
        heads.append(_head(_GRAPH_INITIALIZER, len(head) + weights[tensor.name].nbytes) + head)
    size = len(graph) + sum(map(len, heads)) + sum(weights[tensor.name].nbytes for tensor in streamed)
    skeleton.ClearField("graph")
    with path.open("wb") as file:
        file.write(skeleton.SerializeToString(deterministic=True))
        file.write(_head(_MODEL_GRAPH, size))
        file.write(graph)
        for tensor, head in zip(streamed, heads, strict=True):
            file.write(head)
            _write_array(file, weights[tensor.name])


def _write_external(
    path: Path, skeleton: ModelProto, streamed: list[TensorProto], weights: Mapping[str, Array]
) -> None:
    data = path.with_name(path.name + ".data")
    with data.open("wb") as file:
        for tensor in streamed:
            array = weights[tensor.name]
            file.write(bytes(-file.tell() % (_PAGE if array.nbytes >= _PAGE else _ALIGNMENT)))
            entry = skeleton.graph.initializer.add()
            entry.CopyFrom(tensor)
            entry.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data.name), ("offset", file.tell()), ("length", array.nbytes)):
                entry.external_data.add(key=key, value=str(value))
            _write_array(file, array)
    path.write_bytes(skeleton.SerializeToString(deterministic=True))


def _write_array(file: BinaryIO, array: Array) -> None:
    """Row-major little-endian bytes, as ONNX wants them on any machine."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    flat = np.ascontiguousarray(little).reshape(-1).view(np.uint8)
    for start in range(0, flat.nbytes, _CHUNK):
        file.write(flat[start : start + _CHUNK].data)


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


# ---------------------------------------------------------------------------------------------------------------------


def read_skeleton(path: Path, keep: int = 1024) -> ModelProto:
    """Read a model without the data of its initialisers, whatever its size.

    Args:
        path: the .onnx file.
        keep: initialisers of at most so many bytes keep their data, for shape inference looks at such.
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
            for inner, inner_start, inner_payload, inner_stop in _fields(view, payload, stop):
                if inner != _GRAPH_INITIALIZER:
                    model.graph.MergeFromString(bytes(view[inner_start:inner_stop]))
                    continue
                parts = [
                    bytes(view[start:stop])
                    for field, start, payload, stop in _fields(view, inner_payload, inner_stop)
                    if field != _TENSOR_RAW_DATA or stop - payload <= keep
                ]
                model.graph.initializer.add().ParseFromString(b"".join(parts))
        return model


def _fields(view: memoryview, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Each field of a protobuf message: its number, where it starts, where its payload starts, and where it ends."""
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
            raise ValueError(f"the field at byte {start} ends at {at}, its message at {stop}")
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
