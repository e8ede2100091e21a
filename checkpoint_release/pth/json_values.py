"""What JSON can hold of a checkpoint's values, within limits."""

from __future__ import annotations

import math
import sys
import uuid
from dataclasses import dataclass
from typing import Any

from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.tensor import Tensor

_MAX_NESTED = 200  # containers and records within each other: Python's stack is finite
_CUT = "…"
_LEFT_OUT = object()
_UNKNOWN = object()
_NOT_IN_NUMPY = ("C32", "F4")

_Container = dict[Any, Any] | list[Any] | tuple[Any, ...]


@dataclass(frozen=True)
class Limits:
    """How much of a value is converted.

    What is beyond `values` comes as "…", what is beyond the others is left out: of a
    dict the item, of a list the whole list.

    Attributes:
        values: in all of the result.
        depth: levels of containers within each other.
        items: in one container.
        characters: in a text.
        integer_bits: larger integers come as text.
        summaries: whether tensors of several elements, bytes and complex numbers come
            as a short text; otherwise they are left out. Within an object they always
            do.
    """

    values: int = 100_000
    depth: int = sys.maxsize
    items: int = sys.maxsize
    characters: int = sys.maxsize
    integer_bits: int = sys.maxsize
    summaries: bool = True


DEFAULT_LIMITS = Limits()


def to_json_value(value: Any, limits: Limits = DEFAULT_LIMITS) -> Any:
    """What JSON can hold of a value out of a checkpoint.

    Instances come as the dict of their fields, enum members as their values, omegaconf
    as the config it holds, classes and functions as their names, tensors of one element
    as the number, NaN and the infinities as text. What contains itself comes as "…"
    where it does.

    Args:
        value: anything in Checkpoint.value.
        limits: how much of it is converted.

    Returns:
        A nest of dict, list, str, int, float, bool and None; None where the whole
        value is left out.
    """
    converted = _Converter(limits).convert(value, 0, limits.summaries)
    return None if converted is _LEFT_OUT else converted


def escape_surrogates(text: str) -> str:
    """The text with its lone surrogates as escapes.

    A pickle can hold half of a surrogate pair, a UTF-8 file can't.
    """
    return text.encode("utf-8", "backslashreplace").decode()


