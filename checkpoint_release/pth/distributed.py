"""Folders of torch.distributed.checkpoint: tensors cut over the ranks of a training.

`.metadata` is a pickle that says for each entry of the state dict which blocks it
consists of, and where each lies: in a `.distcp` file, from one byte to another, as
torch.save wrote it. Nothing of it is run here, and torch isn't needed.
https://github.com/pytorch/pytorch/blob/v2.9.0/torch/distributed/checkpoint/metadata.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from checkpoint_release.core.errors import CheckpointError, CheckpointReleaseError
from checkpoint_release.core.named_paths import require_inside
from checkpoint_release.core.text import printable, shown
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.nesting import nested
from checkpoint_release.pth.reader import Embedded, read_embedded, read_pickle
from checkpoint_release.pth.records import Checkpoint, Inert
from checkpoint_release.tensors.joined import ONE_RUN, Joined, Part, join
from checkpoint_release.tensors.tensor import MappedFile, Tensor

METADATA = ".metadata"
SUFFIX = ".distcp"
_MODULE = "torch.distributed.checkpoint.metadata"


@dataclass(frozen=True)
class _Place:
    """Where an entry's bytes lie.

    Attributes:
        file: its name in the folder.
        offset, length: in bytes.
    """

    file: str
    offset: int
    length: int


_Key = tuple[str, tuple[int, ...] | None]
"""An entry's name, and of a block where it begins; None: of a value, or unknown."""


def is_distributed(names: set[str]) -> bool:
    """Whether a folder with such files is, or belongs to, a distributed checkpoint."""
    return METADATA in names or any(name.endswith(SUFFIX) for name in names)


def read_distributed(folder: Path) -> Checkpoint:
    """Read a folder of torch.distributed.checkpoint, importing and calling nothing.

    Returns:
        Its value nests as what was saved did.

    Raises:
        ArtifactError: it names a file outside of the folder.
        CheckpointError: it is incomplete, being written, of different runs, or its
            blocks don't make up the tensors.
    """
    path = folder / METADATA
    if not path.is_file():
        raise CheckpointError(
            f"{folder} holds files of ranks and no {METADATA}, which is written last:"
            " the checkpoint is still being written, or incomplete",
            "wait for the end of its saving, or get all of its files",
        )
    try:
        return _Folder(folder).read()
    except (CheckpointError, OSError) as error:
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{folder} can't be read: {error.strerror}", ONE_RUN
            ) from None
        raise error.within(str(folder)) from None


