"""What JSON can hold of a checkpoint's values, within limits."""

from __future__ import annotations

import math
import sys
import uuid
from dataclasses import dataclass
from typing import Any

from checkpoint_release.pth.records import Inert
from checkpoint_release.tensors.joined import Joined, Same, Strung
from checkpoint_release.tensors.tensor import Tensor, TensorLike

_MAX_NESTED = 100  # containers and records within each other: Python's stack is finite
_MAX_TUPLE = 2000  # characters of a key that is a tuple
_CUT = "…"  # stands for what is beyond a limit, so that a reader sees that it was cut
_LEFT_OUT = object()  # a result of its own, since None is a value
_UNKNOWN = object()  # a meaning of its own, for the same reason
_NOT_IN_NUMPY = ("C32", "F4")  # dtypes whose elements numpy has no number for

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

    A pickle can hold half of a surrogate pair, a UTF-8 file can't: without escapes
    writing the release's files would fail on what a checkpoint's author chose.
    """
    return text.encode("utf-8", "backslashreplace").decode()


def _summary(tensor: TensorLike) -> str:
    return f"tensor {tensor.dtype} {list(tensor.shape)}"


class _Converter:
    """Converts one value, walking it recursively.

    What is shared is converted each time it is met. A small pickle can share lists
    within lists so that a walk never ends, so the number of values is counted down over
    the whole result, and text counts by its length.

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
            summarize: whether what has no form in JSON (tensors of several elements,
                bytes, complex numbers) comes as a short text; otherwise it is left out.

        Returns:
            A nest as of to_json_value; _LEFT_OUT for what is left out, _CUT for what
            is beyond the number of values.
        """
        self._left -= 1
        if self._left < 0:
            return _CUT
        match value:
            case Tensor():
                return self._tensor(value, depth, summarize)
            case Joined() | Strung() | Same():
                return _summary(value) if summarize else _LEFT_OUT
            case dict() | list() | tuple() | Inert():
                return self._nested(value, depth, summarize)
            case str():
                return self._text(value)
            case bytes() | complex() if not summarize:
                return _LEFT_OUT
            case bytes():
                return f"{len(value)} bytes"
            case complex():
                return str(value)
            case float():
                return self._float(value)
        return self._integer(value)

    def _text(self, text: str) -> Any:
        """Text within its limit, as UTF-8 can hold it.

        It counts as a value for each 64 characters: a pickle can mention one long text
        a million times, and JSON would repeat it.
        """
        self._left -= len(text) >> 6
        if len(text) > self._limits.characters:
            return _LEFT_OUT
        return escape_surrogates(text)

    def _float(self, value: float) -> float | str:
        """The number, or "nan", "inf" or "-inf": RFC 8259 has none of these."""
        if math.isfinite(value):
            return value
        return str(value)

    def _integer(self, value: int | None) -> int | str | None:
        """An integer, boolean or None; as text where other readers would round it.

        Many readers of JSON keep numbers in 64 bits (RFC 8259, section 6), and a pickle
        may hold the 128-bit state of a random generator.
        """
        if value is None:
            return None
        if value.bit_length() > self._limits.integer_bits:
            return str(value)
        return value

    def _tensor(self, tensor: Tensor, depth: int, summarize: bool) -> Any:
        """The number that a tensor holds; of several elements dtype and shape.

        Training code often saves a loss or a step as a tensor of one element, of any
        number of dimensions.

        Args:
            tensor: its bytes are read only where it has one element.
            depth: how many containers it is within.
            summarize: whether dtype and shape are given; otherwise it is left out.
        """
        summary = _summary(tensor)
        if tensor.size != 1:
            return summary if summarize else _LEFT_OUT
        if tensor.dtype in _NOT_IN_NUMPY:
            return summary
        return self.convert(tensor.numpy().reshape(-1)[0].item(), depth, True)

    def _nested(self, value: _Container | Inert, depth: int, summarize: bool) -> Any:
        """A container or record; "…" where it is within itself or nested too deeply.

        The nest as read contains itself nowhere, but what a record holds is reached
        through the record, and there it may: object.config.owner = object.

        Args:
            value: a container counts as a level of depth, a record doesn't.
            depth: how many containers it is within.
            summarize: as of convert; within a record always.
        """
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
        """A dict, list or tuple, left out where it is wider or deeper than allowed.

        Args:
            value: the container.
            depth: its own: 1 at the top.
            summarize: as of convert.
        """
        if len(value) > self._limits.items:
            return _LEFT_OUT
        if depth > self._limits.depth:
            return _LEFT_OUT
        if isinstance(value, dict):
            return self._dict(value, depth, summarize)
        return self._list(value, depth, summarize)

    def _dict(self, entries: dict[Any, Any], depth: int, summarize: bool) -> Any:
        """A dict without the items that are left out.

        Where none is left it is left out itself: an empty dict would say that the
        checkpoint's is empty.

        Args:
            entries: the dict; its keys are of any type that a pickle allows.
            depth: its own.
            summarize: as of convert.
        """
        if not entries:
            return {}
        converted: dict[str, Any] = {}
        for key, item in entries.items():
            if self._left < 0:
                break
            name = self._key(key, depth)
            value = self.convert(item, depth, summarize)
            if value is _LEFT_OUT:
                continue
            while name in converted:  # such as 1 and "1"
                name = repr(name)
            converted[name] = value
        return converted or _LEFT_OUT

    def _key(self, key: Any, depth: int) -> str:
        """A dict's key as text: an enum member as its value, others as Python's str.

        It counts by its length, as text does. Of a long tuple there is only its length:
        it may repeat a long text.
        """
        if isinstance(key, Inert):
            key = self.convert(key, depth, True)
        if isinstance(key, tuple) and _length(key) > _MAX_TUPLE:
            key = f"a tuple of {len(key)} parts"
        name = escape_surrogates(str(key))
        self._left -= len(name) >> 6
        return name

    def _list(
        self, items: list[Any] | tuple[Any, ...], depth: int, summarize: bool
    ) -> Any:
        """A list or tuple as a list; left out where one of its items is.

        Without the item those behind it would move to other places, and the place in a
        list means something: the epoch of a loss, say.

        Args:
            items: the list.
            depth: its own.
            summarize: as of convert.
        """
        converted: list[Any] = []
        for item in items:
            if self._left < 0:
                converted.append(_CUT)
                break
            value = self.convert(item, depth, summarize)
            if value is _LEFT_OUT:
                return _LEFT_OUT
            converted.append(value)
        return converted


def _length(key: tuple[Any, ...]) -> int:
    """About how many characters a tuple of simple values has as text."""
    texts = [part for part in key if isinstance(part, str | bytes)]
    return 20 * len(key) + sum(map(len, texts))


def _meaning(record: Inert) -> Any:
    """What a record stands for: a value that may hold other records.

    Of a class or function it is the name, of an instance its fields, of a subclass of
    list or dict what is in it, of an enum member and the like the only argument.

    Args:
        record: of whatever class; what isn't known by its name is judged by its parts.

    Returns:
        The record's own parts, not yet converted; where no single part is the meaning,
        class, arguments and state by these names.
    """
    if record.args is None:
        return record.name
    known = _meaning_of_known_class(record)
    if known is not _UNKNOWN:
        return known
    state = _fields(record.state)
    whole = {"class": record.name, "arguments": record.args, "state": state}
    if record.items and record.entries:  # neither is the whole content
        return whole
    if record.items:  # a subclass of list
        return record.items
    if record.entries:  # a subclass of dict
        return record.entries
    if isinstance(state, dict):
        return state
    if state is None:
        return _meaning_of_arguments(record.args, whole)
    return whole


def _meaning_of_arguments(args: tuple[Any, ...], whole: dict[str, Any]) -> Any:
    """What a call stands for whose result is given no state: its only argument.

    Args:
        args: the call's.
        whole: what stands for it where the arguments don't say.
    """
    match args:
        case ():  # an instance that has no fields
            return {}
        case (str() | int() | float() as argument,):  # an enum member, for one
            return argument
    return whole


def _meaning_of_known_class(record: Inert) -> Any:
    """What a record of a class that is known here stands for; _UNKNOWN for others.

    These pickle as calls or states whose parts mean little to a reader: a UUID's is a
    128-bit integer, omegaconf's nodes hold their values beside metadata. A pickle may
    give them any parts, so what doesn't fit is unknown too.
    """
    match record:
        case Inert(name="uuid.UUID", state={"int": int() as number}):
            if not 0 <= number < 1 << 128:  # uuid.UUID raises
                return _UNKNOWN
            return str(uuid.UUID(int=number))
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
    """A duration; _UNKNOWN where it is beyond what a float holds.

    Args:
        days, seconds, microseconds: a timedelta's; in a pickle of any size.
    """
    try:
        return days * 86400 + seconds + microseconds / 1e6
    except OverflowError:
        return _UNKNOWN


def _omegaconf_value(state: Any) -> Any:
    """What a node of omegaconf holds: its config, or its value.

    Args:
        state: a DictConfig and a ListConfig have `_content`, other nodes `_val`
            (omegaconf/basecontainer.py and nodes.py).
    """
    match state:
        case {"_content": content}:
            return content
        case {"_val": value}:
            return value
    return _UNKNOWN


def _fields(state: Any) -> Any:
    """An instance's state as the dict of its fields, where it is one.

    Of an instance with slots it is a pair: its __dict__ or None, and its slots
    (copyreg.__reduce_ex__ and object.__getstate__).

    Args:
        state: Inert.state; what the pickle would set on the instance.

    Returns:
        The fields by name; the state itself where it is something else.
    """
    if isinstance(state, tuple):
        match state:
            case (dict() as attributes, dict() as slots):
                state = attributes | slots
            case (_, dict() as slots):
                state = slots
    match state:
        case {"__dict__": dict() as fields}:  # pydantic keeps them one step down
            return fields
    return state
