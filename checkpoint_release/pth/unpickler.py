"""An unpickler that imports nothing and calls nothing.

Python's own differ from this one where it matters: here a global is an `Inert` record,
a call is looked up among the builders of values that can be made safely, and whatever
has no builder stays a record. Every opcode is charged for the memory and time that it
may take before it runs, so that a small file can't ask for much of either.
Opcodes: https://github.com/python/cpython/blob/3.11/Lib/pickletools.py
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
from checkpoint_release.pth.budget import Budget
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.unsafe_globals import Verdict, judge
from checkpoint_release.tensors.tensor import Tensor

# loads the codec now: reading a file must import nothing
b"-".decode("raw-unicode-escape")

# bytes; the largest integers that real checkpoints hold are 128-bit random states
MAX_INTEGER = 256
MAX_NUMBER = 700  # characters of a number that is written as text
MAX_LINE = 1 << 20  # bytes of a text that ends with its line
MAX_NAME = 400  # characters in a global's dotted name
MAX_GLOBALS = 10_000  # different ones; the largest trainers save some hundreds
MAX_KEY_PARTS = 64  # of a tuple that is a key
MAX_NESTED_CALLS = 4  # builders that call builders; torch's own need two
NEWEST_PROTOCOL = 5
GETATTR = "builtins.getattr"
"""By which protocols below 4 name a class within a class: getattr(Outer, "Inner")."""

Builder = Callable[["Unpickler", tuple[Any, ...]], Any]
"""Makes a value out of a call's arguments, or raises Unsupported."""

# What an opcode raises whose operands make no sense.
_MALFORMED = (
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    struct.error,
    OverflowError,
)


class Unsupported(Exception):  # noqa: N818 - never seen by a user
    """A call's arguments are not what a builder expects: the call stays a record.

    Args:
        reason: why it can't be a tensor, where it was meant to be one.
    """


class _Stop(Exception):  # noqa: N818
    """The pickle has ended; raised, so that `load` needn't ask after every opcode."""


