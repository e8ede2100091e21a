"""Safetensors files: a writer that streams, and a reader that maps.

The safetensors library needs every tensor in memory to write, copies each to read
through numpy, and orders metadata at random. The format is small enough to be written
here: eight bytes of header length, a JSON header, the data.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import ArtifactError, CheckpointError
from checkpoint_release.core.files import (
    REMAKE,
    DigestedFile,
    FileEntry,
    read_json,
)
from checkpoint_release.core.named_paths import require_inside
from checkpoint_release.core.progress import Progress
from checkpoint_release.core.text import printable, shown
from checkpoint_release.tensors.tensor import (
    MappedFile,
    Storage,
    Tensor,
    TensorLike,
    contiguous_strides,
)

MAX_HEADER = 100_000_000  # the library refuses a larger one
MAX_DIMENSIONS = 64  # torch's and numpy's own limit
MAX_NBYTES = 1 << 63  # of a tensor; sizes of zero count as one
# Bytes of memory that reading a header may take, and as many more for each of the
# file's: its text, and what is made of it.
HEADER_MEMORY = 48 << 20
HEADER_GROWTH = 3.5
_VALUE = 200  # bytes that a value in a header takes once it is read, with its name
_TENSOR = 1000
_RANK = {name: rank for rank, name in enumerate(DTYPES)}


def nbytes(tensor: TensorLike) -> int:
    """The size of a tensor's data in a safetensors file, in bytes."""
    return DTYPES[tensor.dtype].nbytes(math.prod(tensor.shape))


# ------------------------------------------------------------------------------
# Writing


def write_safetensors(
    path: Path,
    tensors: Mapping[str, TensorLike],
    metadata: Mapping[str, str] | None = None,
) -> FileEntry:
    """Write tensors so that the same tensors and metadata always give the same bytes.

    The order is the safetensors library's own: by dtype, the widest first, then by
    name; `metadata` is sorted by key. Tensors are streamed one piece at a time,
    whatever their size.

    Returns:
        The file's size and digest.

    Raises:
        CheckpointError: safetensors can't hold a dtype or a name, or the disk is too
            full.
        ArtifactError: the file can't be written.
    """
    _check_names_and_dtypes(tensors)
    ordered = sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name))
    header, data_size = _header(ordered, tensors, metadata)
    try:
        _check_free_space(path, len(header) + data_size)
        file = DigestedFile(path)
    except OSError as error:
        raise ArtifactError(f"{path} can't be written: {error.strerror}") from None
    with file, Progress(f"writing {path.name}", data_size) as progress:
        file.write(header)
        for name in ordered:
            _write_tensor(file, name, tensors[name], progress)
    return file.entry


def write_shards(
    folder: Path,
    tensors: Mapping[str, TensorLike],
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    stem: str = "model",
) -> dict[str, FileEntry]:
    """Write `model.safetensors`, or shards of at most `max_shard_size` and their index.

    Names, split and index are those of `huggingface_hub.save_torch_state_dict`; tensors
    are split in sorted order of their names, so that the order of the mapping makes no
    difference.

    Args:
        folder: where the files go.
        tensors: name → tensor.
        max_shard_size: bytes, or a string such as "500MB" (decimal units); one tensor
            alone may exceed it.
        metadata: goes into every file.
        stem: the name before `.safetensors`.

    Returns:
        The files written, by name, the index last.

    Raises:
        CheckpointError, ArtifactError: as write_safetensors.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    _check_names_and_dtypes(tensors)
    split = split_state_dict_into_shards_factory(
        dict(sorted(tensors.items())),
        get_storage_size=nbytes,
        filename_pattern=stem + "{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    if not split.is_sharded:
        whole = f"{stem}.safetensors"
        return {whole: write_safetensors(folder / whole, tensors, metadata)}
    written = {}
    for filename, names in split.filename_to_tensors.items():
        shard = {name: tensors[name] for name in names}
        written[filename] = write_safetensors(folder / filename, shard, metadata)
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    path = _index_path(folder, stem)
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
    return written | {path.name: FileEntry.of(path)}


def _check_names_and_dtypes(tensors: Mapping[str, TensorLike]) -> None:
    """Require what safetensors can hold.

    Raises:
        CheckpointError: a dtype that it lacks, the name that it reserves, or a name
            that UTF-8 can't encode.
    """
    for name, tensor in tensors.items():
        if not DTYPES[tensor.dtype].in_safetensors:
            raise CheckpointError(
                f"tensor '{printable(name)}' has dtype {tensor.dtype}, which"
                " safetensors can't hold",
                "cast it before saving, or leave it out",
            )
        _require_addressable_to_write(name, tensor)
        if name == "__metadata__":
            raise CheckpointError(
                "a tensor is named '__metadata__', which safetensors reserves for"
                " itself",
                "rename it before saving",
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise CheckpointError(
                f"the tensor name '{printable(name)}' is not valid Unicode",
                "rename it before saving",
            ) from None


def _require_addressable_to_write(name: str, tensor: TensorLike) -> None:
    """Require a shape that the safetensors library can read.

    Raises:
        CheckpointError: it refuses it.
    """
    try:
        _require_addressable(name, tensor.shape, tensor.dtype)
    except ValueError as error:
        raise CheckpointError(
            str(error), "leave the tensor out of what is saved"
        ) from None


def _require_addressable(name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Require that a tensor's size fits into 63 bits.

    Also of one without elements: the safetensors library multiplies the sizes one after
    another, and refuses (2**61, 2**61, 0) before it sees the zero.

    Raises:
        ValueError: it doesn't.
    """
    size = math.prod(max(size, 1) for size in shape)
    if DTYPES[dtype].nbytes(size) >= MAX_NBYTES:
        raise ValueError(
            f"'{printable(name)}' has the shape {list(shape)}, and no tensor can: its"
            " size takes more than 63 bits"
        )


