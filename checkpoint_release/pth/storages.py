"""The storages that a checkpoint's tensors look at, found by persistent ids.

torch writes a persistent id as the tuple ("storage", storage class, key, location,
count of elements); before 1.6 also with a view (key, offset, size) or None behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.archive import Archive
from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.tensor import Checksum, MappedFile, Storage, Tensor

DTYPE_OF_STORAGE = {
    "BFloat16Storage": "BF16",
    "BoolStorage": "BOOL",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ComplexDoubleStorage": "C128",
    "ComplexFloatStorage": "C64",
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "ShortStorage": "I16",
    "UntypedStorage": "U8",
    "_UntypedStorage": "U8",
}
"""torch's storage classes → dtypes."""
INTEGERS_OF_STORAGE = {
    "QInt8Storage": "I8",
    "QInt32Storage": "I32",
    "QUInt8Storage": "U8",
}
"""Storage classes of quantized tensors → dtypes of the integers in them; others pack
several into a byte.
"""

QUANTIZED_TENSOR = "a quantized tensor, which safetensors can't hold"
MAX_KEY = 100  # characters in a storage's key, which torch makes of a number


@dataclass(frozen=True, slots=True)
class _Reference:
    """A storage as a persistent id refers to it.

    Attributes:
        type_name: dotted name of the storage class.
        dtype: of its elements; None where they are quantized.
        element_size: in bytes.
        key: its name in the file.
        count: its elements.
    """

    type_name: str
    dtype: str | None
    element_size: int
    key: str
    count: int


class ZipStorages:
    """The storages in a zip archive: one entry each.

    Args:
        file: the checkpoint.
        archive: its entries.
        root: the archive's single folder, with a slash behind it.
        big_endian: how numbers are stored.
    """

    def __init__(
        self, file: MappedFile, archive: Archive, root: str, big_endian: bool
    ) -> None:
        self._file = file
        self._archive = archive
        self._root = root
        self._big_endian = big_endian
        self._storages: dict[str, Storage] = {}

    def persistent_load(self, pid: tuple[Any, ...]) -> Tensor | Inert:
        """The whole storage as a one-dimensional tensor.

        A quantized one comes as a record.

        Raises:
            ValueError: the id isn't one that torch writes.
            CheckpointError: the storage is missing or has another size.
        """
        kind, storage_type, key, _, count = pid
        reference = _reference(kind, storage_type, key, count)
        if reference.dtype is None:
            return _quantized(reference, self._storage(reference.key))
        return _whole(self._storage(reference.key), reference.dtype, reference.count)

    def _storage(self, key: str) -> Storage:
        """The storage of that key: in the file itself, or inflated into memory.

        Raises:
            CheckpointError: the archive has no entry for it.
        """
        if key in self._storages:
            return self._storages[key]
        entry = self._archive.entries.get(f"{self._root}data/{key}")
        if entry is None:
            raise CheckpointError(
                f"the checkpoint's storage {key!r} is missing from its archive",
                "copy or save it again",
            )
        mapping, start = self._file, entry.start
        checksum: Checksum | None = Checksum(entry.name, entry.crc)
        if entry.deflated:
            mapping, start = self._archive.data(entry), 0
        if entry.deflated or not self._archive.has_checksums:
            checksum = None
        storage = Storage(key, mapping, start, entry.size, self._big_endian, checksum)
        self._storages[key] = storage
        return storage