class _Converter:
    """Converts one value, walking it recursively.

    Args:
        limits: how much of it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.values
        self._above: set[int] = set()  # ids of what the value at hand is within

    def convert(self, value: Any, depth: int, summarize: bool) -> Any:
        """What JSON can hold of a value.

        Args:
            value: anything that a checkpoint holds.
            depth: how many containers it is within.
            summarize: whether what has no form in JSON comes as a short text.

        Returns:
            _LEFT_OUT for what is left out.
        """
        self._left -= 1
        if self._left < 0:
            return _CUT
        match value:
            case Tensor():
                return self._tensor(value, depth, summarize)
            case dict() | list() | tuple() | Inert():
                return self._nested(value, depth, summarize)
            case str():
                return self._text(value)
            case bytes() | complex():
                return _summary(value) if summarize else _LEFT_OUT
        return self._number(value)

    def _text(self, text: str) -> Any:
        """Text counts as a value for each 64 characters."""
        self._left -= len(text) >> 6
        if len(text) > self._limits.characters:
            return _LEFT_OUT
        return escape_surrogates(text)

    def _number(self, value: Any) -> Any:
        """A number, boolean or None."""
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if value is not None and value.bit_length() > self._limits.integer_bits:
            return str(value)
        return value

    def _tensor(self, tensor: Tensor, depth: int, summarize: bool) -> Any:
        """The number that a tensor holds; of several elements dtype and shape."""
        if tensor.size != 1 and not summarize:
            return _LEFT_OUT
        if tensor.size != 1 or tensor.dtype in _NOT_IN_NUMPY:
            return f"tensor {tensor.dtype} {list(tensor.shape)}"
        return self.convert(tensor.numpy().reshape(-1)[0].item(), depth, True)

    def _nested(self, value: _Container | Inert, depth: int, summarize: bool) -> Any:
        """A container or record; "…" where it is within itself or nested too deeply."""
        if id(value) in self._above or len(self._above) > _MAX_NESTED:
            return _CUT
        self._above.add(id(value))
        try:
            if isinstance(value, Inert):
                return self.convert(_meaning(value), depth, True)
            return self._container(value, depth + 1, summarize)
        finally:
            self._above.discard(id(value))

    def _container(self, value: _Container, depth: int, summarize: bool) -> Any:
        if len(value) > self._limits.items or depth > self._limits.depth:
            return _LEFT_OUT
        if isinstance(value, dict):
            return self._dict(value, depth, summarize)
        return self._list(value, depth, summarize)

    def _dict(self, entries: dict[Any, Any], depth: int, summarize: bool) -> Any:
        """Without the items that are left out; itself left out where none is left."""
        converted: dict[str, Any] = {}
        for key, item in entries.items():
            name = self._key(key, depth)
            value = self.convert(item, depth, summarize)
            if value is _LEFT_OUT:
                continue
            if name in converted:  # such as 1 and "1"
                name = repr(name)
            converted[name] = value
        return converted if converted or not entries else _LEFT_OUT

    def _key(self, key: Any, depth: int) -> str:
        """A dict's key as text: an enum member as its value, others as Python's str."""
        if isinstance(key, Inert):
            key = self.convert(key, depth, True)
        name = escape_surrogates(str(key))
        self._left -= len(name) >> 6
        return name

    def _list(
        self, items: list[Any] | tuple[Any, ...], depth: int, summarize: bool
    ) -> Any:
        """Left out where an item is: its place would mislead."""
        converted = []
        for item in items:
            value = self.convert(item, depth, summarize)
            if value is _LEFT_OUT:
                return _LEFT_OUT
            converted.append(value)
        return converted


def _summary(value: bytes | complex) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


def _meaning(record: Inert) -> Any:
    """What a record stands for: a value that may hold other records.

    Of a class or function it is the name, of an instance its fields, of a subclass of
    list or dict what is in it, of an enum member and the like the only argument.
    """
    if record.args is None:
        return record.name
    known = _meaning_of_known_class(record)
    if known is not _UNKNOWN:
        return known
    state = _fields(record.state)
    if record.items and record.entries:
        return _call(record, state)
    if record.items or record.entries:  # of a subclass of list or dict
        return record.items or record.entries
    if isinstance(state, dict):
        return state
    if state is None:
        return _meaning_of_arguments(record)
    return _call(record, state)


def _meaning_of_arguments(record: Inert) -> Any:
    """What a call stands for whose result is given no state: its only argument."""
    match record.args:
        case () | None:
            return {}
        case (str() | int() | float() as argument,):
            return argument
    return _call(record, None)


def _call(record: Inert, state: Any) -> dict[str, Any]:
    """The record as it is, where its meaning isn't known."""
    return {"class": record.name, "arguments": record.args, "state": state}


def _meaning_of_known_class(record: Inert) -> Any:
    """What a record of a class that is known here stands for; _UNKNOWN for others."""
    match record:
        case Inert(name="uuid.UUID", state={"int": int() as number}):
            return str(uuid.UUID(int=number)) if 0 <= number < 1 << 128 else _UNKNOWN
        case Inert(
            name="datetime.timedelta",
            args=(int() as days, int() as seconds, int() as microseconds),
        ):
            return _in_seconds(days, seconds, microseconds)
        case Inert(name="numpy.dtype", args=(str() as code, *_)):
            return code
    if record.name.startswith("omegaconf."):
        return _omegaconf_value(record.state)
    return _UNKNOWN


def _in_seconds(days: int, seconds: int, microseconds: int) -> Any:
    """A duration; _UNKNOWN where it is beyond what a float holds."""
    try:
        return days * 86400 + seconds + microseconds / 1e6
    except OverflowError:
        return _UNKNOWN


def _omegaconf_value(state: Any) -> Any:
    """What a node of omegaconf holds: its config, or its value."""
    match state:
        case {"_content": content}:
            return content
        case {"_val": value}:
            return value
    return _UNKNOWN


def _fields(state: Any) -> Any:
    """An instance's state as the dict of its fields, where it is one.

    Of an instance with slots it is a pair: its __dict__ or None, and its slots.
    """
    if isinstance(state, tuple) and len(state) == 2:
        attributes, slots = state
        if isinstance(slots, dict):
            state = attributes | slots if isinstance(attributes, dict) else slots
    match state:
        case {"__dict__": dict() as fields}:  # pydantic keeps them one step down
            return fields
    return state