def _header(
    ordered: list[str],
    tensors: Mapping[str, TensorLike],
    metadata: Mapping[str, str] | None,
) -> tuple[bytes, int]:
    """The file's bytes before the data, and the size of the data.

    The header is padded with spaces so that the data begins at a multiple of 8 bytes.

    Args:
        ordered: the tensors' names, in the order of the data.
        tensors: name → tensor.
        metadata: goes into the header, sorted by key.

    Raises:
        CheckpointError: the header is longer than safetensors allows.
    """
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    start = 0
    for name in ordered:
        stop = start + nbytes(tensors[name])
        header[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"the names and shapes of {len(ordered)} tensors take {len(text)} bytes,"
            f" and safetensors allows {MAX_HEADER}"
        )
    return len(text).to_bytes(8, "little") + text, start


def _write_tensor(
    file: DigestedFile, name: str, tensor: TensorLike, progress: Progress
) -> None:
    """Append a tensor's data.

    Raises:
        CheckpointError: it isn't as long as the header has it.
    """
    written = 0
    for piece in tensor.chunks():
        file.write(piece)
        written += piece.nbytes
        progress.add(piece.nbytes)
    if written != nbytes(tensor):
        raise CheckpointError(
            f"tensor '{printable(name)}' gave {written} bytes, and its shape takes"
            f" {nbytes(tensor)}"
        )


def _check_free_space(path: Path, size: int) -> None:
    """Require room for a file, so that a full disk is no half-written file.

    Args:
        path: of the file.
        size: that it will have, in bytes.

    Raises:
        CheckpointError: its disk has less left.
    """
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise CheckpointError(
            f"{path.name} would take {size} bytes, and its disk has {free} left",
            "free some space, or check the tensors' shapes if the size is unexpected",
        )


# ------------------------------------------------------------------------------
# Reading


class SafetensorsFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file by name, mapped and not read.

    Attributes:
        metadata: the file's own.
    """

    def __init__(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        self._tensors = tensors
        self.metadata = metadata

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def open_safetensors(path: Path) -> SafetensorsFile:
    """Map a safetensors file and read its header.

    Raises:
        ArtifactError: the file is missing, cut short, or its header contradicts itself.
    """
    try:
        mapping = MappedFile.of_file(path)
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error.strerror}", REMAKE) from None
    try:
        return _parse(mapping)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(
            f"{path} is not a whole safetensors file: {reason}", REMAKE
        ) from None


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of a folder.

    Attributes:
        paths: the one file, or all shards, sorted by name.
        shard_of: tensor → name of the shard that holds it; None: there is one file, and
            no index.
    """

    paths: list[Path]
    shard_of: dict[str, str] | None


def find_weight_files(folder: Path, stem: str = "model") -> WeightFiles:
    """Find `model.safetensors`, or the shards in `model.safetensors.index.json`.

    Raises:
        ArtifactError: a file is missing, or the index isn't one, or names a file
            outside the folder.
    """
    index = _index_path(folder, stem)
    if index.is_file():
        shard_of = read_index(index)
        names = sorted(set(shard_of.values()))
    else:
        shard_of = None
        names = [f"{stem}.safetensors"]
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise ArtifactError(f"{path} is missing", REMAKE)
    return WeightFiles(paths, shard_of)


def open_sharded(folder: Path, stem: str = "model") -> SafetensorsFile:
    """Open `model.safetensors`, or all shards in its index as one file.

    Raises:
        ArtifactError: a file is missing or broken, or does not hold what the index
            says.
    """
    files = find_weight_files(folder, stem)
    if files.shard_of is None:
        return open_safetensors(files.paths[0])
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for path in files.paths:
        shard = open_safetensors(path)
        _check_shard(path, shard, files.shard_of)
        metadata |= shard.metadata
        tensors |= shard
    missing = sorted(files.shard_of.keys() - tensors.keys())
    if missing:
        raise ArtifactError(
            f"{_index_path(folder, stem)} names {len(missing)} tensors that are in no"
            f" shard, among them {missing[0]!r}",
            REMAKE,
        )
    return SafetensorsFile(dict(sorted(tensors.items())), metadata)


