"""torch's zip archives (TorchScript's .pt and torch.export's .pt2), written so that
their bytes never vary.

torch names the archive's root folder after the file, dates its entries, adds an id that
differs between machines, and keeps what only debugging needs: source paths
(`.debug_pkl`) and example inputs. Classes are named after the Python modules that they
came from, and numbered by how often the process has traced before
(`___torch_mangle_7`).

`rewrite` keeps what `torch.jit.load`, in Python and C++, and `torch.export.load` read.
Records stay uncompressed and aligned to 64 bytes, as torch writes them, so that readers
can map them.
https://github.com/pytorch/pytorch/blob/main/caffe2/serialize/inline_container.h
"""

from __future__ import annotations

import hashlib
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = "model"
_ID = ".data/serialization_id"
_ALIGNMENT = 64
_LOCAL_HEADER, _ZIP64_EXTRA = 30, 20  # bytes
_PADDING_FIELD = 0x4246  # "FB", torch's own id of the extra field that holds nothing
_CHUNK = 4 << 20

Records = dict[str, bytes]


def rewrite(
    source: Path,
    target: Path,
    *,
    drop: Callable[[str], bool] = lambda name: False,
    edit: Callable[[Records], Records] = lambda records: records,
) -> None:
    """Copy an archive to its canonical form.

    Args:
        source: what torch wrote.
        target: the new file.
        drop: says of a record's name, without the root, whether it goes.
        edit: changes the records of code and pickles, given and returned by name.
    """
    with zipfile.ZipFile(source) as archive:
        kept = {
            name: info
            for info in archive.infolist()
            if (name := info.filename.partition("/")[2]) != _ID and not drop(name)
        }
        texts = edit(
            {name: archive.read(info) for name, info in kept.items() if is_text(name)}
        )
        writer = _Writer(target)
        with writer.archive:
            for name, content in texts.items():
                writer.add(name, len(content), [content])
            for name, info in kept.items():
                if not is_text(name):
                    with archive.open(info) as record:
                        writer.add(name, info.file_size, _chunks(record))
            identity = (
                str(int(writer.digest.hexdigest(), 16) % 10**40).zfill(40).encode()
            )
            writer.add(_ID, len(identity), [identity])


def is_text(name: str) -> bool:
    """Whether a record is code, JSON or a pickle, rather than the bytes of a tensor."""
    return name.endswith((".py", ".json", ".pkl"))


class _Writer:
    """Adds records to a zip archive and digests them."""

    def __init__(self, path: Path) -> None:
        self.archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)
        self.digest = hashlib.sha256()

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        info = zipfile.ZipInfo(f"{ROOT}/{name}", (1980, 1, 1, 0, 0, 0))
        info.create_system = 0
        info.file_size = size
        large = size * 1.05 > zipfile.ZIP64_LIMIT  # zipfile's own rule
        header = (
            _LOCAL_HEADER
            + len(info.filename.encode())
            + (_ZIP64_EXTRA if large else 0)
            + 4
        )
        position = self.archive.fp.tell() if self.archive.fp else 0
        padding = -(position + header) % _ALIGNMENT
        info.extra = struct.pack("<HH", _PADDING_FIELD, padding) + b"Z" * padding
        self.digest.update(f"{name}\0{size}\0".encode())
        with self.archive.open(info, "w", force_zip64=large) as file:
            for chunk in chunks:
                file.write(chunk)
                self.digest.update(chunk)


def _chunks(record: IO[bytes]) -> Iterable[bytes]:
    while chunk := record.read(_CHUNK):
        yield chunk


# --------------------------------------------------------------------------------------
# TorchScript's classes

_PYTHON_NAME = re.compile(r"__torch__(?:\.\w+)+")
_DEFINITION = re.compile(r"^(?:class|def) (\w+)", re.MULTILINE)
_CODE = "code/__torch__.py"


def is_debugging(name: str) -> bool:
    """Whether a TorchScript record serves debugging only: source ranges with paths, and
    the inputs traced with.
    """
    return name.endswith(".debug_pkl") or name.startswith("traced_inputs")


def rename_classes(records: Records) -> Records:
    """Call classes by their own names alone, one class for each distinct text, all in
    one file.

    `__torch__.torch.nn.modules.linear.___torch_mangle_3.Linear` becomes
    `__torch__.Linear`; where two classes of one name differ, the later is `Linear_1`.
    """
    definitions = {
        f"{_module(name)}.{match.group(1)}": _Definition(
            match.group(1), text[match.start() : stop]
        )
        for name, content in records.items()
        if name.startswith("code/")
        for text in [content.decode()]
        for matches in [list(_DEFINITION.finditer(text))]
        for match, stop in zip(
            matches, [*(after.start() for after in matches[1:]), len(text)], strict=True
        )
    }
    naming = _Naming(definitions)
    for qualified in definitions:
        naming.name(qualified)
    edited = {_CODE: "".join(naming.texts).encode()}
    for name, content in records.items():
        if name.endswith(".pkl"):
            edited[name] = _rename_globals(content, naming)
        elif not name.startswith("code/"):
            edited[name] = content
    return {
        name: edited[name]
        for name in sorted(edited, key=lambda name: (name != "data.pkl", name))
    }


@dataclass(frozen=True)
class _Definition:
    name: str
    text: str


class _Naming:
    """Gives every class its new name, those it refers to first."""

    def __init__(self, definitions: dict[str, _Definition]) -> None:
        self._definitions = definitions
        self._names: dict[str, str] = {}
        self._taken: dict[str, str] = {}  # text without its own name → name
        self.texts: list[str] = []

    def name(self, qualified: str) -> str:
        """The new name, without `__torch__.`."""
        if qualified not in self._names:
            own = self._definitions[qualified]
            body = _PYTHON_NAME.sub(
                lambda match: self._refer(match.group(), qualified), own.text
            )
            body = re.sub(rf"^(class|def) {own.name}\b", r"\1 \0", body)
            if (key := f"{own.name}\0{body}") not in self._taken:
                self._taken[key] = self._free(own.name)
                self.texts.append(body.replace("\0", self._taken[key]))
            self._names[qualified] = self._taken[key]
        return self._names[qualified]

    def _refer(self, dotted: str, inside: str) -> str:
        """A name in the code: of a class or function, or of a method of one."""
        parts = dotted.split(".")
        for stop in range(len(parts), 1, -1):
            qualified = ".".join(parts[:stop])
            if qualified in self._definitions:
                new = "\0" if qualified == inside else self.name(qualified)
                return ".".join(["__torch__", new, *parts[stop:]])
        return dotted

    def _free(self, wanted: str) -> str:
        taken, number, name = set(self._taken.values()), 0, wanted
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def known(self, qualified: str) -> bool:
        """Whether the archive defines the class, rather than torch."""
        return qualified in self._definitions


def _module(file: str) -> str:
    return file.removeprefix("code/").removesuffix(".py").replace("/", ".")


def _rename_globals(pickle: bytes, naming: _Naming) -> bytes:
    """A pickle with the classes that it names renamed; nothing is unpickled."""
    pieces, at = [], 0
    for opcode, argument, position in pickletools.genops(pickle):
        if opcode.name != "GLOBAL" or position is None:
            continue
        qualified = str(argument).replace(" ", ".")
        if naming.known(qualified):
            pieces += [
                pickle[at:position],
                f"c__torch__\n{naming.name(qualified)}\n".encode(),
            ]
            at = position + len(f"c{argument}\n".encode())
    return b"".join([*pieces, pickle[at:]])