class _Folder:
    """Reads one folder.

    Every block is charged to one budget, that of all files together.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, MappedFile] = {}
        self._read: dict[_Place, Embedded] = {}
        self._left_out: dict[str, dict[str, int]] = {}
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        self._budget = Budget(size)

    def read(self) -> Checkpoint:
        """The whole of it.

        Raises:
            ArtifactError, CheckpointError: as read_distributed.
        """
        metadata = self._metadata()
        entries = _mapping(metadata, "state_dict_metadata")
        places = self._places(_mapping(metadata, "storage_data"))
        flat: dict[str, Any] = {}
        for name, described in entries.items():
            if type(name) is not str:
                raise _garbled("an entry's name is no text")
            flat[name] = self._entry(name, described, places)
        paths = metadata.get("planner_data")
        value = nested(flat, paths if isinstance(paths, Mapping) else {})
        used = sorted(self._files)
        return Checkpoint(
            path=self._folder,
            value=value,
            container=f"torch.distributed.checkpoint, {len(used)} files of ranks",
            left_out=self._left_out,
            files=(
                self._folder / METADATA,
                *(self._folder / name for name in used),
            ),
        )

    def _metadata(self) -> Mapping[str, Any]:
        """The fields of the Metadata that the folder's pickle holds.

        Raises:
            CheckpointError: it is something else.
        """
        file = MappedFile.of_file(self._folder / METADATA)
        read = read_pickle(file, self._budget)
        self._count(read)
        return _state(read.value, "Metadata")

    def _places(self, stored: Mapping[Any, Any]) -> dict[_Key, _Place]:
        """Where each block and value lies, by what it is.

        Raises:
            ArtifactError: outside of the folder.
            CheckpointError: it can't be told, or is compressed.
        """
        places: dict[_Key, _Place] = {}
        for index, info in stored.items():
            fields = _state(index, "MetadataIndex")
            name, offset = fields.get("fqn"), fields.get("offset")
            if type(name) is not str or not (offset is None or _is_size(offset)):
                raise _garbled("it names a block by something else than its place")
            key = (name, offset)
            if key in places:
                raise _garbled(f"it places a block of {printable(name)} twice")
            self._budget.charge(500)
            places[key] = self._place(name, info)
        return places

    def _place(self, name: str, info: Any) -> _Place:
        """Where a block lies, checked.

        Raises:
            ArtifactError: outside of the folder.
            CheckpointError: it isn't what torch writes, or is compressed.
        """
        state = info.state if isinstance(info, Inert) else None
        fields = state if isinstance(state, Mapping) else {}
        if fields.get("transform_descriptors"):
            raise CheckpointError(
                f"{printable(name)} is compressed by an extension of"
                " torch.distributed.checkpoint",
                "save the checkpoint without extensions, or convert it with"
                " torch.distributed.checkpoint.format_utils",
            )
        file = fields.get("relative_path")
        span = (fields.get("offset"), fields.get("length"))
        if type(file) is not str or not _is_size(span):
            raise _garbled(f"it doesn't say where {printable(name)} lies")
        require_inside(file, self._folder / METADATA)
        return _Place(file, *span)

    def _entry(self, name: str, described: Any, places: Mapping[_Key, _Place]) -> Any:
        """A tensor put together, or a value.

        Raises:
            CheckpointError: a part is missing, or isn't what is said of it.
        """
        if isinstance(described, Inert) and described.name.endswith(
            ".BytesStorageMetadata"
        ):
            return self._load(name, places.get((name, None)))
        fields = _state(described, "TensorStorageMetadata")
        shape, chunks = fields.get("size"), fields.get("chunks")
        if not _is_size(shape) or not isinstance(chunks, list):
            raise _garbled(f"it doesn't say how {printable(name)} is cut")
        parts = [self._part(name, chunk, places) for chunk in chunks]
        if not parts:
            raise _garbled(f"{printable(name)} has no parts")
        whole: Tensor | Joined = join(name, parts[0].tensor.dtype, shape, parts)
        return whole

    def _part(self, name: str, chunk: Any, places: Mapping[_Key, _Place]) -> Part:
        """One block of a tensor.

        Raises:
            CheckpointError: it is missing, or has another shape than is said of it.
        """
        fields = _state(chunk, "ChunkStorageMetadata")
        offsets, sizes = fields.get("offsets"), fields.get("sizes")
        if not _is_size(offsets) or not _is_size(sizes):
            raise _garbled(f"it doesn't say how {printable(name)} is cut")
        place = places.get((name, offsets))
        loaded = self._load(name, place)
        if not isinstance(loaded, Tensor):
            raise _differs(name, place, f"a {type(loaded).__name__} and no tensor")
        if loaded.shape != sizes:
            raise _differs(
                name, place, f"shape {list(loaded.shape)} where {list(sizes)} belongs"
            )
        return Part(offsets, loaded)

    def _load(self, name: str, place: _Place | None) -> Any:
        """What lies at a place.

        Raises:
            CheckpointError: nothing of the kind, or the file of the rank is missing or
                cut short.
        """
        if place is None:
            raise _garbled(f"it doesn't say where all of {printable(name)} lies")
        if place not in self._read:
            window = self._window(name, place)
            try:
                self._read[place] = read_embedded(window, self._budget)
            except CheckpointReleaseError as error:
                raise error.within(
                    f"{place.file}, {printable(name)} at byte {place.offset}"
                ) from None
            self._count(self._read[place])
        return self._read[place].value

    def _window(self, name: str, place: _Place) -> MappedFile:
        """The bytes at a place.

        Raises:
            CheckpointError: the file is missing or too short.
        """
        if place.file not in self._files:
            path = self._folder / place.file
            if not path.is_file():
                raise CheckpointError(
                    f"{place.file} is missing, which holds {printable(name)}", ONE_RUN
                )
            self._files[place.file] = MappedFile.of_file(path)
        file = self._files[place.file]
        stop = place.offset + place.length
        if stop > len(file.view):
            raise CheckpointError(
                f"{place.file} is cut short: {printable(name)} ends at byte {stop:,},"
                f" and the file has {len(file.view):,}",
                ONE_RUN,
            )
        return file.window(place.offset, stop)

    def _count(self, read: Embedded) -> None:
        """Add what a pickle names to what others name."""
        for verdict, names in read.left_out.items():
            counts = self._left_out.setdefault(verdict, {})
            for name, count in names.items():
                counts[name] = counts.get(name, 0) + count


def _state(record: Any, kind: str) -> Mapping[str, Any]:
    """The fields of an object of a class in torch's metadata module.

    Raises:
        CheckpointError: it is something else.
    """
    named = isinstance(record, Inert) and record.name == f"{_MODULE}.{kind}"
    if not named or not isinstance(record.state, Mapping):
        raise _garbled(f"it holds {_shown(record)} where {kind} belongs")
    return record.state


def _mapping(metadata: Mapping[str, Any], key: str) -> Mapping[Any, Any]:
    """A mapping among the metadata.

    Raises:
        CheckpointError: there is none.
    """
    found = metadata.get(key)
    if not isinstance(found, Mapping):
        raise _garbled(f"it has no {key}")
    return found


def _is_size(value: Any) -> TypeGuard[tuple[int, ...]]:
    """Whether it is a torch.Size, which is read as a tuple of integers."""
    if not isinstance(value, tuple) or len(value) > 64:
        return False
    return all(type(each) is int and 0 <= each < 1 << 62 for each in value)


def _shown(record: Any) -> str:
    return record.name if isinstance(record, Inert) else shown(type(record).__name__)


def _garbled(how: str) -> CheckpointError:
    return CheckpointError(f"{METADATA} is garbled: {how}", ONE_RUN)


def _differs(name: str, place: _Place | None, what: str) -> CheckpointError:
    """The error for a block that isn't what the metadata says of it."""
    file = place.file if place else "no file"
    return CheckpointError(
        f"{file} holds of {printable(name)} {what}: it is of another run", ONE_RUN
    )