def _index_path(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.safetensors.index.json"


def read_index(path: Path) -> dict[str, str]:
    """An index's tensors with the names of their shards.

    Raises:
        ArtifactError: it isn't an index, or names a file outside its folder.
    """
    index = read_json(path)
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict):
        raise ArtifactError(
            f"{path} is not an index of shards: it has no weight_map", REMAKE
        )
    for tensor, name in shard_of.items():
        if not isinstance(name, str):
            raise ArtifactError(
                f"{path} is not an index of shards: it has {shown(name)} for"
                f" {shown(tensor)}",
                REMAKE,
            )
    for name in sorted(set(shard_of.values())):
        require_inside(name, path)
        if "/" in name:
            raise ArtifactError(
                f"{path} names {shown(name)}, which is not a file beside it", REMAKE
            )
    return shard_of


def _check_shard(
    path: Path, shard: SafetensorsFile, shard_of: Mapping[str, str]
) -> None:
    """Require that a shard holds only what its index places in it.

    Args:
        path: of the shard.
        shard: what it holds.
        shard_of: tensor → name of its shard, as the index has it.

    Raises:
        ArtifactError: it holds a tensor that belongs elsewhere, or nowhere.
    """
    for tensor in shard:
        if shard_of.get(tensor) != path.name:
            raise ArtifactError(
                f"{path} holds {tensor!r}, which its index places in"
                f" {shard_of.get(tensor)!r}",
                REMAKE,
            )


def _parse(mapping: MappedFile) -> SafetensorsFile:
    """The tensors of a mapped file, which cover its data without gaps.

    Raises:
        KeyError, TypeError, ValueError, RecursionError: the header isn't one.
    """
    header, data = _read_header(mapping.view)
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict:
        raise ValueError("its metadata is not a JSON object")
    tensors = {}
    end = 0
    for name, entry in sorted(header.items(), key=_data_offsets):
        start, stop = _data_span(name, entry)
        storage = Storage(name, mapping, data + start, stop - start)
        shape = tuple(entry["shape"])
        tensor = Tensor(entry["dtype"], shape, contiguous_strides(shape), 0, storage)
        if start != end or stop - start != tensor.nbytes:
            raise ValueError(
                f"'{printable(name)}' lies at {start} to {stop}, not the"
                f" {tensor.nbytes} bytes from {end}"
            )
        end = stop
        tensors[name] = tensor
    whole, there = data + end, len(mapping.view)
    if whole != there:
        is_cut = "; it is cut short, or still being written" if there < whole else ""
        raise ValueError(f"its tensors end at {whole}, the file at {there}{is_cut}")
    return SafetensorsFile(dict(sorted(tensors.items())), metadata)


def _read_header(view: memoryview) -> tuple[dict[str, Any], int]:
    """The header, and where the data begins.

    Raises:
        ValueError, RecursionError: the header isn't a JSON object, or is longer than
            the file.
    """
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > min(MAX_HEADER, len(view) - 8):
        raise ValueError(f"its header claims {length} bytes, the file has {len(view)}")
    raw = bytes(view[8 : 8 + length])
    _check_memory(raw, len(view))
    text = raw.decode()
    header = json.loads(text, object_pairs_hook=_without_duplicates)
    if type(header) is not dict:
        raise ValueError("its header is not a JSON object")
    return header, 8 + length


def _check_memory(header: bytes, file_size: int) -> None:
    """Require that reading a header takes no more than the file's size explains.

    A tensor without elements takes some fifty bytes of a header, and twenty times as
    many once it is read.

    Args:
        header: as it is written; it isn't read yet.
        file_size: in bytes.

    Raises:
        ValueError: it would take more.
    """
    values = header.count(b",") + header.count(b"[") + header.count(b":")
    needed = 5 * len(header) + _VALUE * values + _TENSOR * header.count(b"{")
    allowed = HEADER_MEMORY + int(HEADER_GROWTH * file_size)
    if needed > allowed:
        raise ValueError(
            f"the memory budget is exceeded: to read its header of {len(header):,}"
            f" bytes would take more than {allowed >> 20} MiB"
        )


def _data_offsets(item: tuple[str, Any]) -> Any:
    return item[1]["data_offsets"]


def _data_span(name: str, entry: dict[str, Any]) -> tuple[int, int]:
    """Where a tensor's data lies; its dtype and its numbers are checked too.

    Args:
        name: of the tensor, for messages.
        entry: what the header holds for it.

    Returns:
        The first byte and the one after the last, counted from the first tensor's.

    Raises:
        KeyError, TypeError, ValueError: the entry isn't as the format has it.
    """
    start, stop = entry["data_offsets"]
    if entry["dtype"] not in DTYPES:
        raise ValueError(
            f"'{printable(name)}' has an unknown dtype,"
            f" {printable(str(entry['dtype']), 20)}"
        )
    shape = entry["shape"]
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"'{printable(name)}' has {len(shape)} dimensions")
    for number in (start, stop, *shape):
        if type(number) is not int or not 0 <= number < MAX_NBYTES:
            raise ValueError(
                f"'{printable(name)}' has a number in its shape or its place that no"
                " tensor can have"
            )
    _require_addressable(name, tuple(shape), entry["dtype"])
    return start, stop


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's dict.

    Raises:
        ValueError: a name occurs twice, and readers would differ in which they take.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found
