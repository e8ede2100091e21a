"""The zip container of torch since 1.6, read with no room for a second opinion.

A zip file describes each entry twice, in the central directory and before its data, and
readers differ in which of them they believe: a scanner can be shown one pickle and
torch another. Here a file whose two accounts differ is refused, and so are entries of
the same name, entries that overlap, and anything that follows the end.
Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.budget import Budget
from checkpoint_release.tensors.tensor import FAULT_AROUND, MappedFile

MAX_DIRECTORY = 64 << 20  # bytes; about half a million tensors
MAX_NAME = 1000  # characters in an entry's name; torch itself needs some twenty
_ENTRY = 300  # bytes charged for an entry: its record, its name, its place in the table

_STORED, _DEFLATED = 0, 8  # methods (APPNOTE.TXT 4.4.5)
_ENCRYPTED, _SIZES_FOLLOW = 1, 8  # flags (4.4.4): bit 0 and bit 3
_IN_EXTRA_FIELD = 0xFFFFFFFF  # a number that needs 64 bits (4.4.8)
_ZIP64_FIELD = 1  # header id of the extra field with such numbers (4.5.3)

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


class _End(NamedTuple):
    """The end of central directory record (APPNOTE.TXT 4.3.16).

    `start` and `size` are the directory's, in bytes; `entries_here` is on this disk.
    """

    magic: bytes
    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    size: int
    start: int
    comment_length: int


class _End64(NamedTuple):
    """The zip64 end of central directory record (APPNOTE.TXT 4.3.14)."""

    magic: bytes
    record_size: int
    made_by: int
    needed: int
    disk: int
    directory_disk: int
    entries_here: int
    entries: int
    size: int
    start: int


class _CentralHeader(NamedTuple):
    """An entry's header in the central directory (APPNOTE.TXT 4.3.12)."""

    magic: bytes
    made_by: int
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int
    comment_length: int
    disk: int
    internal: int
    external: int
    offset: int


class _LocalHeader(NamedTuple):
    """An entry's header before its data (APPNOTE.TXT 4.3.7)."""

    magic: bytes
    needed: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    name_length: int
    extra_length: int


@dataclass(frozen=True)
class _Directory:
    """The central directory: its number of entries, and where it is in the file."""

    count: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class _DirectoryEntry:
    """What the directory says of an entry.

    Attributes:
        name, raw_name: as text, and as it is written.
        flags, method, crc: as in the header.
        packed, size: in bytes.
        offset: where its local header begins.
        end: where the directory's next entry begins.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    end: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the archive.

    Attributes:
        name: with the folders that it is in.
        start: where its data begin in the file.
        packed: bytes that it takes in the file.
        size: bytes of its data.
        crc: CRC-32 of its data.
        deflated: whether its data are compressed.
    """

    name: str
    start: int
    packed: int
    size: int
    crc: int
    deflated: bool


