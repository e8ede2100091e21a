"""Reads mutated checkpoints while an audit hook watches: `python -m tests.support.fuzz
COUNT SEED FOLDER`.

Any number of files, each of which must give a value or a CheckpointError, in a second
of processor time and within the memory that the process has. Prints what came of them.
A crash says which seed and number to run again.
"""

from __future__ import annotations

import collections
import json
import pickle
import pickletools
import random
import resource
import signal
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from tests.support import watched
from tests.support.containers import (
    SYSTEM,
    Call,
    Name,
    Raw,
    legacy,
    pickled,
    tensor,
    zipped,
)

MEMORY = 1 << 30  # bytes of address space above what the process has when it begins
# processor time for one file of a kilobyte; thousands of times what it takes
SECONDS = 1

MODULE = Call(
    "project.Net",
    state={
        "_parameters": {"weight": tensor()},
        "_buffers": {"b": None},
        "_modules": {},
    },
)
VALUES: list[Any] = [
    {"weight": tensor(), "bias": tensor(shape=(2, 2), strides=(0, 1))},
    collections.OrderedDict(
        model={"weight": tensor()}, epoch=3, loss=0.5, name="run", big=1 << 70
    ),
    {
        "lr": Call(
            "numpy.core.multiarray.scalar",
            Call("numpy.dtype", "f8", False, True, state=(3, "<")),
            b"\0" * 8,
        )
    },
    {
        "evil": Call("os.mkdir", "/nowhere/canary"),
        "config": Call("project.Config", state={"lr": 0.1}),
        "m": MODULE,
    },
    [
        Call("collections.defaultdict", Name("builtins", "list")),
        {(1, "a"): None},
        b"bytes",
        (),
        True,
        [[]],
    ],
    {
        "p": Call(
            "torch._utils._rebuild_parameter",
            tensor(),
            True,
            Call("collections.OrderedDict"),
        )
    },
    Raw(
        b"\x8c\x01a\x94\x8c\x01b\x94\x86\x94](h\x00h\x01h\x02e\x94\x8f\x94(h\x00h\x01\x90\x87"
    ),
]
INTERESTING = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    struct.pack("<Q", 1 << 40),
]
OPCODES = [
    bytes([code])
    for code in (
        b"(.0123FIJKLMNPQRSTUVXabcdeghijlopqrstu}])"
        b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b"
        b"BC\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96\x97\x98"
    )
]


def seeds() -> list[tuple[bytes, Callable[[bytes], bytes]]]:
    """Bytes to mutate, and what makes a file of them: whole files, and pickles whose
    checksums are put right.
    """
    found: list[tuple[bytes, Callable[[bytes], bytes]]] = []
    for value in VALUES:
        storages: dict[str, bytes] | None = (
            None if b"FloatStorage" in pickled(value) else {}
        )
        found += [
            (pickled(value), zipped),
            (zipped(pickled(value)), bytes),
            (legacy(value, storages), bytes),
        ]
        found.append(
            (pickled(value), lambda data: zipped(data, method=zipfile.ZIP_DEFLATED))
        )
    for protocol in range(6):
        found.append(
            (
                pickle.dumps(
                    {"a": [1, 2.5, None, b"x", "é", {3}, frozenset("a")], **SYSTEM},
                    protocol,
                ),
                zipped,
            )
        )
    found.append(
        (zipped(pickled(VALUES[0]), extra={"archive/byteorder": b"big"}), bytes)
    )
    found.append((zipped(pickled(VALUES[0]), method=zipfile.ZIP_DEFLATED), bytes))
    return found


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One to four changes of bytes, each at a random place."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choice(CHANGES)
        change(out, rng.randrange(len(out) + 1), others, rng)
    return bytes(out)


def set_byte(out: bytearray, at: int, others: list[bytes], rng: random.Random) -> None:
    out[at : at + 1] = bytes([rng.randrange(256)])


def set_opcode(
    out: bytearray, at: int, others: list[bytes], rng: random.Random
) -> None:
    out[at : at + 1] = rng.choice(OPCODES)


