"""Reading a checkpoint: its container, its pickle, and its tensors' storages."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError, UnsafeCheckpointError
from checkpoint_release.pth.archive import Archive
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.builders import ALLOWED_GLOBALS, builders
from checkpoint_release.pth.file_kind import (
    checkpoint_pickles,
    identify_archive,
    identify_bytes,
    is_zip,
)
from checkpoint_release.pth.kinds import FileKind, Kind
from checkpoint_release.pth.records import Checkpoint
from checkpoint_release.pth.storages import LegacyStorages, ZipStorages
from checkpoint_release.pth.unpickler import GETATTR, Unpickler
from checkpoint_release.pth.unsafe_globals import Verdict
from checkpoint_release.pth.values import resolve
from checkpoint_release.tensors.tensor import MappedFile

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
_NO_CHECKSUMS = "the file has no checksums, so damage to its tensors can't be seen"
_MAX_LISTED = 10  # dangerous globals in a message


def read_checkpoint(path: Path, budget: Budget | None = None) -> Checkpoint:
    """Read what torch.save wrote, importing and calling nothing that the file names.

    Tensors stay in the file, which is mapped; everything else is read. Globals that
    could do harm are listed, not refused: see `refuse_dangerous`.

    Args:
        path: the file.
        budget: of all files that are read together; None: of this one alone.

    Raises:
        CheckpointError: the file can't be read, is cut short, contradicts itself, or is
            something else.
    """
    try:
        file = MappedFile.of_file(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        zipped = is_zip(file)
        budget = budget or Budget(len(file.view))
        read = _read_zip if zipped else _read_legacy
        value, unpickler, notes = read(file, budget)
        value, modules = resolve(value, budget)
    except CheckpointError as error:
        raise error.within(str(path)) from None
    except (MemoryError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: there is not enough memory to read it ({type(error).__name__})",
            "give this process more memory, or close others",
        ) from None
    notes += [
        f"the module {name} was pickled whole: its tensors were taken, its code was not"
        for name in sorted(set(modules))
    ]
    return Checkpoint(
        path=path,
        value=value,
        container="zip" if zipped else "legacy",
        left_out=_left_out(unpickler),
        notes=tuple(notes),
    )


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file that the system doesn't open, and the likely cause."""
    problem = f"{path} can't be read: {error.strerror}"
    if error.errno != errno.ENAMETOOLONG and path.is_symlink():
        problem += f"; it is a link to {path.readlink()}"
    elif isinstance(error, FileNotFoundError):
        for kept in (path, *path.parents):
            pointer = kept.with_name(f"{kept.name}.dvc") if kept.name else kept
            if pointer.is_file():
                return CheckpointError(
                    f"{path} isn't there, only {pointer}, by which DVC fetches it",
                    f"run dvc pull {pointer}",
                )
    return CheckpointError(
        problem, "check {checkpoint.path}", options=["checkpoint.path"]
    )


@dataclass(frozen=True)
class Embedded:
    """A checkpoint that lies within a larger file.

    Attributes:
        value: as of Checkpoint.
        left_out: as of Checkpoint.
    """

    value: Any
    left_out: dict[str, dict[str, int]]


def read_embedded(file: MappedFile, budget: Budget) -> Embedded:
    """Read what torch.save wrote into a part of a file.

    Args:
        file: that part alone.
        budget: of all that is read together.

    Raises:
        CheckpointError: as read_checkpoint; the message doesn't say where it is.
    """
    if not is_zip(file):
        raise CheckpointError(
            "there is nothing there that torch.save wrote",
            "copy or download the files again, all of one run",
        )
    value, unpickler, _ = _read_zip(file, budget)
    return Embedded(resolve(value, budget)[0], _left_out(unpickler))


def read_pickle(file: MappedFile, budget: Budget) -> Embedded:
    """Read a file that is one pickle without tensors.

    Raises:
        CheckpointError: it isn't a whole and sane one, or refers to tensors.
    """
    unpickler = Unpickler(file.view, builders(len(file.view)), _no_storage, budget)
    value = unpickler.load()
    return Embedded(resolve(value, budget)[0], _left_out(unpickler))