class LegacyStorages:
    """The storages of a file of before torch 1.6.

    They follow the pickles, so where they are is known last.

    Args:
        file: the checkpoint.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._storages: dict[str, Storage] = {}
        self._element_sizes: dict[str, int] = {}

    def persistent_load(self, pid: tuple[Any, ...]) -> Any:
        """The storage, or the part that a view takes, as a one-dimensional tensor.

        A quantized one comes as a record. The bytes may be read after `locate`.

        Raises:
            ValueError: the id isn't one that torch writes.
            CheckpointError: a tensor claims another size than the storage has.
        """
        if pid[0] in ("module", b"module"):
            return pid[1]  # a class; its source code follows, to compare it with
        kind, storage_type, key, _, count, view = (*pid, None)[:6]
        if type(key) is bytes:
            key = key.decode()
        reference = _reference(kind, storage_type, key, count)
        storage = self._storage(reference)
        if reference.dtype is None:
            return _quantized(reference, storage)
        whole = _whole(storage, reference.dtype, reference.count)
        return whole if view is None else _part(whole, view)

    def locate(self, at: int, keys: Any) -> None:
        """Set where each storage's bytes are.

        Args:
            at: where the first one begins in the file, in bytes.
            keys: the last pickle's value: the storages' keys in the file's order.

        Raises:
            CheckpointError: a storage is missing, cut short, or one that no tensor has.
        """
        _check_keys(keys)
        missing = self._storages.keys() - set(keys)
        for key in keys:
            at = self._locate_one(at, key)
        if missing:
            raise CheckpointError(
                f"the checkpoint's storage {min(missing)!r} is missing",
                "copy or save it again",
            )

    def _storage(self, reference: _Reference) -> Storage:
        """The storage of that key, as large as its first reference says."""
        key = reference.key
        if key not in self._storages:
            nbytes = reference.count * reference.element_size
            self._storages[key] = Storage(key, self._file, 0, nbytes)
            self._element_sizes[key] = reference.element_size
        return self._storages[key]

    def _locate_one(self, at: int, key: str) -> int:
        """Set where one storage's bytes are: behind its number of elements, 64 bits.

        Args:
            at: where the number is.
            key: the storage's.

        Returns:
            Where the next storage begins.

        Raises:
            CheckpointError: no tensor has it, or it isn't as large as they say.
        """
        storage = self._storages.get(key)
        if storage is None:
            raise CheckpointError(
                f"the checkpoint has a storage {key!r} that none of its tensors names"
            )
        view = self._file.view
        count = int.from_bytes(view[at : at + 8], "little", signed=True)
        start = at + 8
        end = start + storage.nbytes
        if count * self._element_sizes[key] != storage.nbytes or end > len(view):
            raise CheckpointError(
                f"the checkpoint is cut short or damaged: storage {key!r} should have"
                f" {storage.nbytes} bytes at byte {start}, the file ends at {len(view)}"
                f" and claims {count} elements there",
                "copy or download it again",
            )
        self._file.drop(at, start)
        storage.start = start
        return end


def _reference(kind: Any, storage_type: Any, key: Any, count: Any) -> _Reference:
    """What the parts of a persistent id mean.

    Args:
        kind: the text "storage".
        storage_type: the record of one of torch's storage classes.
        key: the storage's name in the file.
        count: its elements.

    Raises:
        ValueError: they aren't what torch writes.
    """
    if kind not in ("storage", b"storage"):
        raise ValueError("a persistent id is no storage's")
    if type(key) is not str or len(key) > MAX_KEY:
        raise ValueError("a storage's key is not what torch writes")
    if type(count) is not int or count < 0:
        raise ValueError("a storage's size is not what torch writes")
    if not isinstance(storage_type, Inert):
        raise ValueError("a storage's type is no class")
    if not storage_type.name.startswith("torch."):
        raise ValueError("a storage's type is none of torch's")
    dtype, element_size = _elements(storage_type.name.rpartition(".")[2])
    return _Reference(storage_type.name, dtype, element_size, key, count)


def _elements(class_name: str) -> tuple[str | None, int]:
    """The dtype of a storage class, None for a quantized one, and its size in bytes.

    Raises:
        ValueError: torch has no such class.
    """
    dtype = DTYPE_OF_STORAGE.get(class_name)
    if dtype is not None:
        return dtype, DTYPES[dtype].bits // 8
    if class_name.startswith(("QInt", "QUInt")):
        return None, 4 if class_name == "QInt32Storage" else 1
    raise ValueError("a storage's type is none of torch's")


def _quantized(reference: _Reference, storage: Storage) -> Inert:
    """What stands for a quantized storage, and makes records of its tensors.

    Its state is the integers, as a one-dimensional tensor, where each has a place of
    its own.

    Raises:
        CheckpointError: it has another size than so many elements.
    """
    integers = INTEGERS_OF_STORAGE.get(reference.type_name.rpartition(".")[2])
    state = _whole(storage, integers, reference.count) if integers else None
    return Inert(
        reference.type_name, (reference.key,), state=state, reason=QUANTIZED_TENSOR
    )


def _whole(storage: Storage, dtype: str, count: int) -> Tensor:
    """The storage as a one-dimensional tensor.

    Raises:
        CheckpointError: it has another size than so many elements.
    """
    claimed = count * DTYPES[dtype].bits // 8
    if claimed != storage.nbytes:
        raise CheckpointError(
            f"the checkpoint's storage {storage.key!r} has {storage.nbytes} bytes, and"
            f" a tensor claims {claimed}",
            "copy or download it again",
        )
    return Tensor(dtype, (count,), (1,), 0, storage)


def _part(whole: Tensor, view: Any) -> Tensor:
    """The elements that a legacy view (key, offset, size) takes.

    Raises:
        ValueError: it isn't one within the storage.
    """
    _, offset, size = view
    if type(offset) is not int or type(size) is not int:
        raise ValueError("a view of a storage is not what torch writes")
    if not 0 <= offset <= offset + size <= whole.shape[0]:
        raise ValueError("a view of a storage lies outside of it")
    return Tensor(whole.dtype, (size,), (1,), offset, whole.storage)


def _check_keys(keys: Any) -> None:
    """Check the last pickle of a legacy file.

    Raises:
        CheckpointError: it isn't a list of distinct strings.
    """
    distinct = set()
    if type(keys) is list:
        for key in keys:
            if type(key) is str:
                distinct.add(key)
        if len(distinct) == len(keys):
            return
    raise CheckpointError(
        "the checkpoint's list of storages is garbled", "copy or download it again"
    )
