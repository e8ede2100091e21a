"""Reading ONNX files whatever their size: the graph without the data of its weights,
and the weights where they lie.
"""

from __future__ import annotations

import mmap
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from checkpoint_release.core.dtypes import of_numpy
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import REMAKE
from checkpoint_release.core.signature import Array
from checkpoint_release.tensors.tensor import (
    MappedFile,
    Storage,
    Tensor,
    contiguous_strides,
)
from checkpoint_release.tensors.views import Views

_SMALL = 1024  # bytes of an initialiser that shape inference may look at
MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9
"""Numbers of the fields of onnx.proto that lead to the data of weights."""


class _Field(NamedTuple):
    """Where a field of a protobuf message lies: its tag at `start`, its payload from
    `payload` to `stop`.
    """

    number: int
    start: int
    payload: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return self.stop - self.payload


def read_skeleton(path: Path, keep: int = _SMALL) -> ModelProto:
    """Read a model without the data of its initialisers, whatever its size.

    Args:
        path: the .onnx file.
        keep: initialisers of at most so many bytes keep their data, because shape
            inference looks at such.
    """
    return _read(path, keep, lambda tensor, start, size: None)


def read_in_place(path: Path, keep: int = _SMALL) -> ModelProto:
    """Read a model whose initialisers stay where they are: as external data, in the
    very file where they are embedded.

    Args:
        path: the .onnx file.
        keep: initialisers of at most so many bytes keep their data.

    Returns:
        A model as good as the file, to whoever resolves external data in its folder.
    """

    def point(tensor: TensorProto, start: int, size: int) -> None:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=path.name)
        tensor.external_data.add(key="offset", value=str(start))
        tensor.external_data.add(key="length", value=str(size))

    return _read(path, keep, point)


def initializers(path: Path, graph: GraphProto) -> Mapping[str, Array]:
    """Name → array of all initialisers; those of more than a few bytes are mapped.

    Args:
        path: the .onnx file.
        graph: of that file, as read_in_place gives it.

    Raises:
        ArtifactError: external data are missing, or cut short.
    """
    mapped = map_initializers(path, graph)
    own = {}
    for tensor in graph.initializer:
        if tensor.name not in mapped:
            own[tensor.name] = numpy_helper.to_array(tensor)
    return ChainMap(own, Views(mapped))  # type: ignore[arg-type]


def map_initializers(path: Path, graph: GraphProto) -> dict[str, Tensor]:
    """Name → tensor of the graph's external initialisers, mapped and not read.

    Args:
        path: the .onnx file, beside which the data lie.
        graph: of that file.

    Raises:
        ArtifactError: a file is missing, or too short.
    """
    files: dict[str, MappedFile] = {}
    tensors = {}
    for entry in graph.initializer:
        if entry.data_location == TensorProto.EXTERNAL:
            place = ExternalDataInfo(entry)
            if place.location not in files:
                files[place.location] = _map(path.parent / place.location)
            tensors[entry.name] = _mapped(path, entry, place, files[place.location])
    return tensors


def embed(graph: GraphProto, tensors: Mapping[str, Tensor]) -> None:
    """Bring the data of the graph's external initialisers into it.

    onnx's own reader refuses a file that has several hard links, as DVC's cache may
    give it.

    Args:
        graph: it is changed.
        tensors: name → tensor, as map_initializers gives them.
    """
    for entry in graph.initializer:
        if entry.data_location == TensorProto.EXTERNAL:
            entry.raw_data = b"".join(tensors[entry.name].chunks())
            entry.data_location = TensorProto.DEFAULT
            del entry.external_data[:]


def _map(path: Path) -> MappedFile:
    try:
        return MappedFile.of_file(path)
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error.strerror}", REMAKE) from None


def _mapped(
    path: Path, entry: TensorProto, place: ExternalDataInfo, file: MappedFile
) -> Tensor:
    """An initialiser's tensor over the file that holds its data."""
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(entry.data_type))
    shape = tuple(entry.dims)
    start = place.offset or 0
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if start + size > len(file.view) or place.length not in (None, size):
        raise ArtifactError(
            f"{path}: the data of {entry.name!r} aren't all in {place.location}", REMAKE
        )
    storage = Storage(f"{place.location} at {start}", file, start, size)
    strides = contiguous_strides(shape)
    return Tensor(of_numpy(dtype).name, shape, strides, 0, storage)


Place = Callable[[TensorProto, int, int], None]
"""Notes where the data were that an initialiser was read without: start and size in
bytes.
"""


def _read(path: Path, keep: int, place: Place) -> ModelProto:
    model = ModelProto()
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as view,
    ):
        for field in _fields(view, 0, len(view)):
            if field.number == MODEL_GRAPH:
                _read_graph(model.graph, view, field, keep, place)
            else:
                model.MergeFromString(bytes(view[field.start : field.stop]))
    return model


def _read_graph(
    graph: GraphProto, view: memoryview, whole: _Field, keep: int, place: Place
) -> None:
    """Read a graph without the data of its initialisers.

    Args:
        graph: what is read is added to it.
        view: the file.
        whole: the graph's field in the model.
        keep: initialisers of at most so many bytes keep their data.
        place: called with each of the others.
    """
    for field in _fields(view, whole.payload, whole.stop):
        if field.number == GRAPH_INITIALIZER:
            content, data = _without_raw_data(view, field, keep)
            tensor = graph.initializer.add()
            tensor.ParseFromString(content)
            if data is not None:
                place(tensor, data.payload, data.size)
        else:
            graph.MergeFromString(bytes(view[field.start : field.stop]))


def _without_raw_data(
    view: memoryview, tensor: _Field, keep: int
) -> tuple[bytes, _Field | None]:
    """A tensor's message without its data, and the field of those, if they have more
    than `keep` bytes.
    """
    content, data = bytearray(), None
    for field in _fields(view, tensor.payload, tensor.stop):
        if field.number != TENSOR_RAW_DATA or field.size <= keep:
            content += view[field.start : field.stop]
        else:
            data = field
    return bytes(content), data


def _fields(view: memoryview, start: int, stop: int) -> Iterator[_Field]:
    """Each field of the protobuf message between two positions.

    Raises:
        ValueError: there is no such message.
    """
    while start < stop:
        tag, payload = _read_varint(view, start)
        match tag & 7:
            case 0:  # a varint
                _, end = _read_varint(view, payload)
            case 1:  # 64 bits
                end = payload + 8
            case 2:  # length-delimited
                length, payload = _read_varint(view, payload)
                end = payload + length
            case 5:  # 32 bits
                end = payload + 4
            case wire_type:
                raise ValueError(f"wire type {wire_type} at byte {start}")
        if end > stop:
            raise ValueError(
                f"the field at byte {start} ends at {end}, its message at {stop}"
            )
        yield _Field(tag >> 3, start, payload, end)
        start = end


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number of variable length, and the position after it."""
    value = shift = 0
    while True:
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