def set_number(
    out: bytearray, at: int, others: list[bytes], rng: random.Random
) -> None:
    new = rng.choice(INTERESTING)
    out[at : at + len(new)] = new


def insert_opcodes(
    out: bytearray, at: int, others: list[bytes], rng: random.Random
) -> None:
    out[at:at] = rng.choice(OPCODES) * rng.choice((1, 2, 50))


def delete(out: bytearray, at: int, others: list[bytes], rng: random.Random) -> None:
    del out[at : at + rng.randrange(1, 9)]


def double(out: bytearray, at: int, others: list[bytes], rng: random.Random) -> None:
    out[at:at] = out[at : at + rng.randrange(1, 60)]


def splice(out: bytearray, at: int, others: list[bytes], rng: random.Random) -> None:
    """Put a piece of another file in the place of a piece of this one."""
    other = rng.choice(others)
    begin = rng.randrange(len(other))
    piece = other[begin : begin + rng.randrange(40)]
    out[at : at + rng.randrange(20)] = piece


def flip_or_cut(
    out: bytearray, at: int, others: list[bytes], rng: random.Random
) -> None:
    """Flip a bit; one time in five, cut the end off."""
    if rng.random() < 0.2:
        del out[at:]
    elif at < len(out):
        out[at] ^= 1 << rng.randrange(8)


CHANGES: tuple[Callable[[bytearray, int, list[bytes], random.Random], None], ...] = (
    set_byte,
    set_opcode,
    set_number,
    insert_opcodes,
    delete,
    double,
    splice,
    flip_or_cut,
)


def rearranged(data: bytes, others: list[list[bytes]], rng: random.Random) -> bytes:
    """A pickle with whole opcodes moved, doubled, dropped, or taken out of other
    pickles: it often still parses.
    """
    parts = split(data)
    for _ in range(rng.choice((1, 2, 3, 6))):
        at = rng.randrange(len(parts))
        match rng.randrange(4):
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, rng.choice(parts))
            case 2:
                begin = rng.randrange(len(other := rng.choice(others)))
                parts[at : at + rng.randrange(3)] = other[
                    begin : begin + rng.randrange(1, 6)
                ]
            case 3:
                other_at = rng.randrange(len(parts))
                parts[at], parts[other_at] = parts[other_at], parts[at]
        parts = parts or [b"N"]
    return b"".join(parts)


def split(data: bytes) -> list[bytes]:
    """A pickle's opcodes with their operands."""
    starts = [at for _, _, at in pickletools.genops(data)]
    return [
        data[at:stop] for at, stop in zip(starts, [*starts[1:], len(data)], strict=True)
    ]


def main(count: int, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    starts = seeds()
    others = [data for data, _ in starts]
    pickles = [split(data) for data, whole in starts if whole is not bytes]
    path = folder / "fuzzed.pth"
    for data, whole in starts:  # the control: unchanged, each is read
        path.write_bytes(whole(data))
        watched.ours(path)
    sys.addaudithook(watched.hook)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    came: collections.Counter[str] = collections.Counter()
    for number in range(count):
        data, whole = rng.choice(starts)
        path.unlink()  # ext4 flushes a file that is cut and written again
        if whole is not bytes and rng.random() < 0.6:
            data = rearranged(data, pickles, rng)
        else:
            data = mutated(data, others, rng)
        path.write_bytes(whole(data))
        # its signal kills: no file may take so long
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        watched.watching[:] = [str(path)]
        try:
            watched.ours(path)
            came["read"] += 1
        except CheckpointError:
            came["refused"] += 1
        except BaseException as crash:
            watched.watching.clear()
            raise RuntimeError(f"file {number} of seed {seed}: {crash!r}") from crash
        finally:
            watched.watching.clear()
            signal.setitimer(signal.ITIMER_PROF, 0)
        if watched.violations:
            raise RuntimeError(
                f"file {number} of seed {seed}: {watched.violations[:3]}"
            )
    print(json.dumps({**came, "peak": watched.peak() >> 20}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
