"""What JSON can hold of a checkpoint's values, within limits."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass
from typing import Any

from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.tensor import Tensor

_MAX_NESTED = 200  # containers and records within each other: Python's stack is finite
_CUT = "…"
_LEFT_OUT = object()
_UNKNOWN = object()

_Container = dict[Any, Any] | list[Any] | tuple[Any, ...]


@dataclass(frozen=True)
class Limits:
    """How much of a value is converted.

    What is beyond `values` comes as "…", what is beyond the others is left out: of a
    dict the item, of a list the whole list.

    Attributes:
        values: in all of the result.
        depth: levels of containers within each other; None: any number.
        items: in one container; None: any number.
        characters: in a text; None: any number.
        integer_bits: larger integers come as text; None: none does.
        summaries: whether tensors of several elements, bytes and complex numbers come
            as a short text; otherwise they are left out. Within an object they always
            do.
    """

    values: int = 100_000
    depth: int | None = None
    items: int | None = None
    characters: int | None = None
    integer_bits: int | None = None
    summaries: bool = True


UNLIMITED = Limits()


def to_json_value(value: Any, limits: Limits = UNLIMITED) -> Any:
    """What JSON can hold of a value that a checkpoint holds.

    Instances come as the dict of their fields, enum members as their values, omegaconf
    as the config it holds, classes and functions as their names, tensors of one element
    as the number, NaN and the infinities as text. What contains itself comes as "…"
    where it does.

    Returns:
        None where the whole value is left out.
    """
    converted = _Converter(limits).convert(value, 0, limits.summaries)
    return None if converted is _LEFT_OUT else converted


def escape_surrogates(text: str) -> str:
    """The text with its lone surrogates, which a pickle can hold and a file can't, as
    escapes.
    """
    return text.encode("utf-8", "backslashreplace").decode()


class _Converter:
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.values
        self._above: set[int] = set()  # ids of what the value at hand is within

    def convert(self, value: Any, depth: int, summarize: bool) -> Any:
        """The value, or _LEFT_OUT."""
        self._left -= 1
        if self._left < 0:
            return _CUT
        if isinstance(value, Tensor):
            return self._tensor(value, depth, summarize)
        if isinstance(value, bytes):
            return f"{len(value)} bytes" if summarize else _LEFT_OUT
        if isinstance(value, complex):
            return str(value) if summarize else _LEFT_OUT
        if isinstance(value, dict | list | tuple | Inert):
            return self._nested(value, depth, summarize)
        return self._scalar(value)

    def _scalar(self, value: bool | int | float | str | None) -> Any:
        limits = self._limits
        match value:
            case str():
                self._left -= len(value) >> 6
                if _exceeds(len(value), limits.characters):
                    return _LEFT_OUT
                return escape_surrogates(value)
            case float():
                return value if math.isfinite(value) else str(value)
            case bool() | None:
                return value
        return (
            str(value) if _exceeds(value.bit_length(), limits.integer_bits) else value
        )

    def _tensor(self, value: Tensor, depth: int, summarize: bool) -> Any:
        if value.size == 1 and value.dtype not in ("C32", "F4"):
            return self.convert(value.numpy().reshape(-1)[0].item(), depth, True)
        if summarize or value.size == 1:
            return f"tensor {value.dtype} {list(value.shape)}"
        return _LEFT_OUT

    def _nested(self, value: _Container | Inert, depth: int, summarize: bool) -> Any:
        if id(value) in self._above or len(self._above) > _MAX_NESTED:
            return _CUT
        self._above.add(id(value))
        try:
            if isinstance(value, Inert):
                return self.convert(_meaning(value), depth, True)
            if self._is_too_large(value, depth + 1):
                return _LEFT_OUT
            if isinstance(value, dict):
                return self._dict(value, depth + 1, summarize)
            return self._list(value, depth + 1, summarize)
        finally:
            self._above.discard(id(value))

    def _is_too_large(self, value: _Container, depth: int) -> bool:
        limits = self._limits
        return _exceeds(len(value), limits.items) or _exceeds(depth, limits.depth)

    def _dict(self, entries: dict[Any, Any], depth: int, summarize: bool) -> Any:
        converted: dict[str, Any] = {}
        for key, item in entries.items():
            name = self._key(key, depth)
            value = self.convert(item, depth, summarize)
            if value is not _LEFT_OUT:
                converted[repr(name) if name in converted else name] = value
        return converted if converted or not entries else _LEFT_OUT

    def _key(self, key: Any, depth: int) -> str:
        if isinstance(key, Inert):
            key = self.convert(key, depth, True)
        name = escape_surrogates(str(key))
        self._left -= len(name) >> 6
        return name

    def _list(
        self, items: list[Any] | tuple[Any, ...], depth: int, summarize: bool
    ) -> Any:
        converted = []
        for item in items:
            value = self.convert(item, depth, summarize)
            if value is _LEFT_OUT:
                return _LEFT_OUT
            converted.append(value)
        return converted


def _exceeds(size: int, limit: int | None) -> bool:
    return limit is not None and size > limit


def _meaning(record: Inert) -> Any:
    """What a record stands for: a value that may hold other records."""
    if record.args is None:
        return record.name
    known = _meaning_of_known_class(record)
    if known is not _UNKNOWN:
        return known
    state = _fields(record.state)
    if record.entries and not record.items:
        return record.entries
    if record.items and not record.entries:
        return record.items
    if isinstance(state, dict) and not record.items:
        return state
    if state is None and not record.args:
        return {}
    if state is None and len(record.args) == 1:
        (argument,) = record.args
        if isinstance(argument, str | int | float):
            return argument
    return {"class": record.name, "arguments": record.args, "state": state}


def _meaning_of_known_class(record: Inert) -> Any:
    """What a record of a class that everybody knows stands for, otherwise _UNKNOWN."""
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
        case Inert(state={"_content": content}) if _is_omegaconf(record):
            return content
        case Inert(state={"_val": value}) if _is_omegaconf(record):
            return value
    return _UNKNOWN


def _in_seconds(days: int, seconds: int, microseconds: int) -> Any:
    try:
        return days * 86400 + seconds + microseconds / 1e6
    except OverflowError:
        return _UNKNOWN


def _is_omegaconf(record: Inert) -> bool:
    return record.name.startswith("omegaconf.")


def _fields(state: Any) -> Any:
    """An instance's state as the dict of its fields, where it is one."""
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
        attributes, slots = state
        state = {**attributes, **slots} if isinstance(attributes, dict) else slots
    if isinstance(state, dict) and isinstance(state.get("__dict__"), dict):
        return state["__dict__"]  # pydantic keeps the fields one step down
    return state