class Unpickler:
    """Reads one pickle after another out of one buffer.

    Args:
        data: the bytes.
        builders: dotted name → what makes the value of a call of it.
        persistent_load: makes a storage (as a one-dimensional Tensor) of a persistent
            id, or raises ValueError.
        budget: of the file; every opcode is charged to it. None: that of the data.

    Attributes:
        at: where the next pickle begins, in bytes.
        mentioned: dotted name of each global → how often the pickles name it.
        called: the same → how often they call it.
        unsupported: of those that have a builder → how many calls stayed records.
        uses_of_getattr: how often it came onto the stack, to be called or for anything
            else.
        verdicts: dotted name of each global → what calling it could do.
    """

    def __init__(
        self,
        data: memoryview,
        builders: dict[str, Builder],
        persistent_load: Callable[[tuple[Any, ...]], Any],
        budget: Budget | None = None,
    ) -> None:
        self.data = data
        self.at = 0
        self.called: Counter[str] = Counter()
        self.mentioned: Counter[str] = Counter()
        self.verdicts: dict[str, Verdict] = {}
        self.unsupported: Counter[str] = Counter()
        self.uses_of_getattr = 0
        self._builders = builders
        self._persistent_load = persistent_load
        self._budget = budget or Budget(len(data))
        self._nested_calls = 0
        self._globals: dict[tuple[str, str], Inert] = {}
        self._own_names: dict[str, tuple[str, str]] = {}  # dotted → module and name

    def load(self) -> Any:
        """The value of the next pickle.

        Every opcode is charged before it runs, so nothing is made beyond what is
        allowed. The stack and the memo are this pickle's own; charges and globals are
        of all pickles in the buffer.

        Returns:
            A nest of dict, list, tuple, Tensor, Inert and Python's simple types; it may
            contain itself, which `values.resolve` refuses.

        Raises:
            CheckpointError: it isn't a whole and sane one.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        operations, costs, data = _OPERATIONS, _COSTS, self.data
        budget = self._budget
        opcode = -1
        try:
            while True:
                opcode = data[self.at]
                self.at += 1
                budget.left -= costs[opcode]
                if budget.left < 0:
                    raise budget.exceeded()
                operations[opcode](self)
        except _Stop:
            return self.stack.pop()
        except _MALFORMED as error:
            self._malformed(opcode, error)

    def _malformed(self, opcode: int, error: Exception) -> NoReturn:
        """Raise the CheckpointError for an opcode that failed.

        Args:
            opcode: the byte; -1 where there is none.
            error: what it raised. A ValueError's message was written by a builder for
                people, or by Python about a number or text; other messages are of
                Python's own making, and say nothing about the file.
        """
        if isinstance(error, IndexError) and self.at >= len(self.data):
            self._damaged("it ends in the middle of a pickle")
        reason = str(error) if isinstance(error, ValueError) else ""
        self._damaged(
            f"opcode 0x{opcode:02x} before byte {self.at} makes no sense:"
            f" {reason or 'wrong operands'}"
        )

    def charge(self, size: int) -> None:
        """Account for what a value takes beyond its opcode's own charge.

        Args:
            size: in bytes.

        Raises:
            CheckpointError: the budget is spent.
        """
        self._budget.charge(size)

    def unexplained(self, name: str) -> int:
        """How many calls of a global stayed records.

        Of getattr, how often it was used for anything but a call that has a value:
        whoever is handed it, such as functools.partial, may call it in turn.

        Args:
            name: dotted, of one that has a builder.
        """
        if name != GETATTR:
            return self.unsupported[name]
        values = self.called[name] - self.unsupported[name]
        return self.uses_of_getattr - values

    def take(self, size: int) -> memoryview:
        """The next bytes of the pickle, which are passed over.

        The size is the file's claim: nothing is allocated before it is compared with
        what is left.

        Args:
            size: how many.

        Raises:
            CheckpointError: there are fewer.
        """
        start = self.at
        if size < 0 or size > len(self.data) - start:
            self._damaged(
                f"it claims {size} bytes at byte {start}, where"
                f" {len(self.data) - start} are left"
            )
        self.at = start + size
        return self.data[start : self.at]

    def call(self, function: Any, args: Any) -> Any:
        """What stands for `function(*args)`: a builder's value, or a record.

        Args:
            function: the record of a global, or of a call whose result is called.
            args: the arguments; other than a tuple is taken for the only one.

        Raises:
            TypeError: the function is something else, which could not be called.
        """
        if not isinstance(function, Inert):
            raise TypeError
        if not isinstance(args, tuple):
            args = (args,)
        if function.args is not None:  # the pickle calls the result of a call
            return Inert(self._name_of_result(function.name), args)
        self.charge(8 * len(args))
        self.called[function.name] += 1
        builder = self._builders.get(function.name)
        if builder is None:
            return Inert(function.name, args)
        try:
            return self._built(builder, args)
        except Unsupported as problem:
            self.unsupported[function.name] += 1
            return Inert(function.name, args, reason=str(problem))

    def _name_of_result(self, name: str) -> str:
        """The name of a call's result, where that is called in turn: "x.y()".

        However often it goes on like this, the name stays the same: one that grew by
        each call would take the square of the file's size.
        """
        if name.endswith("()"):
            return name
        self.charge(len(name))
        return f"{name}()"

    def _built(self, builder: Builder, args: tuple[Any, ...]) -> Any:
        """What a builder makes of a call's arguments.

        Some builders call others, as deep as the file says.

        Raises:
            Unsupported: it can't make anything, or it is called by too many others.
        """
        if self._nested_calls == MAX_NESTED_CALLS:
            raise Unsupported
        self._nested_calls += 1
        try:
            return builder(self, args)
        finally:
            self._nested_calls -= 1

    def check_key(self, key: Any, entries: int) -> None:
        """Refuse what can't be a dict's key, and charge for what is slow as one.

        Whoever writes the file can choose numbers and tuples that all lead to the same
        places of a dict's table (their hashes are known, and so is the order in which
        a dict looks for room), and then each of them has to pass all before it. Text
        and bytes are hashed by a secret, and small integers, below twice as many as
        there are entries, have a place each.

        Args:
            key: what the pickle wants to set an item under.
            entries: how many the dict has.

        Raises:
            CheckpointError: it is of another type than checkpoints have, or the budget
                is spent.
        """
        kind = type(key)
        if kind is str or kind is bytes:
            if len(key) > _LONG_KEY:  # whoever walks the dict reads it again
                self.charge(len(key))
        elif kind is int or kind is float:
            dense = kind is int and -_DENSE <= key <= _DENSE + 2 * entries
            if not dense:
                self.charge(entries // _ENTRIES_A_BYTE)
        elif kind is tuple and len(key) <= MAX_KEY_PARTS:
            self._check_parts(key)
            self.charge((1 + len(key)) * (16 + entries // _ENTRIES_A_BYTE))
        elif kind not in _SAFE_KEYS:
            self._damaged(f"a key of a dict is a {kind.__name__}")

    def _check_parts(self, key: tuple[Any, ...]) -> None:
        """Refuse a tuple whose parts aren't simple keys: tuples could nest without end.

        Raises:
            CheckpointError: a part is of another type than keys have, or the budget is
                spent.
        """
        for part in key:
            kind = type(part)
            if kind is str or kind is bytes:
                self.charge(len(part))
            elif kind not in _SAFE_KEYS:
                self._damaged(
                    f"a key of a dict is a tuple with a {kind.__name__} in it"
                )

    # Opcodes, in the order of pickletools: numbers and strings,

    def _int(self) -> None:
        """INT: a number on a line, or a boolean of protocol 1.

        Stack: … → …, number.
        """
        text = self._line(MAX_NUMBER)
        if text in (b"00", b"01"):
            self.stack.append(text == b"01")
        else:
            self.stack.append(int(text))

    def _int1(self) -> None:
        """BININT1: a number of one byte.

        Stack: … → …, number.

        Raises:
            IndexError: the pickle ends before it.
        """
        at = self.at
        self.at = at + 1
        self.stack.append(self.data[at])

    def _long(self) -> None:
        """LONG: a number on a line, with Python 2's L behind it.

        Stack: … → …, number.
        """
        self.stack.append(int(self._line(MAX_NUMBER).rstrip(b"L")))

    def _long1(self) -> None:
        """LONG1: a two's complement number of up to 255 bytes.

        Stack: … → …, number.
        """
        self._integer(self.take(1)[0])

    def _long4(self) -> None:
        """LONG4: the same of up to 2 GiB; larger ones than MAX_INTEGER are refused.

        Stack: … → …, number.
        """
        self._integer(int.from_bytes(self.take(4), "little", signed=True))

    def _integer(self, size: int) -> None:
        """Push a little-endian two's complement number of `size` bytes.

        Raises:
            CheckpointError: it is longer than MAX_INTEGER: to print such a number takes
                time that grows with the square of its length.
        """
        data = self.take(size)
        if size > MAX_INTEGER:
            self._damaged(f"it holds an integer of {size} bytes")
        self.stack.append(int.from_bytes(data, "little", signed=True))

    def _string(self) -> None:
        """STRING: a Python 2 string in quotes, on a line.

        Stack: … → …, text or bytes.

        Raises:
            ValueError: it has no quotes, or escapes in it, which would have to be
                interpreted as Python 2 did.
        """
        text = self._line(MAX_LINE)
        quoted = len(text) >= 2 and text[0] == text[-1]
        if not quoted or text[0] not in b"'\"":
            raise ValueError("a string has no quotes")
        if b"\\" in text:
            raise ValueError("a string has escapes, which torch never wrote")
        self.stack.append(self._text_or_bytes(text[1:-1]))

    def _old_string(self, size: int) -> None:
        """BINSTRING and SHORT_BINSTRING: a Python 2 string.

        Stack: … → …, text or bytes.
        """
        self.stack.append(self._text_or_bytes(self._copied(size)))

    def _unicode(self) -> None:
        """UNICODE: text on a line.

        Stack: … → …, text.
        """
        text = self._line(MAX_LINE)
        self.charge(_DECODED * len(text))
        self.stack.append(text.decode("raw-unicode-escape"))

    def _text(self, size: int) -> None:
        """BINUNICODE and its like: UTF-8, perhaps with lone surrogates.

        Python pickles text with "surrogatepass"; names of files have such surrogates.

        Stack: … → …, text.
        """
        text = self._copied(size)
        if not text.isascii():
            self.charge(_DECODED * size)
        self.stack.append(text.decode("utf-8", "surrogatepass"))

    def _bytes(self, size: int) -> None:
        """BINBYTES and its like, BYTEARRAY8 among them.

        Stack: … → …, bytes.
        """
        self.stack.append(self._copied(size))

    def _copied(self, size: int) -> bytes:
        """The next bytes of the pickle, copied.

        Charged once for the copy, and once for the text that may be made of it.

        Raises:
            CheckpointError: there are fewer, or the budget is spent.
        """
        data = self.take(size)
        self.charge(2 * size)
        return bytes(data)

    def _text_or_bytes(self, data: bytes) -> str | bytes:
        """A Python 2 string: text where it is UTF-8, torch.load's default, else bytes.

        Raises:
            CheckpointError: the budget is spent.
        """
        if not data.isascii():
            self.charge(_DECODED * len(data))
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    # lists, tuples, dicts and sets (lists and tuples here, in the file's order, so that
    # nothing is hashed),

    def _append(self) -> None:
        """APPEND: one item.

        Stack: …, list, item → …, list.
        """
        value = self.stack.pop()
        self._extend(self.stack[-1], [value])

    def _appends(self) -> None:
        """APPENDS, and ADDITEMS for sets: all items above the mark.

        Stack: …, list, mark, items → …, list.
        """
        values = self._to_mark()
        self._extend(self.stack[-1], values)

    def _extend(self, target: Any, values: list[Any]) -> None:
        """Add items to a list, or to the record of a subclass of one.

        A record without arguments is a class or function itself, shared by all who name
        it: nothing may be added to that.

        Args:
            target: what is on the stack below the items.
            values: the items.

        Raises:
            TypeError: the target is something else.
        """
        if isinstance(target, Inert) and target.args is not None:
            target.items.extend(values)
        elif type(target) is list:
            target.extend(values)
        else:
            raise TypeError

    def _tuple(self, size: int) -> None:
        """TUPLE1 to TUPLE3: of what is on top of the stack.

        Stack: …, `size` items → …, tuple.

        Raises:
            IndexError: there are fewer. A negative start would count from the other end
                of the stack.
        """
        start = len(self.stack) - size
        if start < 0:
            raise IndexError
        self.stack[start:] = [tuple(self.stack[start:])]

    def _dict(self) -> None:
        """DICT: of the keys and values above the mark.

        Stack: …, mark, keys and values → …, dict.
        """
        values = self._to_mark()
        self.stack.append({})
        self._set(values)

    def _setitem(self) -> None:
        """SETITEM: one key and its value.

        Stack: …, dict, key, value → …, dict.
        """
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set(self, values: list[Any]) -> None:
        """Set items in the dict, or the record of a subclass, on top of the stack.

        Args:
            values: keys and values in turn.

        Raises:
            TypeError: something else is there, or a value is missing.
        """
        entries = self.stack[-1]
        if isinstance(entries, Inert) and entries.args is not None:
            entries = entries.entries
        if type(entries) is not dict:
            raise TypeError
        if len(values) % 2:
            raise TypeError
        count = len(entries)
        self.charge(_ITEM * len(values) // 2)
        for number, key in enumerate(values[::2]):
            self.check_key(key, count + number)
        entries.update(zip(values[::2], values[1::2], strict=True))

    # the stack and the memo,

    def _to_mark(self) -> list[Any]:
        """POP_MARK, and the first step of other opcodes: all above the last mark.

        A mark keeps the stack below it aside (`_mark`), so no opcode can reach below a
        mark by mistake.

        Stack: …, mark, values → ….

        Returns:
            The values, in the order in which they were pushed.
        """
        values, self.stack = self.stack, self.marks.pop()
        return values

    def _collect(self, kind: type) -> None:
        """LIST, TUPLE and FROZENSET: of what is above the mark.

        Stack: …, mark, items → …, container.
        """
        values = self._to_mark()
        self.stack.append(kind(values))

    def _mark(self) -> None:
        """MARK: what follows belongs together.

        Stack: … → …, mark.
        """
        self.marks.append(self.stack)
        self.stack = []

    def _pop(self) -> None:
        """POP: the last value goes, or an empty mark.

        Stack: …, value → ….
        """
        if self.stack:
            self.stack.pop()
        else:
            self._to_mark()

    def _get(self, index: int) -> None:
        """GET and its like: a value that was memorized.

        Stack: … → …, value.
        """
        self._push_again(self.memo[index])

    def _get1(self) -> None:
        """BINGET: a value that was memorized under a number of one byte.

        Stack: … → …, value.

        Raises:
            IndexError: the pickle ends before the number.
        """
        at = self.at
        self.at = at + 1
        self._push_again(self.memo[self.data[at]])

    def _dup(self) -> None:
        """DUP: the last value once more.

        Stack: …, value → …, value, value.
        """
        self._push_again(self.stack[-1])

    def _push_again(self, value: Any) -> None:
        """Push what was pushed before."""
        if type(value) is Inert and value.name == GETATTR:
            self.uses_of_getattr += 1
        self.stack.append(value)

    def _put1(self) -> None:
        """BINPUT: memorize the last value under a number of one byte.

        Stack: …, value → …, value.

        Raises:
            IndexError: the pickle ends before the number.
        """
        at = self.at
        self.at = at + 1
        self.memo[self.data[at]] = self.stack[-1]

    def _put(self, index: int) -> None:
        """PUT and its like: memorize the last value.

        Stack: …, value → …, value.
        """
        self.memo[index] = self.stack[-1]

    # and what would be code.

    def _global(self, module: str, name: str) -> None:
        """Push the record of a global, the same for each mention.

        This is where Python's unpickler imports a module.

        Args:
            module, name: as the pickle has them; any text.
        """
        record = self._record(module, name)
        self.mentioned[record.name] += 1
        self._push_again(record)

    def _record(self, module: str, name: str) -> Inert:
        """The record of a global, the same for each mention; arguments as _global."""
        record = self._globals.get((module, name))
        if record is None:
            self.charge(_NEW_GLOBAL)
            record = self._new_global(module, name)
            self._globals[module, name] = record
        return record

    def within(self, outer: Inert, name: str) -> Inert:
        """The record of what a global has under a name, as if the pickle named it.

        Protocol 4 names it as one global with a dot in its name, which is judged alike.

        Args:
            outer: the record of a global.
            name: of one of its attributes.

        Raises:
            Unsupported: calling it could do harm.
            CheckpointError: the name is too long, or there are too many.
        """
        module, outer_name = self._own_names[outer.name]
        record = self._record(module, f"{outer_name}.{name}")
        if self.verdicts[record.name] is Verdict.DANGEROUS:
            raise Unsupported
        self.mentioned[record.name] += 1
        return record

    def _new_global(self, module: str, name: str) -> Inert:
        """A record under the name that the global has in Python 3.

        Characters that no identifier has are escaped, so that a message can't be forged
        by them; a name with such characters counts as dangerous.

        Args:
            module, name: as the pickle has them, Python 2's (`_compat_pickle`) or 3's.

        Raises:
            CheckpointError: the name is too long, or there are too many different ones:
                each of them is kept, and may be listed in a message.
        """
        length = len(module) + len(name)
        if length > MAX_NAME:
            self._damaged(f"it names a global of {length} characters")
        if len(self._globals) == MAX_GLOBALS:
            self._damaged(f"it names more than {MAX_GLOBALS} different globals")
        renamed = NAME_MAPPING.get((module, name))
        if renamed is None:
            renamed = IMPORT_MAPPING.get(module, module), name
        dotted = ".".join(renamed)
        escaped = _ODD_CHARACTER.sub(_escaped, dotted)
        verdict = judge(*renamed)
        if escaped != dotted:
            verdict = Verdict.DANGEROUS
        self.verdicts[escaped] = verdict
        self._own_names[escaped] = renamed
        return Inert(escaped)

    def _global_of_lines(self) -> None:
        """GLOBAL: module and name on two lines.

        Stack: … → …, record.
        """
        module = str(self._line(MAX_NAME), "utf-8")
        self._global(module, str(self._line(MAX_NAME), "utf-8"))

    def _stack_global(self) -> None:
        """STACK_GLOBAL: a global by module and name.

        Stack: …, module, name → …, record.

        Raises:
            TypeError: one of them isn't text.
        """
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError
        self._global(module, name)

    def _reduce(self) -> None:
        """REDUCE and NEWOBJ: a call with a tuple of arguments.

        Stack: …, function, arguments → …, value or record.
        """
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def _newobj_ex(self) -> None:
        """NEWOBJ_EX: a call with keyword arguments as well.

        No builder takes keywords. A record keeps them as its entries, where whoever
        looks at it finds them. They aren't copied: a thousand calls can share a dict.

        Stack: …, class, arguments, keywords → …, value or record.

        Raises:
            TypeError: arguments or keywords are of another type.
        """
        keywords, args, cls = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if type(args) is not tuple or type(keywords) is not dict:
            raise TypeError
        result = self.call(cls, args)
        if keywords and isinstance(result, Inert):
            result.entries = keywords
        self.stack.append(result)

    def _obj(self) -> None:
        """OBJ: a class and its arguments, as Python 2 wrote them.

        Stack: …, mark, class, arguments → …, value or record.
        """
        cls, *args = self._to_mark()
        self.stack.append(self.call(cls, tuple(args)))

    def _inst(self) -> None:
        """INST: a class on two lines, its arguments above the mark.

        Stack: …, mark, arguments → …, value or record.
        """
        args = tuple(self._to_mark())
        self._global_of_lines()
        self.stack[-1] = self.call(self.stack[-1], args)

    def _build(self) -> None:
        """BUILD: set the state of what is on the stack.

        Stack: …, target, state → …, target.

        A class or function itself is shared by all who name it, and values that were
        built need no state: of both the state is left aside.

        Raises:
            TypeError: the target is nothing that a call makes.
        """
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            if target.args is not None:
                target.state = state
            return
        if not isinstance(target, _BUILT):
            raise TypeError

    def _persistent_id(self) -> None:
        """BINPERSID: the storage that a persistent id means.

        Stack: …, id → …, storage.

        Raises:
            TypeError, ValueError: the id isn't a tuple, or none that torch writes.
            CheckpointError: the storage is missing or has another size.
        """
        pid = self.stack.pop()
        if type(pid) is not tuple:
            raise TypeError
        self.stack.append(self._persistent_load(pid))

    def _frame(self) -> None:
        """FRAME: how many bytes of the pickle follow at least.

        Python reads a frame at once; here the whole file is mapped, and the number only
        shows that a file was cut short.

        Stack: unchanged.

        Raises:
            CheckpointError: fewer bytes are left.
        """
        size = self._number(8)
        if size > len(self.data) - self.at:
            self._damaged(
                f"a frame claims {size} bytes at byte {self.at}, where"
                f" {len(self.data) - self.at} are left"
            )

    def _proto(self) -> None:
        """PROTO: the version of the pickle protocol.

        Stack: unchanged.
        """
        version = self.take(1)[0]
        if version > NEWEST_PROTOCOL:
            self._damaged(
                f"it is of pickle protocol {version}, and {NEWEST_PROTOCOL} is the"
                " newest"
            )

    def _stop(self) -> NoReturn:
        """STOP: the end of the pickle, whose value is on the stack.

        Stack: value → empty.

        Raises:
            _Stop: to `load`, which takes the value.
            IndexError: a mark is open, or there is no value.
        """
        if self.marks or not self.stack:
            raise IndexError
        raise _Stop

    def _unsupported(self) -> NoReturn:
        """Every other byte.

        Among them are opcodes that torch never writes: PERSID, EXT1 to EXT4, which
        look up a registry of the running program, and NEXT_BUFFER.
        """
        self._damaged(
            f"byte {self.at - 1} of the pickle, 0x{self.data[self.at - 1]:02x}, is no"
            " opcode torch writes"
        )

    def _number(self, size: int) -> int:
        """A little-endian unsigned number of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def _line(self, limit: int) -> bytes:
        """The bytes up to the next newline, which is passed over.

        The search begins with a few bytes and widens: most lines are short, and a
        copy of the whole rest for each line would take the square of the file's size.

        Args:
            limit: as many bytes are searched, and up to four times as many.

        Raises:
            CheckpointError: there is no newline among them.
        """
        size = 64
        while True:
            window = bytes(self.data[self.at : self.at + size])
            end = window.find(b"\n")
            if end >= 0:
                self.at += end + 1
                self.charge(end)
                return window[:end]
            if len(window) < size or size > limit:
                self._damaged(f"a line at byte {self.at} has no end")
            size *= 4

    def _damaged(self, how: str) -> NoReturn:
        """Raise CheckpointError."""
        raise CheckpointError(
            f"the pickle is damaged: {how}", "copy or download the checkpoint again"
        )


