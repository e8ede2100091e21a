"""Reading a checkpoint: the container, the pickle in it, and the storages that its
tensors look at.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError, UnsafeCheckpointError
from checkpoint_release.pth.archive import Archive
from checkpoint_release.pth.builders import ALLOWED_GLOBALS, STORAGES, Tensors
from checkpoint_release.pth.container import LEGACY_MAGIC, pickle_name, recognize
from checkpoint_release.pth.records import Checkpoint, Inert
from checkpoint_release.pth.unpickler import Unpickler
from checkpoint_release.pth.values import settle
from checkpoint_release.tensors.tensor import MappedFile, Storage, Tensor

PROTOCOL_VERSION = 1001
MAX_KEY = 100  # characters in a storage's key, which torch makes of a number


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what torch.save wrote, importing and calling nothing that the file names.

    Tensors stay in the file, which is mapped; everything else is read. Globals that
    could do harm are listed, not refused: see `refuse_dangerous`.

    Raises:
        CheckpointError: the file can't be read, is cut short, contradicts itself, or is
            something else.
    """
    try:
        file = MappedFile.of_file(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} can't be read: {error.strerror}", "look at checkpoint.path"
        ) from None
    try:
        container = recognize(file.view)
        value, unpickler = _read_zip(file) if container == "zip" else _read_legacy(file)
        value, modules = settle(value)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.problem}", error.remedy) from None
    return Checkpoint(
        path=path,
        value=value,
        container="zip" if container == "zip" else "legacy",
        kind_of_file=_kind(value, modules),
        left_out=_left_out(unpickler),
        notes=tuple(
            f"the module {name} was pickled whole: its tensors were taken, its code"
            " was not"
            for name in sorted(set(modules))
        ),
    )


def refuse_dangerous(checkpoint: Checkpoint) -> None:
    """Stop when a checkpoint names code that could do harm.

    Raises:
        UnsafeCheckpointError: with the names and how often each would have been called.
    """
    dangerous = checkpoint.left_out["dangerous"]
    if dangerous:
        shown = ", ".join(
            f"{name} ({count}×)" for name, count in list(dangerous.items())[:10]
        )
        more = f" and {len(dangerous) - 10} more" if len(dangerous) > 10 else ""
        raise UnsafeCheckpointError(
            f"{checkpoint.path} names code that could do harm if another program loaded"
            f" it: {shown}{more}. Nothing of it was run",
            "don't load this file with torch.load. Ask whoever made it for a plain"
            " state dict; or, to take the tensors and leave the code, set"
            " checkpoint.salvage to true in params.yaml",
        )


def _read_zip(file: MappedFile) -> tuple[Any, Unpickler]:
    archive = Archive(file)
    name = pickle_name(archive)
    root = name.removesuffix("data.pkl")
    order = archive.entries.get(f"{root}byteorder")
    byteorder = bytes(archive.data(order).view) if order else b"little"
    if byteorder not in (b"little", b"big"):
        raise CheckpointError(
            f"the checkpoint's byte order is {byteorder[:20]!r}, neither little nor big"
        )
    storages: dict[str, Storage] = {}

    def persistent(pid: tuple[Any, ...]) -> Any:
        kind, storage_type, key, _, count = pid
        if (
            kind not in ("storage", b"storage")
            or type(key) is not str
            or len(key) > MAX_KEY
        ):
            raise ValueError
        dtype = _storage_dtype(storage_type)
        if dtype is None:
            return Inert(
                storage_type.name,
                (key,),
                reason="a quantized tensor, which safetensors can't hold",
            )
        if key not in storages:
            entry = archive.entries.get(f"{root}data/{key}")
            if entry is None:
                raise CheckpointError(
                    f"the checkpoint's storage {key!r} is missing from its archive",
                    "copy or save it again",
                )
            if entry.deflated:
                storages[key] = Storage(
                    key, archive.data(entry), 0, entry.size, byteorder == b"big"
                )
            else:
                storages[key] = Storage(
                    key, file, entry.start, entry.size, byteorder == b"big"
                )
        return _whole(storages[key], dtype, count)

    unpickler = Unpickler(
        archive.checked(archive.entries[name]),
        Tensors(len(file.view)).table(),
        persistent,
    )
    return unpickler.load(), unpickler


