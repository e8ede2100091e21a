"""Xet storage, as far as its client uploads to it: xorbs, that hold chunks, and shards,
that list the chunks of a file.

The formats are those of https://huggingface.co/docs/xet. Chunks must come uncompressed:
the client's HF_XET_XORB_COMPRESSION_POLICY is none.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.hub_server.storage import HubError

ENTRY = 48  # bytes, of every record of a shard and of its header
HAS_VERIFICATION = 1 << 31
HAS_METADATA = 1 << 30
END = b"\xff" * 32
CHUNK_HEADER = 8


@dataclass
class XetStorage:
    """What was uploaded, and how.

    Attributes:
        spoken: whether the Hub speaks Xet at all.
        xorbs: their contents, by their hashes.
        received: bytes that arrived in xorbs, those that were there already included.
    """

    spoken: bool = False
    xorbs: dict[str, list[bytes]] = field(default_factory=dict)
    received: int = 0

    def forget_settings(self) -> None:
        """As at first, but for the xorbs: a client remembers which are there."""
        self.spoken, self.received = False, 0

    def put(self, name: str, content: bytes) -> bool:
        """Keep a xorb; whether it is new."""
        self.received += len(content)
        is_new = name not in self.xorbs
        self.xorbs[name] = list(_chunks(content))
        return is_new

    def files(self, shard: bytes) -> dict[str, bytes]:
        """The files that a shard describes: sha256 → content.

        Raises:
            HubError: a chunk is not there, or a file isn't what its sha256 says.
        """
        found: dict[str, bytes] = {}
        at = ENTRY
        while shard[at : at + 32] != END:
            flags, count = struct.unpack_from("<II", shard, at + 32)
            at += ENTRY
            segments = range(at, at + count * ENTRY, ENTRY)
            content = b"".join(self._segment(shard, place) for place in segments)
            at += count * ENTRY
            if flags & HAS_VERIFICATION:
                at += count * ENTRY
            if flags & HAS_METADATA:
                digest = _hash(shard[at : at + 32])
                at += ENTRY
                if digest != hashlib.sha256(content).hexdigest():
                    raise HubError(400, "the shard's sha256 is of other bytes")
                found[digest] = content
        return found

    def _segment(self, shard: bytes, at: int) -> bytes:
        name = _hash(shard[at : at + 32])
        _, size, first, last = struct.unpack_from("<IIII", shard, at + 32)
        if name not in self.xorbs:
            raise HubError(400, f"no xorb {name}")
        content = b"".join(self.xorbs[name][first:last])
        if len(content) != size:
            raise HubError(400, "a segment of another size")
        return content


def _hash(raw: bytes) -> str:
    """The text of a hash: four numbers of 64 bits, each in hexadecimal."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def _chunks(xorb: bytes) -> Iterator[bytes]:
    """The chunks of a xorb, up to its footer.

    Raises:
        HubError: they are compressed.
    """
    at = 0
    while at < len(xorb) and xorb[at : at + 7] != b"XETBLOB":
        stored = int.from_bytes(xorb[at + 1 : at + 4], "little")
        if xorb[at + 4] != 0:
            raise HubError(400, "compressed chunks aren't understood here")
        at += CHUNK_HEADER
        yield xorb[at : at + stored]
        at += stored