# What no dotted name of Python has; "<" and ">" are in "<locals>" and "<lambda>".
_ODD_CHARACTER = re.compile(r"[^\w.<>-]")


# bytes for each of a text's that isn't ASCII: it takes four in memory, and some more
# while it is decoded
_DECODED = 6


def _escaped(character: re.Match[str]) -> str:
    """An odd character as Python would escape it, such as "\\n" for a line's end."""
    return ascii(character[0])[1:-1]


# what keys can be, beside tuples; records and tensors are hashed by identity
_SAFE_KEYS = {str, bytes, int, float, bool, type(None), Inert, Tensor}
_LONG_KEY = 256  # characters; names of tensors have some fifty
_DENSE = 1000  # integers up to here are no danger to a dict of any size
_ENTRIES_A_BYTE = 8  # a dict passes so many of its entries in the time of one byte
# what builders and opcodes make, beside records
_BUILT = (dict, list, tuple, Tensor, str, int, float, bytes)

_PLACE = 16  # a pointer on the stack and one in a list, with the room that lists keep
_TEXT = 80
_LIST = 72 + _PLACE
_DICT = 80 + _PLACE
_TUPLE = 64 + _PLACE
_ITEM = 120  # of a dict
_MEMO = 130
_CALL = 320  # a record with its list and dict; a tensor takes 300
_NEW_GLOBAL = 2000  # judging a name takes some 40 µs

