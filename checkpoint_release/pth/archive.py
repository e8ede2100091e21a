"""The zip container that torch has written since 1.6, read with no room for a second
opinion.

A zip file says everything twice, in the central directory and before each entry, and
readers differ in which they believe: a scanner can be shown one pickle and torch
another. Here a file whose two accounts differ is refused, and so are entries of the
same name, entries that overlap, and anything before, between the end or after it.
Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.tensors.tensor import MappedFile

MAX_DIRECTORY = 64 << 20  # bytes; about half a million tensors
MAX_NAME = 1000  # characters in an entry's name; torch itself needs some twenty
# times the file's size, besides 64 MiB; torch.save itself never compresses
MAX_INFLATED = 20

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True)
class Entry:
    """An entry of the archive: `start` is where its data begin in the file; sizes are
    in bytes.
    """

    name: str
    start: int
    packed: int
    size: int
    crc: int
    deflated: bool


class Archive:
    """A zip file's entries by name.

    Raises CheckpointError when the file is cut short or contradicts itself.
    """

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._view = file.view
        try:
            self.entries = self._read()
        except (struct.error, UnicodeDecodeError) as error:
            raise _broken(str(error)) from None

    def data(self, entry: Entry) -> MappedFile:
        """The entry's bytes: mapped where they are stored as they are, inflated into
        memory otherwise.
        """
        stored = self._view[entry.start : entry.start + entry.packed]
        if not entry.deflated:
            return MappedFile(stored)
        try:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            data = inflater.decompress(stored, entry.size + 1)
        except zlib.error as error:
            raise _broken(f"{entry.name} doesn't inflate: {error}") from None
        if len(data) != entry.size:
            raise _broken(
                f"{entry.name} inflates to another size than the {entry.size} bytes it"
                " claims"
            )
        return MappedFile(memoryview(data))

    def checked(self, entry: Entry) -> memoryview:
        """The entry's bytes, compared with their checksum."""
        data = self.data(entry).view
        if zlib.crc32(data) != entry.crc:
            raise _broken(
                f"{entry.name} doesn't have the checksum that the archive gives for it"
            )
        return data

    def _read(self) -> dict[str, Entry]:
        count, start, size = self._directory()
        if size > MAX_DIRECTORY:
            raise _broken(f"its directory claims {size} bytes")
        entries: dict[str, Entry] = {}
        spans = [(start, start + size)]
        at = start
        for _ in range(count):
            if at + _CENTRAL.size > start + size:
                raise _broken(f"its directory ends before all of its {count} entries")
            entry, span, at = self._entry(at, start)
            if entry.name in entries:
                raise _broken(f"two of its entries are named {entry.name!r}")
            entries[entry.name] = entry
            spans.append(span)
        if at != start + size:
            raise _broken("its directory holds more than its entries")
        spans.sort()
        if any(left[1] > right[0] for left, right in pairwise(spans)):
            raise _broken("two of its entries overlap")
        inflated = sum(entry.size for entry in entries.values() if entry.deflated)
        if inflated > (64 << 20) + MAX_INFLATED * len(self._view):
            raise CheckpointError(
                f"the checkpoint's compressed entries claim {inflated} bytes in a file"
                f" of {len(self._view)}",
                "leave it alone: this is how a zip bomb looks; if it is yours, unzip it"
                " and pack it again with zip -0",
            )
        return entries

    def _directory(self) -> tuple[int, int, int]:
        """Number of entries, start and size of the central directory."""
        view = self._view
        end = self._end()
        _, disk, first_disk, here, count, size, start, _ = _END.unpack_from(view, end)
        stop = end
        if (
            end >= _LOCATOR64.size
            and bytes(view[end - _LOCATOR64.size :][:4]) == b"PK\x06\x07"
        ):
            _, _, end64, _ = _LOCATOR64.unpack_from(view, end - _LOCATOR64.size)
            if (
                end64 + _END64.size != end - _LOCATOR64.size
                or bytes(view[end64:][:4]) != b"PK\x06\x06"
            ):
                raise _broken("its two ends don't fit together")
            long = _END64.unpack_from(view, end64)
            for small, large, unknown in (
                (count, long[7], 0xFFFF), (size, long[8], 0xFFFFFFFF), (start, long[9], 0xFFFFFFFF),
            ):  # fmt: skip
                if small not in (large, unknown):
                    raise _broken("its two ends contradict each other")
            here, count, size, start = long[6:10]
            stop = end64
        if disk or first_disk or here != count:
            raise _broken("it is one part of several")
        if start + size != stop:
            raise _broken("its directory is not where its end says")
        return count, start, size

    def _end(self) -> int:
        """Where the end of central directory record begins: the last one, and nothing
        after its comment.
        """
        tail = bytes(self._view[-(_END.size + 0xFFFF) :])
        found = tail.rfind(b"PK\x05\x06")
        if found < 0 or found + _END.size > len(tail):
            raise _broken(
                "its end is missing: the file was cut short, or is still being written"
            )
        if found + _END.size + int.from_bytes(
            tail[found + 20 : found + 22], "little"
        ) != len(tail):
            raise _broken("something follows its end")
        return len(self._view) - len(tail) + found

    def _entry(self, at: int, limit: int) -> tuple[Entry, tuple[int, int], int]:
        """The directory's entry at `at`, what it spans in the file, and where the next
        one begins.
        """
        view = self._view
        (
            magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, _,
            _, _, header,
        ) = _CENTRAL.unpack_from(view, at)  # fmt: skip
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_length
        after = extra_at + extra_length + comment_length
        if magic != b"PK\x01\x02" or after > limit + MAX_DIRECTORY or after > len(view):
            raise _broken(f"its directory is garbled at byte {at}")
        raw_name = bytes(view[name_at:extra_at])
        name = raw_name.decode("utf-8")
        if not name.isprintable() or len(name) > MAX_NAME:
            raise _broken(
                f"its directory has a name of {len(name)} characters, or with invisible"
                " ones"
            )
        size, packed, header = _long_sizes(
            bytes(view[extra_at : extra_at + extra_length]), size, packed, header
        )
        if flags & 1:
            raise _broken(f"{name} is encrypted")
        if method not in (0, 8) or (method == 0 and packed != size):
            raise _broken(f"{name} is compressed in a way that torch doesn't know")
        if header + _LOCAL.size > limit:
            raise _broken(f"{name} begins outside of the file")
        (
            magic, _, local_flags, local_method, _, _, local_crc, local_packed, local_size, local_name_length,
            local_extra_length,
        ) = _LOCAL.unpack_from(view, header)  # fmt: skip
        name_at = header + _LOCAL.size
        start = name_at + local_name_length + local_extra_length
        if (
            magic != b"PK\x03\x04"
            or bytes(view[name_at : name_at + local_name_length]) != raw_name
        ):
            raise _broken(
                f"the directory places {name} at byte {header}, where something else"
                " begins"
            )
        # sizes and checksum follow the data: zero or missing here
        later = bool(local_flags & 8)
        agree = local_method == method and (local_flags ^ flags) & 1 == 0
        agree &= local_packed in (packed, 0xFFFFFFFF) or (later and local_packed == 0)
        agree &= local_size in (size, 0xFFFFFFFF) or (later and local_size == 0)
        agree &= local_crc == crc or (later and local_crc == 0)
        if not agree:
            raise _broken(f"the two headers of {name} contradict each other")
        if start + packed > limit:
            raise _broken(
                f"{name} claims {packed} bytes at byte {start}, beyond the end of the"
                f" data at {limit}"
            )
        self._file.drop(header, header + 1)
        return (
            Entry(name, start, packed, size, crc, method == 8),
            (header, start + packed),
            after,
        )


def _long_sizes(
    extra: bytes, size: int, packed: int, header: int
) -> tuple[int, int, int]:
    """The 64-bit values of a zip64 extra field, for those of the three that don't fit
    into 32.
    """
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = iter(
                struct.unpack_from(f"<{min(length, 24) // 8}Q", extra, at + 4)
            )
            size, packed, header = (
                next(values, value) if value == 0xFFFFFFFF else value
                for value in (size, packed, header)
            )
            break
        at += 4 + length
    return size, packed, header


def _broken(how: str) -> CheckpointError:
    return CheckpointError(
        f"its zip archive is damaged or cut short: {how}",
        "copy or download the file again, or save it again",
    )
