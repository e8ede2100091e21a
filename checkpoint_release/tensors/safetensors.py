"""Safetensors files: a writer that streams and whose bytes never vary, and a reader
that maps.

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
from pathlib import Path
from typing import Any

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import ArtifactError, CheckpointError
from checkpoint_release.core.files import DigestedFile, FileEntry
from checkpoint_release.tensors.tensor import (
    MappedFile,
    Storage,
    Tensor,
    TensorLike,
    contiguous_strides,
)

MAX_HEADER = 100_000_000  # the library refuses a larger one
_RANK = {name: rank for rank, name in enumerate(DTYPES)}


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
        CheckpointError: a dtype or a name that safetensors can't hold, or too little
            room on the disk.
    """
    _check(tensors)
    ordered = sorted(tensors, key=lambda name: (-_RANK[tensors[name].dtype], name))
    header, total = _header(ordered, tensors, metadata)
    try:
        _check_room(path, len(header) + total)
        file = DigestedFile(path)
    except OSError as error:
        raise ArtifactError(f"{path} can't be written: {error.strerror}") from None
    with file:
        file.write(header)
        for name in ordered:
            written = 0
            for piece in tensors[name].chunks():
                file.write(piece)
                written += piece.nbytes
            if written != nbytes(tensors[name]):
                raise CheckpointError(
                    f"tensor {name!r} gave {written} bytes, its shape says"
                    f" {nbytes(tensors[name])}"
                )
    return file.entry