def _read_legacy(file: MappedFile) -> tuple[Any, Unpickler]:
    """The format before 1.6: five pickles, of which the fourth is the object, and then
    the storages.
    """
    storages: dict[str, Storage] = {}
    widths: dict[str, int] = {}

    def persistent(pid: tuple[Any, ...]) -> Any:
        # a class, and its source code for comparison
        if pid[0] in ("module", b"module"):
            return pid[1]
        kind, storage_type, key, _, count, view = (*pid, None)[:6]
        if (
            kind not in ("storage", b"storage")
            or type(key) not in (str, bytes)
            or len(key) > MAX_KEY
        ):
            raise ValueError
        key = key.decode() if type(key) is bytes else key
        if type(count) is not int or count < 0:
            raise ValueError
        dtype = _storage_dtype(storage_type)
        width = _width(storage_type)
        if key not in storages:
            storages[key] = Storage(key, file, 0, count * width)
            widths[key] = width
        if dtype is None:
            return Inert(
                storage_type.name,
                (key,),
                reason="a quantized tensor, which safetensors can't hold",
            )
        if view is None:
            return _whole(storages[key], dtype, count)
        _, offset, size = view
        whole = _whole(storages[key], dtype, count)
        if (
            type(offset) is not int
            or type(size) is not int
            or not 0 <= offset <= offset + size <= count
        ):
            raise ValueError
        return Tensor(dtype, (size,), (1,), offset, whole.storage)

    unpickler = Unpickler(file.view, Tensors(len(file.view)).table(), persistent)
    if unpickler.load() != LEGACY_MAGIC:
        raise CheckpointError(
            "the file is a pickle, but torch.save didn't write it",
            "load it where it was made, and use torch.save",
        )
    version = unpickler.load()
    if version != PROTOCOL_VERSION:
        shown = version if type(version) is int else f"a {type(version).__name__}"
        raise CheckpointError(
            f"the checkpoint's version is {shown}, and torch wrote none but"
            f" {PROTOCOL_VERSION}"
        )
    unpickler.load()  # the system; storages are little-endian whatever it says
    value = unpickler.load()
    keys = unpickler.load()
    if (
        type(keys) is not list
        or any(type(key) is not str for key in keys)
        or len(set(keys)) != len(keys)
    ):
        raise CheckpointError(
            "the checkpoint's list of storages is garbled", "copy or download it again"
        )
    _place(file, unpickler.at, keys, storages, widths)
    return value, unpickler


def _place(
    file: MappedFile,
    at: int,
    keys: Iterable[str],
    storages: dict[str, Storage],
    widths: dict[str, int],
) -> None:
    """Tell each storage where its bytes are, now that the pickles before them have been
    read.
    """
    missing = storages.keys() - set(keys)
    for key in keys:
        if key not in storages:
            raise CheckpointError(
                f"the checkpoint has a storage {key!r} that none of its tensors names"
            )
        storage = storages[key]
        count = int.from_bytes(file.view[at : at + 8], "little", signed=True)
        at += 8
        if count * widths[key] != storage.nbytes or at + storage.nbytes > len(
            file.view
        ):
            raise CheckpointError(
                f"the checkpoint is cut short or damaged: storage {key!r} should have"
                f" {storage.nbytes} bytes at byte {at}, the file ends at"
                f" {len(file.view)} and says {count} elements there",
                "copy or download it again",
            )
        file.drop(at - 8, at)
        storage.start = at
        at += storage.nbytes
    if missing:
        raise CheckpointError(
            f"the checkpoint's storage {min(missing)!r} is missing",
            "copy or save it again",
        )


def _storage_dtype(storage_type: Any) -> str | None:
    """The dtype of a storage class, None for a quantized one. Raises ValueError for
    anything else.
    """
    if not isinstance(storage_type, Inert) or not storage_type.name.startswith(
        "torch."
    ):
        raise ValueError
    name = storage_type.name.rsplit(".", 1)[-1]
    if name not in STORAGES and not name.startswith(("QInt", "QUInt")):
        raise ValueError
    return STORAGES.get(name)


def _width(storage_type: Inert) -> int:
    name = storage_type.name.rsplit(".", 1)[-1]
    if name in STORAGES:
        return DTYPES[STORAGES[name]].bits // 8
    return 4 if name == "QInt32Storage" else 1


def _whole(storage: Storage, dtype: str, count: Any) -> Tensor:
    if type(count) is not int or count < 0:
        raise ValueError
    claimed = count * DTYPES[dtype].bits // 8
    if claimed != storage.nbytes:
        raise CheckpointError(
            f"the checkpoint's storage {storage.key!r} has {storage.nbytes} bytes, and"
            f" a tensor claims {claimed}",
            "copy or download it again",
        )
    return Tensor(dtype, (count,), (1,), 0, storage)


def _kind(value: Any, modules: list[str]) -> str:
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(part, Tensor) for part in value.values())
    ):
        return "pickled module" if modules else "state dict"
    return "checkpoint"


def _left_out(unpickler: Unpickler) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {"harmless": {}, "dangerous": {}}
    for name in sorted(unpickler.mentioned):
        if name in unpickler.dangerous or not ALLOWED_GLOBALS.fullmatch(name):
            verdict = "dangerous" if name in unpickler.dangerous else "harmless"
            found[verdict][name] = unpickler.called[name] or unpickler.mentioned[name]
        elif unpickler.unsupported[name]:
            # with arguments that only code could make sense of
            found["harmless"][name] = unpickler.unsupported[name]
    return found
