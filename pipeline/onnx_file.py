"""Writing an ONNX file whose weights are streamed.

A protobuf message is its fields one after the other, each with its length, so a model's file can be written without
ever holding it: everything but the weights is small, and the weights' lengths are known before their bytes. The
bytes are those that `onnx.save` would write. Past 2 GB, where protobuf ends, the weights go into one file beside
the model.
https://protobuf.dev/programming-guides/encoding/
https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import onnx
from onnx import TensorProto

from pipeline.errors import ExportError
from pipeline.safetensors_file import nbytes
from pipeline.tensor import TensorLike

MAX_EMBEDDED = 2**31 - 1  # bytes of one protobuf message
ALIGNMENT = 4096  # of tensors in the external file, so that each can be mapped
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9  # field numbers in onnx.proto


def write_onnx(
    path: Path, model: onnx.ModelProto, weights: Mapping[str, TensorLike], max_embedded: int = MAX_EMBEDDED
) -> list[Path]:
    """Write a model, taking the bytes of the initialisers that have none from `weights`.

    The same model and weights always give the same bytes. One piece of one tensor is in memory at a time.

    Args:
        path: the model's file; the external data's is named like it, with `.data` at the end.
        model: initialisers with data of their own keep it; the others need a tensor of their name, dtype and dims.
        weights: the tensors.
        max_embedded: a larger file is not written; external data is.

    Returns:
        The files written: the model, and the external data if it is needed.

    Raises:
        ExportError: an initialiser has no data and no such tensor, or the graph alone exceeds `max_embedded`.
    """
    data = {tensor.name: weights[tensor.name] for tensor in _empty(model) if _check(tensor, weights)}
    size = _write_embedded(None, model, data)
    if size <= max_embedded:
        with path.open("wb") as file:
            _write_embedded(file, model, data)
        return [path]
    beside = path.with_name(f"{path.name}.data")
    located = onnx.ModelProto()
    located.CopyFrom(model)
    end = 0
    with beside.open("wb") as file:
        for tensor in located.graph.initializer:
            if tensor.name not in data:
                continue
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            file.write(bytes(offset - end))
            end = offset + _stream(file, tensor.name, data[tensor.name])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", beside.name), ("offset", offset), ("length", end - offset)):
                tensor.external_data.add(key=key, value=str(value))
    if (size := located.ByteSize()) > max_embedded:
        beside.unlink()
        raise ExportError(
            f"the graph without its weights has {size} bytes, and a model file can have {max_embedded}",
            "export another format: ONNX can't hold this model",
        )
    path.write_bytes(located.SerializeToString(deterministic=True))
    return [path, beside]


def _empty(model: onnx.ModelProto) -> Iterable[TensorProto]:
    """The initialisers without data of their own."""
    fields = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "external_data")
    for tensor in model.graph.initializer:
        if not any(len(getattr(tensor, field)) for field in fields):
            yield tensor


def _check(tensor: TensorProto, weights: Mapping[str, TensorLike]) -> bool:
    found = weights.get(tensor.name)
    wanted = f"{TensorProto.DataType.Name(tensor.data_type)} {list(tensor.dims)}"
    if found is None:
        raise ExportError(
            f"the graph's initialiser {tensor.name!r} ({wanted}) is not among the {len(weights)} tensors",
            "report this: the graph was made for other weights",
        )
    names = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16", "F64": "DOUBLE", "I64": "INT64", "BOOL": "BOOL"}
    got = f"{names.get(found.dtype, found.dtype)} {list(found.shape)}"
    if got != wanted:
        raise ExportError(
            f"the graph's initialiser {tensor.name!r} is {wanted}, and its tensor is {got}",
            "report this: the graph was made for other weights",
        )
    return True


def _write_embedded(file: BinaryIO | None, model: onnx.ModelProto, data: Mapping[str, TensorLike]) -> int:
    """Write the model with its weights inside, or only count the bytes (file None); returns their number."""
    before, after = onnx.ModelProto(), onnx.ModelProto()
    _copy_fields(model, before, after, _MODEL_GRAPH)
    graph_before, graph_after = onnx.GraphProto(), onnx.GraphProto()
    _copy_fields(model.graph, graph_before, graph_after, _GRAPH_INITIALIZER)
    head, tail = _bytes(graph_before), _bytes(graph_after)

    headers: list[tuple[bytes, TensorProto]] = []
    graph_size = len(head) + len(tail)
    for tensor in model.graph.initializer:
        fixed = _bytes(tensor)
        length = len(fixed)
        if tensor.name in data:
            count = nbytes(data[tensor.name])
            raw = _prefix(_TENSOR_RAW_DATA, count)
            fixed += raw
            length = len(fixed) + count
        header = _prefix(_GRAPH_INITIALIZER, length) + fixed
        headers.append((header, tensor))
        graph_size += len(header) + length - len(fixed)

    opening = _bytes(before) + _prefix(_MODEL_GRAPH, graph_size)
    closing = _bytes(after)
    if file is not None:
        file.write(opening + head)
        for header, tensor in headers:
            file.write(header)
            if tensor.name in data:
                _stream(file, tensor.name, data[tensor.name])
        file.write(tail + closing)
    return len(opening) + graph_size + len(closing)


def _copy_fields(
    message: onnx.ModelProto | onnx.GraphProto,
    before: onnx.ModelProto | onnx.GraphProto,
    after: onnx.ModelProto | onnx.GraphProto,
    number: int,
) -> None:
    """Copy the fields with smaller numbers and those with larger ones, which is how protobuf orders them."""
    for field, value in message.ListFields():
        if field.number == number:
            continue
        target = before if field.number < number else after
        if field.is_repeated:
            getattr(target, field.name).extend(value)
        elif field.message_type is not None:
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _stream(file: BinaryIO, name: str, tensor: TensorLike) -> int:
    written = 0
    for piece in tensor.chunks():
        file.write(piece)
        written += piece.nbytes
    if written != nbytes(tensor):
        raise ExportError(f"tensor {name!r} gave {written} bytes, and has {nbytes(tensor)}", "run load again")
    return written


def _bytes(message: onnx.ModelProto | onnx.GraphProto | TensorProto) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def _prefix(field: int, length: int) -> bytes:
    """The key and the length of a length-delimited field."""
    return _varint(field << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