class Archive:
    """A zip file's entries by name.

    Args:
        file: the archive.
        budget: of the file; entries, and what is inflated, are charged to it.

    Raises:
        CheckpointError: the file is cut short or contradicts itself, or the budget is
            spent.
    """

    def __init__(self, file: MappedFile, budget: Budget | None = None) -> None:
        self._file = file
        self._view = file.view
        self._budget = budget or Budget(len(file.view))
        self._touched = 0
        try:
            self.entries = self._read()
        except (struct.error, UnicodeDecodeError) as error:
            raise _damaged(str(error)) from None

    def data(self, entry: Entry) -> MappedFile:
        """The entry's bytes: mapped where they are stored, otherwise inflated.

        No more than a byte beyond the claimed size is inflated, and that is charged
        before. Inflated bytes are compared with their checksum at once.

        Args:
            entry: one of this archive's.

        Raises:
            CheckpointError: they don't inflate to the size that the entry claims, don't
                have its checksum, or the budget is spent.
        """
        stored = self._view[entry.start : entry.start + entry.packed]
        if not entry.deflated:
            return MappedFile(stored)
        self._budget.charge(entry.size)
        try:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            data = inflater.decompress(stored, entry.size + 1)
        except zlib.error as error:
            raise _damaged(f"{entry.name} doesn't inflate: {error}") from None
        if len(data) != entry.size:
            raise _damaged(
                f"{entry.name} inflates to another size than the {entry.size} bytes it"
                " claims"
            )
        self._require_checksum(entry, memoryview(data))
        return MappedFile(memoryview(data))

    def checked(self, entry: Entry) -> memoryview:
        """The entry's bytes, compared with their checksum.

        For the pickle. The checksums of storages are compared when their bytes are
        read (`tensors.tensor.Storage`): a reader of the pickle alone needs none.

        Raises:
            CheckpointError: they haven't it.
        """
        data = self.data(entry).view
        if not entry.deflated:
            self._require_checksum(entry, data)
        return data

    @cached_property
    def has_checksums(self) -> bool:
        """Whether whoever wrote the archive computed checksums.

        torch writes zeros for all of them where it is set not to compute any
        (torch.serialization.set_crc32_options). One that is zero among others is a
        checksum like them.
        """
        return any(entry.crc for entry in self.entries.values())

    def _require_checksum(self, entry: Entry, data: memoryview) -> None:
        """Raise CheckpointError where the entry's bytes haven't its checksum."""
        if self.has_checksums and zlib.crc32(data) != entry.crc:
            raise _damaged(f"{entry.name} doesn't have the checksum that it should")

    def _read(self) -> dict[str, Entry]:
        """All entries, checked against each other and against the directory.

        The directory and every entry take a span of the file of their own: an overlap
        would be read as two things.

        Returns:
            Name → entry, in the directory's order.

        Raises:
            CheckpointError: they don't fit together.
            struct.error, UnicodeDecodeError: a header is cut, or a name isn't UTF-8.
        """
        directory = self._directory()
        if directory.size > MAX_DIRECTORY:
            raise _damaged(f"its directory claims {directory.size} bytes")
        entries: dict[str, Entry] = {}
        spans = [(directory.start, directory.end)]
        at = directory.start
        for _ in range(directory.count):
            if at + _CENTRAL.size > directory.end:
                raise _damaged(
                    f"its directory ends before all of its {directory.count} entries"
                )
            self._budget.charge(_ENTRY)
            listed = self._directory_entry(at, directory)
            entry = self._entry(listed, directory)
            if entry.name in entries:
                raise _damaged(f"two of its entries are named {entry.name!r}")
            entries[entry.name] = entry
            spans.append((listed.offset, entry.start + entry.packed))
            at = listed.end
        if at != directory.end:
            raise _damaged("its directory holds more than its entries")
        _check_apart(spans)
        self._check_inflated(entries.values())
        return entries

    def _directory(self) -> _Directory:
        """Where the central directory is, by the end record, in zip64 by both.

        Right before the end record lies, in zip64, a locator of 20 bytes (APPNOTE.TXT
        4.3.15), before that the zip64 end record, before that the directory. Nothing
        may lie between them: some readers find the directory by its position, others
        by the end record's numbers, and here both have to lead to the same.

        Raises:
            CheckpointError: it isn't right before its end, or in another file.
        """
        end_at = self._end()
        end = _End._make(_END.unpack_from(self._view, end_at))
        stop = end_at
        count_here, count, size, start = (
            end.entries_here,
            end.entries,
            end.size,
            end.start,
        )
        locator_at = end_at - _LOCATOR64.size
        if self._begins(locator_at, b"PK\x06\x07"):
            _, _, stop, _ = _LOCATOR64.unpack_from(self._view, locator_at)
            if stop + _END64.size != locator_at:
                raise _damaged("its two ends don't fit together")
            end64 = self._end64(stop, end)
            count_here, count = end64.entries_here, end64.entries
            size, start = end64.size, end64.start
        if end.disk or end.directory_disk or count_here != count:
            raise _damaged("it is one part of several")
        if start + size != stop:
            raise _damaged("its directory is not where its end says")
        return _Directory(count, start, size)

    def _end(self) -> int:
        """Where the end of central directory record begins.

        It is the last one in the file, and nothing follows its comment: readers that
        search from the other side find the same. The comment's length has 16 bits,
        which bounds the search.

        Raises:
            CheckpointError: there is none, or something follows.
        """
        tail = bytes(self._view[-(_END.size + 0xFFFF) :])
        found = tail.rfind(b"PK\x05\x06")
        if found < 0 or found + _END.size > len(tail):
            raise _damaged("its end is missing, or it is still being written")
        end = _End._make(_END.unpack_from(tail, found))
        if found + _END.size + end.comment_length != len(tail):
            raise _damaged("something follows its end")
        return len(self._view) - len(tail) + found

    def _end64(self, at: int, end: _End) -> _End64:
        """The zip64 end record, whose numbers are those of `end` where they fit.

        A number of `end` that doesn't fit has all bits set. Otherwise the two have to
        agree, because readers differ in which of them they take.

        Args:
            at: where it begins.
            end: the end record of 32 bits.

        Raises:
            CheckpointError: it isn't there, or contradicts `end`.
        """
        if not self._begins(at, b"PK\x06\x06"):
            raise _damaged("its two ends don't fit together")
        end64 = _End64._make(_END64.unpack_from(self._view, at))
        for short, long, unknown in (
            (end.entries, end64.entries, 0xFFFF),
            (end.size, end64.size, _IN_EXTRA_FIELD),
            (end.start, end64.start, _IN_EXTRA_FIELD),
        ):
            if short not in (long, unknown):
                raise _damaged("its two ends contradict each other")
        return end64

    def _begins(self, at: int, magic: bytes) -> bool:
        """Whether a record with that signature begins at that byte of the file.

        Args:
            at: below 0 where the file is too short for the record.
            magic: the record's first four bytes.
        """
        if at < 0:
            return False
        return bytes(self._view[at : at + len(magic)]) == magic

    def _directory_entry(self, at: int, directory: _Directory) -> _DirectoryEntry:
        """What the directory says of one entry.

        A name that is too long or invisible would make messages and the names of
        storages into something that people can't compare.

        Args:
            at: where its header begins.
            directory: it ends within it.

        Raises:
            CheckpointError: it is garbled, encrypted, or compressed otherwise than by
                deflate.
        """
        view = self._view
        header = _CentralHeader._make(_CENTRAL.unpack_from(view, at))
        name_at = at + _CENTRAL.size
        extra_at = name_at + header.name_length
        comment_at = extra_at + header.extra_length
        end = comment_at + header.comment_length
        if header.magic != b"PK\x01\x02" or end > directory.end:
            raise _damaged(f"its directory is garbled at byte {at}")
        raw_name = bytes(view[name_at:extra_at])
        name = raw_name.decode("utf-8")
        if not name.isprintable() or len(name) > MAX_NAME:
            raise _damaged(
                f"its directory has a name of {len(name)} characters, or with invisible"
                " ones"
            )
        long = _zip64_values(bytes(view[extra_at:comment_at]))
        size = _long(header.size, long)
        packed = _long(header.packed, long)
        offset = _long(header.offset, long)
        if header.flags & _ENCRYPTED:
            raise _damaged(f"{name} is encrypted")
        stored = header.method == _STORED and packed == size
        if not stored and header.method != _DEFLATED:
            raise _damaged(f"{name} is compressed in a way that torch doesn't know")
        return _DirectoryEntry(
            name,
            raw_name,
            header.flags,
            header.method,
            header.crc,
            packed,
            size,
            offset,
            end,
        )

    def _entry(self, listed: _DirectoryEntry, directory: _Directory) -> Entry:
        """The entry itself, whose own header says what the directory says.

        Its extra fields may have another length than the directory's, so where the data
        begin is known from the entry's own header only. torch pads with them, to align
        the tensors.

        Args:
            listed: what the directory says.
            directory: all data lie before it.

        Raises:
            CheckpointError: it isn't where the directory places it, contradicts it, or
                reaches into the directory.
        """
        at, limit = listed.offset, directory.start
        if at + _LOCAL.size > limit:
            raise _damaged(f"{listed.name} begins outside of the file")
        header = _LocalHeader._make(_LOCAL.unpack_from(self._view, at))
        name_at = at + _LOCAL.size
        raw_name = bytes(self._view[name_at : name_at + header.name_length])
        if header.magic != b"PK\x03\x04" or raw_name != listed.raw_name:
            raise _damaged(
                f"the directory places {listed.name} at byte {at}, where something else"
                " begins"
            )
        if not _headers_agree(header, listed):
            raise _damaged(f"the two headers of {listed.name} contradict each other")
        start = name_at + header.name_length + header.extra_length
        if start + listed.packed > limit:
            raise _damaged(
                f"{listed.name} claims {listed.packed} bytes at byte {start}, beyond"
                f" the end of the data at {limit}"
            )
        self._touch(at)
        return Entry(
            listed.name,
            start,
            listed.packed,
            listed.size,
            listed.crc,
            listed.method == _DEFLATED,
        )

    def _check_inflated(self, entries: Iterable[Entry]) -> None:
        """Raise CheckpointError where the compressed entries together are too large.

        deflate reaches a thousandfold: 10 MB of file would become 10 GB of memory. The
        budget is compared with the claims, before anything is inflated.
        """
        inflated = sum(entry.size for entry in entries if entry.deflated)
        if inflated > self._budget.limit:
            raise CheckpointError(
                "the memory budget is exceeded: the checkpoint's compressed entries"
                f" claim {inflated} bytes in a file of {len(self._view)}",
                "do not load it: it looks like a zip bomb; if it is yours, unzip it and"
                " pack it again with zip -0",
            )

    def _touch(self, at: int) -> None:
        """Note that a header was read, and give back the memory of those far before it.

        Between two headers lies a tensor, and the system maps a part of it with each;
        small ones share a part, which is kept until the headers lie behind it.

        Args:
            at: where the header begins.
        """
        if abs(at - self._touched) >= FAULT_AROUND:
            self._file.drop(self._touched, self._touched + 1)
            self._touched = at


