"""A pickle machine that imports nothing and calls nothing.

Python's own unpicklers differ from this one where it matters: here a global is an
`Inert` record, a call is a look into a closed table of things that can be built safely,
and whatever is not in the table stays a record.
Every opcode is charged for the memory it may take, so that a small file can't ask for a
large one. Opcodes:
https://github.com/python/cpython/blob/3.11/Lib/pickletools.py
"""

from __future__ import annotations

import re
import struct

# Python 2's names, which protocol 2 still writes
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.unsafe_globals import is_dangerous
from checkpoint_release.tensors.tensor import Tensor

# loads the codec now: reading a file must import nothing
b"-".decode("raw-unicode-escape")

MEMORY = 512 << 20  # bytes that a pickle's values may take, besides
# times its own length: a tensor is charged about 12 times what its pickle takes
GROWTH = 16
# bytes; the largest integers that real checkpoints hold are 128-bit random states
MAX_INTEGER = 256
MAX_NAME = 400  # characters in a global's dotted name
MAX_GLOBALS = 10_000  # different ones; the largest trainers save some hundreds
# keys whose hashes a file can choose to collide: tuples, and integers of more than 60
# bits
MAX_ODD_KEYS = 5000

Builder = Callable[["Unpickler", tuple[Any, ...]], Any]
"""Makes a value out of a call's arguments, or raises Unsupported."""


class Unsupported(Exception):  # noqa: N818 - never seen by a user
    """A call's arguments are not of the kind that the closed table knows: the call
    stays an Inert record.
    """


class _Stop(Exception):  # noqa: N818
    pass


