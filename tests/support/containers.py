"""Containers for pickles of one's own making: checkpoints as torch.save writes them,
and as it never would.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


class Raw:
    """Opcodes that pickle as they are."""

    def __init__(self, opcodes: bytes) -> None:
        self.opcodes = opcodes


class Call:
    """Pickles as the call of a global: `Call("os.system", "true")` is
    `os.system("true")` to an unpickler.
    """

    def __init__(self, name: str, *args: Any, state: Any = None) -> None:
        self.name, self.args, self.state = name, args, state


class Name:
    """Pickles as a global."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


def opcodes(value: Any) -> bytes:
    """The opcodes that leave a value on the stack, protocol 4 and without a memo."""
    match value:
        case Raw():
            return value.opcodes
        case Name():
            return opcodes(value.module) + opcodes(value.name) + b"\x93"
        case Call():
            module, _, name = value.name.rpartition(".")
            state = b"" if value.state is None else opcodes(value.state) + b"b"
            return opcodes(Name(module, name)) + opcodes(value.args) + b"R" + state
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return (
                b"}("
                + b"".join(opcodes(part) for item in value.items() for part in item)
                + b"u"
            )
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case _:
            return pickle.dumps(value, 3)[2:-1]


def pickled(value: Any) -> bytes:
    """A whole pickle of a value that may hold Raw, Name and Call."""
    return b"\x80\x04" + opcodes(value) + b"."


def storage(key: str, kind: str = "FloatStorage", size: int = 4) -> Raw:
    """The persistent id of a storage."""
    return Raw(opcodes(("storage", Name("torch", kind), key, "cpu", size)) + b"Q")


def tensor(
    key: str = "0",
    shape: tuple[Any, ...] = (4,),
    strides: tuple[Any, ...] = (1,),
    **more: Any,
) -> Call:
    """The call that rebuilds a float32 tensor."""
    size, offset = more.get("size", 4), more.get("offset", 0)
    hooks = more.get("hooks", Call("collections.OrderedDict"))
    return Call(
        "torch._utils._rebuild_tensor_v2",
        storage(key, size=size),
        offset,
        shape,
        strides,
        False,
        hooks,
    )


STORAGE = struct.pack("<4f", 1, 2, 3, 4)


def zipped(
    data: bytes,
    storages: Mapping[str, bytes] | None = None,
    extra: Mapping[str, bytes] | None = None,
    method: int = 0,
) -> bytes:
    """A zip container as torch writes it, around the bytes of a pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in ({"0": STORAGE} if storages is None else storages).items():
            archive.writestr(f"archive/data/{key}", content)
        for name, content in (extra or {}).items():
            archive.writestr(name, content)
    return out.getvalue()


def legacy(
    value: Any,
    storages: Mapping[str, bytes] | None = None,
    magic: Any = LEGACY_MAGIC,
    version: Any = 1001,
    system: Any = SYSTEM,
    keys: Any = None,
    width: int = 4,
) -> bytes:
    """The container of before torch 1.6, around a value; any of its five pickles can be
    something else.
    """
    storages = {"0": STORAGE} if storages is None else storages
    pickles = [
        magic,
        version,
        system,
        value,
        sorted(storages) if keys is None else keys,
    ]
    data = b"".join(
        struct.pack("<q", len(content) // width) + content
        for _, content in sorted(storages.items())
    )
    return b"".join(map(pickled, pickles)) + data
