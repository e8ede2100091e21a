"""The zip archives that torch.jit.save and torch.export.save write, read inertly.

What is looked through has to be what torch will read. torch takes the folder of an
archive's first entry for the root of all, and looks names up without regard to case
(caffe2/serialize/inline_container.cc): archives that would leave room for two readings
are refused, and so are those that `Archive` refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import ArtifactError, CheckpointError
from checkpoint_release.pth.archive import Archive, Entry
from checkpoint_release.pth.file_kind import identify_archive, is_zip
from checkpoint_release.pth.kinds import Kind
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.unpickler import Unpickler
from checkpoint_release.tensors.tensor import MappedFile

REMEDY = "it is damaged or was tampered with: export or download it again"
MAX_EXTRA = 16 << 20  # bytes of a config.json inside an archive
_MAX_DEPTH = 500  # a module of a module and so on takes a few levels each
_MAX_VISITS = 20_000_000
_EXTRA = "extra/"  # where torch keeps the extra files of its archives


class TorchArchive:
    """An archive's members by what torch calls them.

    Args:
        file: the archive.

    Attributes:
        members: name in lower case, without the root folder → entry.

    Raises:
        CheckpointError: it is damaged, or could be read in two ways.
    """

    def __init__(self, file: MappedFile) -> None:
        self._archive = Archive(file)
        self.members: dict[str, Entry] = {}
        roots = set()
        for name, entry in self._archive.entries.items():
            root, slash, rest = name.partition("/")
            member = (rest if slash else name).lower()
            roots.add(root if slash else "")
            if member in self.members:
                raise CheckpointError(
                    f"two of its entries are {member!r} to torch", REMEDY
                )
            self.members[member] = entry
        # before torch 2.8 a .pt2 had no root folder
        if len(roots - {""}) > 1:
            raise CheckpointError("its entries lie in more than one folder", REMEDY)

    def bytes(self, entry: Entry) -> memoryview:
        """A member's content, which has the checksum that it should.

        Raises:
            CheckpointError: it hasn't, or can't be inflated.
        """
        return self._archive.checked(entry)

    def text(self, entry: Entry) -> str:
        """A member's content as text.

        Raises:
            CheckpointError: it isn't UTF-8, or as for bytes.
        """
        try:
            return str(self.bytes(entry), "utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(f"{entry.name} is not text", REMEDY) from None


def globals_of_pickle(data: memoryview) -> set[str]:
    """The dotted names of what a pickle would import; nothing is.

    Args:
        data: one pickle. What follows its end is not read by anybody.

    Raises:
        CheckpointError: it is none.
    """
    reader = Unpickler(data, {}, _storage)
    _check_depth(reader.load())
    return set(reader.mentioned)


def globals_of_checkpoint(data: memoryview) -> set[str] | None:
    """The dotted names of what torch.load would import for a file in memory.

    Returns:
        None: it is no archive of torch.save. For other formats torch.load has readers
        of their own, which run TorchScript and unpickle several times.

    Raises:
        CheckpointError: it is damaged, or could be read in two ways.
    """
    file = MappedFile(data)
    if not is_zip(file) or identify_archive(Archive(file)).kind is not Kind.PTH:
        return None
    archive = TorchArchive(file)
    return globals_of_pickle(archive.bytes(archive.members["data.pkl"]))


def read_extra(path: Path, name: str) -> tuple[str, bytes] | None:
    """An extra file of an archive, such as the config.json that was saved with it.

    Args:
        path: an existing file of any kind.
        name: the extra file's.

    Returns:
        Its full name and content; None where the file is no archive or has none.

    Raises:
        ArtifactError: the archive is damaged, or the file is too large to be one.
    """
    with damage_named(path):
        file = MappedFile.of_file(path)
        if not is_zip(file):
            return None
        archive = TorchArchive(file)
        entry = archive.members.get(f"{_EXTRA}{name}".lower())
        if entry is None:
            return None
        if entry.size > MAX_EXTRA:
            raise CheckpointError(
                f"{entry.name} claims {entry.size} bytes, and at most {MAX_EXTRA} are"
                " read",
                REMEDY,
            )
        return entry.name, bytes(archive.bytes(entry))


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Report an archive that can't be read as the artifact that it is.

    Raises:
        ArtifactError: reading raised a CheckpointError.
    """
    try:
        yield
    except CheckpointError as error:
        raise ArtifactError(f"{path}: {error.problem}", REMEDY) from None


def _check_depth(value: Any) -> None:
    """Refuse what contains itself, or is nested so deeply that torch's reader of
    TorchScript, which is recursive, would overflow the stack.

    Level for level: a value that is shared is on as many levels as paths lead to it.

    Raises:
        CheckpointError: it is.
    """
    level = [value]
    visits = 0
    for _ in range(_MAX_DEPTH):
        below = {id(part): part for whole in level for part in _parts(whole)}
        visits += len(below)
        if visits > _MAX_VISITS:
            break
        if not below:
            return
        level = list(below.values())
    raise CheckpointError("a pickle in it is nested too deeply", REMEDY)


def _parts(value: Any) -> Iterator[Any]:
    """What a value holds that may hold something else."""
    match value:
        case list() | tuple():
            held: list[Any] = list(value)
        case dict():
            held = list(value.values())
        case Inert():
            held = [value.args, value.state, value.items, value.entries]
        case _:
            return
    for part in held:
        if isinstance(part, list | tuple | dict | Inert):
            yield part


def _storage(pid: tuple[Any, ...]) -> Inert:
    """What stands for a storage: its bytes are numbers, whatever they are."""
    return Inert("storage", ())