def _headers_agree(local: _LocalHeader, listed: _DirectoryEntry) -> bool:
    """Whether an entry's own header says what the directory says.

    Checksum and sizes may follow the data, and are zero or right here then (APPNOTE.TXT
    4.4.4, bit 3). The sizes may also be in an extra field, which is not looked at: the
    directory's are taken, and spans that would overlap by them are refused.

    Args:
        local: the header before the data.
        listed: what the directory says.
    """
    if local.method != listed.method:
        return False
    if (local.flags ^ listed.flags) & _ENCRYPTED:
        return False
    missing = {0} if local.flags & _SIZES_FOLLOW else set[int]()
    if local.crc not in {listed.crc, *missing}:
        return False
    missing.add(_IN_EXTRA_FIELD)
    if local.packed not in {listed.packed, *missing}:
        return False
    return local.size in {listed.size, *missing}


def _check_apart(spans: list[tuple[int, int]]) -> None:
    """Raise CheckpointError where two spans, each from its start to its end, overlap.

    Entries that share bytes are how a small file holds many large entries.
    """
    for before, after in pairwise(sorted(spans)):
        if before[1] > after[0]:
            raise _damaged("two of its entries overlap")


def _zip64_values(extra: bytes) -> Iterator[int]:
    """The 64-bit values in an entry's extra fields.

    They are those of size, packed size and offset, in this order, that don't fit into
    32 bits (APPNOTE.TXT 4.5.3).

    Args:
        extra: fields that follow each other: id and length, 16 bits each, and data.

    Returns:
        The values one after another; none where there is no such field.

    Raises:
        struct.error: the field ends before its length.
    """
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_FIELD:
            count = min(length, 24) // 8
            return iter(struct.unpack_from(f"<{count}Q", extra, at + 4))
        at += 4 + length
    return iter(())


def _long(value: int, values: Iterator[int]) -> int:
    """A number of a header, from the extra field where the header refers to it.

    Args:
        value: the header's own, of 32 bits.
        values: what is left of the extra field; one is taken only where the header
            refers to it, so the order of calls is that of the field.
    """
    if value != _IN_EXTRA_FIELD:
        return value
    return next(values, value)


def _damaged(how: str) -> CheckpointError:
    """The error for an archive that is cut short or contradicts itself.

    Args:
        how: what is wrong, as a clause.
    """
    return CheckpointError(
        f"its zip archive is damaged or cut short: {how}",
        "copy or download the file again, or save it again",
    )