def write_shards(
    folder: Path,
    tensors: Mapping[str, TensorLike],
    max_shard_size: int | str = "5GB",
    metadata: Mapping[str, str] | None = None,
    stem: str = "model",
) -> dict[str, FileEntry]:
    """Write `model.safetensors`, or several files of at most `max_shard_size` and their
    index.

    Names, split and index are those of `huggingface_hub.save_torch_state_dict`; tensors
    are split in sorted order of their names, so that the order of the mapping makes no
    difference.

    Args:
        folder: where the files go.
        tensors: name to tensor.
        max_shard_size: bytes, or a string such as "500MB" (decimal units); one tensor
            alone may exceed it.
        metadata: goes into every file.
        stem: the name before `.safetensors`.

    Returns:
        The files written, by name, the index last.
    """
    from huggingface_hub import split_state_dict_into_shards_factory

    _check(tensors)
    split = split_state_dict_into_shards_factory(
        {name: tensors[name] for name in sorted(tensors)},
        get_storage_size=nbytes,
        filename_pattern=stem + "{suffix}.safetensors",
        max_shard_size=max_shard_size,
    )
    if not split.is_sharded:
        whole = f"{stem}.safetensors"
        return {whole: write_safetensors(folder / whole, tensors, metadata)}
    written = {
        filename: write_safetensors(
            folder / filename, {name: tensors[name] for name in names}, metadata
        )
        for filename, names in split.filename_to_tensors.items()
    }
    index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
    path = folder / f"{stem}.safetensors.index.json"
    path.write_text(
        json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
    return written | {path.name: FileEntry.of(path)}


class SafetensorsFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file by name, mapped and not read; `metadata` is the
    file's own.
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
        raise ArtifactError(
            f"{path} can't be read: {error.strerror}", "run the stage that writes it"
        ) from None
    try:
        return _parse(mapping)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ArtifactError(
            f"{path} is not a whole safetensors file: {reason}",
            "run the stage that writes it again",
        ) from None


def open_sharded(folder: Path, stem: str = "model") -> SafetensorsFile:
    """Open `model.safetensors`, or all files that `model.safetensors.index.json` names,
    as one.

    Raises:
        ArtifactError: a file is missing or broken, or does not hold what the index
            says.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        return open_safetensors(folder / f"{stem}.safetensors")
    try:
        weight_map = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{index} is not an index of shards: {error}", "write the folder again"
        ) from None
    found: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for filename in sorted(set(weight_map.values())):
        if Path(filename).name != filename:
            raise ArtifactError(
                f"{index} names {filename!r}, which is not a file beside it", ""
            )
        shard = open_safetensors(folder / filename)
        metadata |= shard.metadata
        for name, tensor in shard.items():
            if weight_map.get(name) != filename:
                raise ArtifactError(
                    f"{filename} holds {name!r}, which {index.name} places in"
                    f" {weight_map.get(name)!r}",
                    "write the folder again",
                )
            found[name] = tensor
    if missing := sorted(weight_map.keys() - found.keys()):
        raise ArtifactError(
            f"{index} names {len(missing)} tensors that are in no shard, first of them"
            f" {missing[0]!r}",
            "write the folder again",
        )
    return SafetensorsFile(dict(sorted(found.items())), metadata)


def nbytes(tensor: TensorLike) -> int:
    """The size of a tensor's data in a safetensors file, in bytes."""
    return -(-math.prod(tensor.shape) * DTYPES[tensor.dtype].bits // 8)


def _check(tensors: Mapping[str, TensorLike]) -> None:
    for name, tensor in tensors.items():
        if not DTYPES[tensor.dtype].in_safetensors:
            raise CheckpointError(
                f"tensor {name!r} has dtype {tensor.dtype}, which safetensors can't"
                " hold",
                "cast it in the training code before saving, or leave it out of the"
                " state dict",
            )
        if name == "__metadata__":
            raise CheckpointError(
                "a tensor is named '__metadata__', which safetensors keeps for itself",
                "rename it before saving",
            )
        try:
            name.encode()
        except UnicodeEncodeError:
            raise CheckpointError(
                f"the tensor name {name!r} is not valid Unicode",
                "rename it before saving",
            ) from None


def _header(
    ordered: list[str],
    tensors: Mapping[str, TensorLike],
    metadata: Mapping[str, str] | None,
) -> tuple[bytes, int]:
    header: dict[str, Any] = {}
    if metadata:
        header["__metadata__"] = dict(sorted(metadata.items()))
    at = 0
    for name in ordered:
        stop = at + nbytes(tensors[name])
        header[name] = {
            "dtype": tensors[name].dtype,
            "shape": list(tensors[name].shape),
            "data_offsets": [at, stop],
        }
        at = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(
            f"the names and shapes of {len(ordered)} tensors take {len(text)} bytes,"
            f" and safetensors allows {MAX_HEADER}"
        )
    return len(text).to_bytes(8, "little") + text, at


def _check_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise CheckpointError(
            f"{path.name} would take {size} bytes, and its disk has {free} left",
            "make room, or look whether the checkpoint's tensors are as large as they"
            " should be",
        )


def _parse(mapping: MappedFile) -> SafetensorsFile:
    view = mapping.view
    length = int.from_bytes(view[:8], "little")
    if len(view) < 8 or length > min(MAX_HEADER, len(view) - 8):
        raise ValueError(f"its header claims {length} bytes, the file has {len(view)}")
    header = json.loads(
        str(view[8 : 8 + length], "utf-8"), object_pairs_hook=_without_duplicates
    )
    if type(header) is not dict:
        raise ValueError("its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict:
        raise ValueError("its metadata is no JSON object")
    data = 8 + length
    ends = [0]
    found = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name!r} has the unknown dtype {entry['dtype']!r}")
        if any(
            type(number) is not int or number < 0 for number in (start, stop, *shape)
        ):
            raise ValueError(
                f"{name!r} has the shape {entry['shape']} at {entry['data_offsets']}"
            )
        storage = Storage(name, mapping, data + start, stop - start)
        tensor = Tensor(entry["dtype"], shape, contiguous_strides(shape), 0, storage)
        if start != ends[-1] or stop - start != tensor.nbytes:
            raise ValueError(
                f"{name!r} lies at {start} to {stop}, not the {tensor.nbytes} bytes"
                f" from {ends[-1]}"
            )
        ends.append(stop)
        found[name] = tensor
    if data + ends[-1] != len(view):
        raise ValueError(
            f"its tensors end at {data + ends[-1]}, the file at {len(view)}"
        )
    return SafetensorsFile(dict(sorted(found.items())), metadata)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice in its header")
    return found