def _no_storage(pid: tuple[Any, ...]) -> Any:
    raise ValueError("it refers to a tensor's storage, and has none")


def refuse_dangerous(checkpoint: Checkpoint) -> None:
    """Stop when a checkpoint names code that could do harm.

    Raises:
        UnsafeCheckpointError: with the names and how often each would have been called.
    """
    dangerous = checkpoint.left_out.get("dangerous")
    if not dangerous:
        return
    counted = [f"{name} ({count}×)" for name, count in dangerous.items()]
    listed = ", ".join(counted[:_MAX_LISTED])
    if len(counted) > _MAX_LISTED:
        listed += f" and {len(counted) - _MAX_LISTED} more"
    raise UnsafeCheckpointError(
        f"{checkpoint.path} names code that could do harm if another program loaded"
        f" it: {listed}. None of it was run",
        "don't load this file with torch.load. Ask its author for a state dict of"
        " tensors; or, to take the tensors and leave the code, set"
        " {checkpoint.salvage} to true",
        options=["checkpoint.salvage"],
    )


def _require_checkpoint(kind: FileKind) -> None:
    if kind.kind is not Kind.PTH:
        raise CheckpointError(
            f"the file is not a checkpoint: it is {kind.description}", kind.remedy
        )


_Read = tuple[Any, Unpickler, list[str]]
"""A pickle's value, what read it, and notes for the user."""


def _read_zip(file: MappedFile, budget: Budget) -> _Read:
    """The format since 1.6: data.pkl and an entry for each storage."""
    archive = Archive(file, budget)
    _require_checkpoint(identify_archive(archive))
    (name,) = checkpoint_pickles(archive)
    root = name.removesuffix("data.pkl")
    storages = ZipStorages(file, archive, root, _is_big_endian(archive, root))
    unpickler = Unpickler(
        archive.checked(archive.entries[name]),
        builders(len(file.view)),
        storages.persistent_load,
        budget,
    )
    notes = [] if archive.has_checksums else [_NO_CHECKSUMS]
    return unpickler.load(), unpickler, notes


def _is_big_endian(archive: Archive, root: str) -> bool:
    entry = archive.entries.get(f"{root}byteorder")
    order = bytes(archive.data(entry).view) if entry else b"little"
    if order not in (b"little", b"big"):
        raise CheckpointError(
            f"the checkpoint's byte order is {order[:20]!r}, neither little nor big"
        )
    return order == b"big"


def _read_legacy(file: MappedFile, budget: Budget) -> _Read:
    """The format before 1.6: five pickles, and then the storages.

    The pickles are a magic number, the version, the system, the object, and the keys of
    the storages.
    """
    _require_checkpoint(identify_bytes(file.view))
    storages = LegacyStorages(file)
    unpickler = Unpickler(
        file.view, builders(len(file.view)), storages.persistent_load, budget
    )
    if unpickler.load() != LEGACY_MAGIC:
        raise CheckpointError(
            "the file is a pickle, but torch.save didn't write it",
            "load it in the code that wrote it, and save it with torch.save",
        )
    _check_version(unpickler.load())
    unpickler.load()  # the system; storages are little-endian whatever it says
    value = unpickler.load()
    keys = unpickler.load()
    storages.locate(unpickler.at, keys)
    return value, unpickler, []


def _check_version(version: Any) -> None:
    if version != PROTOCOL_VERSION:
        shown = version if type(version) is int else f"a {type(version).__name__}"
        raise CheckpointError(
            f"the checkpoint's version is {shown}; torch wrote {PROTOCOL_VERSION} only"
        )


def _left_out(unpickler: Unpickler) -> dict[str, dict[str, int]]:
    """The globals that stayed records, by the verdict on them, with counts."""
    left_out: dict[str, dict[str, int]] = {verdict: {} for verdict in Verdict}
    for name in sorted(unpickler.mentioned):
        count = unpickler.called[name] or unpickler.mentioned[name]
        verdict = unpickler.verdicts[name]
        allowed = verdict is not Verdict.DANGEROUS and ALLOWED_GLOBALS.fullmatch(name)
        if allowed or name == GETATTR:
            # with arguments that only code could make sense of
            count = unpickler.unexplained(name)
        if count:
            left_out[verdict][name] = count
    return left_out