_OPERATIONS: list[Callable[[Unpickler], Any]] = [Unpickler._unsupported] * 256
# Bytes charged for an opcode: what CPython 3.11 takes for its value and its place on
# the stack or in a container, and not less than its time is worth (see budget).
_COSTS = [_PLACE] * 256

for _opcodes, _cost, _operation in (
    # numbers and strings
    (b"I", 48 + _PLACE, Unpickler._int),
    (
        b"J",
        32 + _PLACE,
        lambda m: m.stack.append(int.from_bytes(m.take(4), "little", signed=True)),
    ),
    (b"K", _PLACE, Unpickler._int1),
    (b"M", 32 + _PLACE, lambda m: m.stack.append(m._number(2))),
    (b"L", 64 + _PLACE, Unpickler._long),
    (b"\x8a", 64 + _PLACE, Unpickler._long1),
    (b"\x8b", 64 + _PLACE, Unpickler._long4),
    (b"F", 64 + _PLACE, lambda m: m.stack.append(float(m._line(MAX_NUMBER)))),
    (b"G", 24 + _PLACE, lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0])),
    (b"N", _PLACE, lambda m: m.stack.append(None)),
    (b"\x88", _PLACE, lambda m: m.stack.append(True)),
    (b"\x89", _PLACE, lambda m: m.stack.append(False)),
    (b"S", _TEXT, Unpickler._string),
    (b"T", _TEXT, lambda m: m._old_string(m._number(4))),
    (b"U", _TEXT, lambda m: m._old_string(m._number(1))),
    (b"V", _TEXT, Unpickler._unicode),
    (b"X", _TEXT, lambda m: m._text(m._number(4))),
    (b"\x8c", _TEXT, lambda m: m._text(m._number(1))),
    (b"\x8d", _TEXT, lambda m: m._text(m._number(8))),
    (b"B", _TEXT, lambda m: m._bytes(m._number(4))),
    (b"C", _TEXT, lambda m: m._bytes(m._number(1))),
    (b"\x8e\x96", _TEXT, lambda m: m._bytes(m._number(8))),
    # containers
    (b"]\x8f", _LIST, lambda m: m.stack.append([])),
    (b"}", _DICT, lambda m: m.stack.append({})),
    (b")", 3 * _PLACE, lambda m: m.stack.append(())),
    (b"a", 2 * _PLACE, Unpickler._append),
    (b"e\x90", 32, Unpickler._appends),
    (b"l", _LIST, lambda m: m._collect(list)),
    (b"t\x91", _TUPLE, lambda m: m._collect(tuple)),
    (b"\x85", _TUPLE, lambda m: m._tuple(1)),
    (b"\x86", _TUPLE, lambda m: m._tuple(2)),
    (b"\x87", _TUPLE, lambda m: m._tuple(3)),
    (b"d", _DICT, Unpickler._dict),
    (b"s", 32, Unpickler._setitem),
    (b"u", 32, lambda m: m._set(m._to_mark())),
    # stack and memo
    (b"0", _PLACE, Unpickler._pop),
    (b"1", 32, Unpickler._to_mark),
    (b"2", _PLACE, Unpickler._dup),
    (b"(", 96, Unpickler._mark),
    (b"g", 48, lambda m: m._get(int(m._line(20)))),
    (b"h", _PLACE, Unpickler._get1),
    (b"j", 2 * _PLACE, lambda m: m._get(m._number(4))),
    (b"p", _MEMO, lambda m: m._put(int(m._line(20)))),
    (b"q", _PLACE, Unpickler._put1),
    (b"r", _MEMO, lambda m: m._put(m._number(4))),
    (b"\x94", _MEMO, lambda m: m._put(len(m.memo))),
    # code
    (b"c", 128, Unpickler._global_of_lines),
    (b"\x93", 48, Unpickler._stack_global),
    (b"R\x81", _CALL, Unpickler._reduce),
    (b"\x92", _CALL, Unpickler._newobj_ex),
    (b"o", _CALL, Unpickler._obj),
    (b"i", _CALL, Unpickler._inst),
    (b"b", 32, Unpickler._build),
    (b"Q", _CALL, Unpickler._persistent_id),
    (b"\x80", _PLACE, Unpickler._proto),
    (b"\x95", 32, Unpickler._frame),
    (b".", _PLACE, Unpickler._stop),
):
    for _opcode in _opcodes:
        _OPERATIONS[_opcode] = _operation
        _COSTS[_opcode] = _cost
