"""torch's zip archives (TorchScript's .pt and torch.export's .pt2), written so that
their bytes never vary.

torch names the archive's root folder after the file, dates its entries, adds an id that
differs between machines, and keeps what only debugging needs: source paths
(`.debug_pkl`) and example inputs.

`rewrite` keeps what `torch.jit.load`, in Python and C++, and `torch.export.load` read.
Records stay uncompressed and aligned to 64 bytes, as torch writes them, so that readers
can map them.
https://github.com/pytorch/pytorch/blob/main/caffe2/serialize/inline_container.h
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.file_sharing import give_back
from checkpoint_release.exporting.path_leaks import find_path_leak

ROOT = "model"
_ID = ".data/serialization_id"
_ID_DIGITS = 40
_ALIGNMENT = 64
_LOCAL_HEADER, _ZIP64_EXTRA, _EXTRA_HEADER = 30, 20, 4  # bytes
_PADDING_FIELD = 0x4246  # "FB", torch's own id of the extra field that holds nothing
_CHUNK = 4 << 20

Records = dict[str, bytes]
"""Name of a record, without the archive's root → content."""


def rewrite(
    source: Path,
    target: Path,
    *,
    drop: Callable[[str], bool] = lambda name: False,
    edit: Callable[[Records], Records] = lambda records: records,
    move: bool = False,
) -> None:
    """Copy an archive to its canonical form.

    Args:
        source: what torch wrote.
        target: the new file.
        drop: whether the record of that name, without the root, is left out.
        edit: changes the records of code and pickles, given and returned by name.
        move: remove the source, each tensor as it is copied, so that the disk holds it
            once.
    """
    with source.open("r+b" if move else "rb") as file, zipfile.ZipFile(file) as archive:
        texts: Records = {}
        tensors: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if name == _ID or drop(name):
                continue
            if is_text(name):
                texts[name] = archive.read(info)
            else:
                tensors[name] = info
        writer = _Writer(target)
        with writer.archive:
            for name, content in edit(texts).items():
                writer.add(name, len(content), [content])
            for name, info in tensors.items():
                with archive.open(info) as record:
                    writer.add(name, info.file_size, _chunks(record))
                if move:
                    start = info.header_offset
                    give_back(file, start, start + info.file_size)
            writer.add_id()
    if move:
        source.unlink()


def is_text(name: str) -> bool:
    """Whether a record is code, JSON or a pickle, rather than the bytes of a tensor."""
    return name.endswith((".py", ".json", ".pkl"))


def check_archive(file: Path) -> None:
    """Look for paths in the archive's code and pickles.

    Raises:
        ExportError: there is one.
    """
    with zipfile.ZipFile(file) as archive:
        for name in filter(is_text, archive.namelist()):
            leak = find_path_leak(archive.read(name))
            if leak is not None:
                raise ExportError(
                    f"{file.name}: {name} holds {leak!r}",
                    "this is a bug of the exporter: report it",
                )


class _Writer:
    """Adds records to a zip archive and digests them."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self._digest = hashlib.sha256()

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a record of `size` bytes, given in pieces."""
        info = zipfile.ZipInfo(f"{ROOT}/{name}", (1980, 1, 1, 0, 0, 0))
        info.create_system = 0
        info.file_size = size
        is_large = size * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule
        info.extra = self._padding(info.filename, is_large)
        self._digest.update(f"{name}\0{size}\0".encode())
        with self.archive.open(info, "w", force_zip64=is_large) as file:
            for chunk in chunks:
                file.write(chunk)
                self._digest.update(chunk)

    def add_id(self) -> None:
        """Add the archive's id, which depends on its records alone."""
        number = int(self._digest.hexdigest(), 16) % 10**_ID_DIGITS
        content = str(number).zfill(_ID_DIGITS).encode()
        self.add(_ID, len(content), [content])

    def _padding(self, filename: str, is_large: bool) -> bytes:
        """The extra field after which the next record's content is aligned.

        Args:
            filename: the record's, with the root.
            is_large: whether its header has a zip64 field.
        """
        header = _LOCAL_HEADER + len(filename.encode()) + _EXTRA_HEADER
        if is_large:
            header += _ZIP64_EXTRA
        position = self.archive.fp.tell() if self.archive.fp else 0
        padding = -(position + header) % _ALIGNMENT
        return struct.pack("<HH", _PADDING_FIELD, padding) + b"Z" * padding


def _chunks(record: IO[bytes]) -> Iterator[bytes]:
    while chunk := record.read(_CHUNK):
        yield chunk