class Unpickler:
    """Reads one pickle after another out of one buffer.

    Args:
        data: the bytes.
        builders: the closed table, from dotted names to what makes their values.
        persistent: makes a storage (as a one-dimensional Tensor) of a persistent id.
    """

    def __init__(
        self,
        data: memoryview,
        builders: dict[str, Builder],
        persistent: Callable[[tuple[Any, ...]], Any],
    ) -> None:
        self.data = data
        self.at = 0
        self.called: Counter[str] = Counter()
        self.mentioned: Counter[str] = Counter()
        self.dangerous: set[str] = set()
        # calls of names in the closed table that stayed records
        self.unsupported: Counter[str] = Counter()
        self._builders = builders
        self._persistent = persistent
        self._left = MEMORY + GROWTH * len(data)
        self._odd_keys = 0
        self._globals: dict[tuple[str, str], Inert] = {}

    def load(self) -> Any:
        """The value of the next pickle. Raises CheckpointError for what is not a whole
        and sane one.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        operations, costs, data = _OPERATIONS, _COSTS, self.data
        opcode = -1
        try:
            while True:
                opcode = data[self.at]
                self.at += 1
                self._left -= costs[opcode]
                if self._left < 0:
                    self._too_large()
                operations[opcode](self)
        except _Stop:
            return self.stack.pop()
        except (
            IndexError,
            KeyError,
            TypeError,
            ValueError,
            struct.error,
            OverflowError,
            MemoryError,
        ) as error:
            if isinstance(error, IndexError) and self.at >= len(data):
                self._damaged("it ends in the middle of a pickle")
            reason = str(error) if isinstance(error, ValueError) else ""
            self._damaged(
                f"opcode 0x{opcode:02x} before byte {self.at} makes no sense:"
                f" {reason or 'wrong operands'}"
            )

    def charge(self, size: int) -> None:
        """Account for `size` bytes more of memory."""
        self._left -= size
        if self._left < 0:
            self._too_large()

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        start = self.at
        if size < 0 or size > len(self.data) - start:
            self._damaged(
                f"it claims {size} bytes at byte {start}, where"
                f" {len(self.data) - start} are left"
            )
        self.at = start + size
        return self.data[start : self.at]

    def call(self, function: Any, args: Any) -> Any:
        """What stands for `function(*args)`: a value out of the closed table, or a
        record.
        """
        if not isinstance(function, Inert):
            raise TypeError
        if not isinstance(args, tuple):
            args = (args,)
        if function.args is not None:  # the pickle calls the result of a call
            return Inert(f"{function.name}()", args)
        self.charge(8 * len(args))
        self.called[function.name] += 1
        builder = self._builders.get(function.name)
        if builder is not None:
            try:
                return builder(self, args)
            except Unsupported as problem:
                self.unsupported[function.name] += 1
                return Inert(function.name, args, reason=str(problem))
        return Inert(function.name, args)

    def check_key(self, key: Any) -> None:
        """Refuse what can't be a dict's key, and keep a file from choosing keys whose
        hashes collide.
        """
        kind = type(key)
        if kind in _SAFE_KEYS or (kind is int and -(1 << 60) < key < 1 << 60):
            return
        if kind is tuple and len(key) <= 64:
            for part in key:
                if type(part) not in _SAFE_KEYS and type(part) is not int:
                    self._damaged(
                        f"a key of a dict is a tuple with a {type(part).__name__} in it"
                    )
        elif kind is not int:
            self._damaged(f"a key of a dict is a {kind.__name__}")
        self._odd_keys += 1
        if self._odd_keys > MAX_ODD_KEYS:
            self._damaged(
                f"more than {MAX_ODD_KEYS} keys of dicts are tuples or huge integers"
            )

    # Opcodes, in the order of pickletools: numbers and strings,

    def _int(self) -> None:
        text = self._line(700)
        self.stack.append(
            {b"00": False, b"01": True}.get(text)
            if text in (b"00", b"01")
            else int(text)
        )

    def _long(self) -> None:
        self.stack.append(int(self._line(700).rstrip(b"L")))

    def _long1(self) -> None:
        self._integer(self.take(1)[0])

    def _long4(self) -> None:
        self._integer(int.from_bytes(self.take(4), "little", signed=True))

    def _integer(self, size: int) -> None:
        data = self.take(size)
        if size > MAX_INTEGER:
            self._damaged(f"it holds an integer of {size} bytes")
        self.stack.append(int.from_bytes(data, "little", signed=True))

    def _string(self) -> None:
        text = self._line(1 << 20)
        if (
            len(text) < 2
            or text[0] != text[-1]
            or text[:1] not in (b"'", b'"')
            or b"\\" in text
        ):
            raise ValueError  # escapes are of protocol 0, which torch never wrote
        self.stack.append(_text_or_bytes(text[1:-1]))

    def _old_string(self, size: int) -> None:
        self.stack.append(_text_or_bytes(bytes(self.take(size))))

    def _unicode(self) -> None:
        self.stack.append(str(self._line(1 << 20), "raw-unicode-escape"))

    def _text(self, size: int) -> None:
        self.stack.append(str(self.take(size), "utf-8", "surrogatepass"))

    def _bytes(self, size: int) -> None:
        self.stack.append(bytes(self.take(size)))

    # lists, tuples, dicts and sets (lists and tuples here, in the file's order, so that
    # nothing is hashed),

    def _append(self) -> None:
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _appends(self) -> None:
        values = self._to_mark()
        self._extend(self.stack[-1], values)

    def _extend(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, Inert) and target.args is not None:
            target.items.extend(values)
        elif type(target) is list:
            target.extend(values)
        else:
            raise TypeError

    def _tuple(self, size: int) -> None:
        if size > len(self.stack):
            raise IndexError
        self.stack[len(self.stack) - size :] = [
            tuple(self.stack[len(self.stack) - size :])
        ]

    def _dict(self) -> None:
        values = self._to_mark()
        self.stack.append({})
        self._set(values)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set(self, values: list[Any]) -> None:
        target = self.stack[-1]
        entries = (
            target.entries
            if isinstance(target, Inert) and target.args is not None
            else target
        )
        if type(entries) is not dict or len(values) % 2:
            raise TypeError
        for key in values[::2]:
            self.check_key(key)
        entries.update(zip(values[::2], values[1::2], strict=True))

    # the stack and the memo,

    def _to_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def _collect(self, kind: type) -> None:
        values = self._to_mark()
        self.stack.append(kind(values))

    def _mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._to_mark()

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    # and what would be code.

    def _global(self, module: str, name: str) -> None:
        known = self._globals.get((module, name))
        if known is None:
            if len(module) + len(name) > MAX_NAME:
                self._damaged(
                    f"it names a global of {len(module) + len(name)} characters"
                )
            if len(self._globals) == MAX_GLOBALS:
                self._damaged(f"it names more than {MAX_GLOBALS} different globals")
            today = NAME_MAPPING.get((module, name)) or (
                IMPORT_MAPPING.get(module, module),
                name,
            )
            dotted = re.sub(
                r"[^\w.<>-]", lambda found: ascii(found[0])[1:-1], ".".join(today)
            )
            known = self._globals[module, name] = Inert(dotted)
            if is_dangerous(*today) or dotted != ".".join(today):
                self.dangerous.add(dotted)
        self.mentioned[known.name] += 1
        self.stack.append(known)

    def _global_of_lines(self) -> None:
        module = str(self._line(MAX_NAME), "utf-8")
        self._global(module, str(self._line(MAX_NAME), "utf-8"))

    def _stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError
        self._global(module, name)

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def _newobj_ex(self) -> None:
        keywords, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(args) is not tuple or type(keywords) is not dict:
            raise TypeError
        made = self.call(cls, args)
        if keywords and isinstance(made, Inert):
            made.entries.update(keywords)
        self.stack.append(made)

    def _obj(self) -> None:
        cls, *args = self._to_mark()
        self.stack.append(self.call(cls, tuple(args)))

    def _inst(self) -> None:
        args = tuple(self._to_mark())
        self._global_of_lines()
        self.stack[-1] = self.call(self.stack[-1], args)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            # a class or function itself is shared by all who name it
            if target.args is not None:
                target.state = state
        elif not isinstance(
            target, dict | list | tuple | Tensor | str | int | float | bytes
        ):
            raise TypeError

    def _persistent_id(self) -> None:
        pid = self.stack.pop()
        if type(pid) is not tuple:
            raise TypeError
        self.stack.append(self._persistent(pid))

    def _frame(self) -> None:
        size = self._number(8)
        if size > len(self.data) - self.at:
            self._damaged(
                f"a frame claims {size} bytes at byte {self.at}, where"
                f" {len(self.data) - self.at} are left"
            )

    def _proto(self) -> None:
        if (version := self.take(1)[0]) > 5:
            self._damaged(f"it is of pickle protocol {version}, and 5 is the newest")

    def _stop(self) -> NoReturn:
        if self.marks or not self.stack:
            raise IndexError
        raise _Stop

    def _unsupported(self) -> NoReturn:
        self._damaged(
            f"byte {self.at - 1} of the pickle, 0x{self.data[self.at - 1]:02x}, is no"
            " opcode torch writes"
        )

    def _number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def _line(self, limit: int) -> bytes:
        """The bytes up to the next newline, which is passed over."""
        size = 64
        while (
            end := (window := bytes(self.data[self.at : self.at + size])).find(b"\n")
        ) < 0:
            if len(window) < size or size > limit:
                self._damaged(f"a line at byte {self.at} has no end")
            size *= 4
        self.at += end + 1
        return window[:end]

    def _damaged(self, how: str) -> NoReturn:
        raise CheckpointError(
            f"the pickle is damaged: {how}", "copy or download the checkpoint again"
        )

    def _too_large(self) -> NoReturn:
        raise CheckpointError(
            "the pickle's values would take more than"
            f" {(MEMORY + GROWTH * len(self.data)) >> 20} MiB of memory, tensors left"
            " aside",
            "leave it alone: this is how a pickle bomb looks; if it is yours, save"
            " tensors rather than Python lists",
        )


def _text_or_bytes(data: bytes) -> str | bytes:
    """A Python 2 string: text where it can be (torch.load's own default is UTF-8), else
    bytes.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


_SAFE_KEYS = {
    str,
    bytes,
    float,
    bool,
    type(None),
    Inert,
    Tensor,
}  # hashed by a secret, by identity, or into few values

_OPERATIONS: list[Callable[[Unpickler], Any]] = [Unpickler._unsupported] * 256
# bytes charged for an opcode; the least also bounds how many there can be
_COSTS = [64] * 256

for _opcodes, _cost, _operation in (
    # numbers and strings
    (b"I", 64, Unpickler._int),
    (
        b"J",
        64,
        lambda m: m.stack.append(int.from_bytes(m.take(4), "little", signed=True)),
    ),
    (b"K", 64, lambda m: m.stack.append(m.take(1)[0])),
    (b"M", 64, lambda m: m.stack.append(m._number(2))),
    (b"L", 64, Unpickler._long),
    (b"\x8a", 64, Unpickler._long1),
    (b"\x8b", 64, Unpickler._long4),
    (b"F", 64, lambda m: m.stack.append(float(m._line(700)))),
    (b"G", 64, lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0])),
    (b"N", 64, lambda m: m.stack.append(None)),
    (b"\x88", 64, lambda m: m.stack.append(True)),
    (b"\x89", 64, lambda m: m.stack.append(False)),
    (b"S", 64, Unpickler._string),
    (b"T", 64, lambda m: m._old_string(m._number(4))),
    (b"U", 64, lambda m: m._old_string(m._number(1))),
    (b"V", 64, Unpickler._unicode),
    (b"X", 64, lambda m: m._text(m._number(4))),
    (b"\x8c", 64, lambda m: m._text(m._number(1))),
    (b"\x8d", 64, lambda m: m._text(m._number(8))),
    (b"B", 64, lambda m: m._bytes(m._number(4))),
    (b"C", 64, lambda m: m._bytes(m._number(1))),
    (b"\x8e\x96", 64, lambda m: m._bytes(m._number(8))),
    # containers
    (b"]\x8f", 128, lambda m: m.stack.append([])),
    (b"}", 256, lambda m: m.stack.append({})),
    (b")", 64, lambda m: m.stack.append(())),
    (b"a", 64, Unpickler._append),
    (b"e\x90", 64, Unpickler._appends),
    (b"l", 128, lambda m: m._collect(list)),
    (b"t\x91", 128, lambda m: m._collect(tuple)),
    (b"\x85", 128, lambda m: m._tuple(1)),
    (b"\x86", 128, lambda m: m._tuple(2)),
    (b"\x87", 128, lambda m: m._tuple(3)),
    (b"d", 256, Unpickler._dict),
    (b"s", 128, Unpickler._setitem),
    (b"u", 128, lambda m: m._set(m._to_mark())),
    # stack and memo
    (b"0", 64, Unpickler._pop),
    (b"1", 64, Unpickler._to_mark),
    (b"2", 64, lambda m: m.stack.append(m.stack[-1])),
    (b"(", 128, Unpickler._mark),
    (b"g", 64, lambda m: m._get(int(m._line(20)))),
    (b"h", 64, lambda m: m._get(m._number(1))),
    (b"j", 64, lambda m: m._get(m._number(4))),
    (b"p", 128, lambda m: m._put(int(m._line(20)))),
    (b"q", 64, lambda m: m._put(m._number(1))),
    (b"r", 128, lambda m: m._put(m._number(4))),
    (b"\x94", 128, lambda m: m._put(len(m.memo))),
    # code
    (b"c", 128, Unpickler._global_of_lines),
    (b"\x93", 128, Unpickler._stack_global),
    (b"R\x81", 512, Unpickler._reduce),
    (b"\x92", 512, Unpickler._newobj_ex),
    (b"o", 512, Unpickler._obj),
    (b"i", 512, Unpickler._inst),
    (b"b", 64, Unpickler._build),
    (b"Q", 512, Unpickler._persistent_id),
    (b"\x80", 64, Unpickler._proto),
    (b"\x95", 64, Unpickler._frame),
    (b".", 64, Unpickler._stop),
):
    for _opcode in _opcodes:
        _OPERATIONS[_opcode] = _operation
        _COSTS[_opcode] = _cost
