"""Builders of values: the only calls of a pickle that don't stay records.

Names are exact. Every builder checks its arguments and raises Unsupported when they are
not what torch, Python or numpy themselves write. None of them can reach code, and those
that copy charge the unpickler for it.
"""

from __future__ import annotations

import datetime
import re
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from checkpoint_release.pth.arrays import scalar
from checkpoint_release.pth.records import Inert
from checkpoint_release.pth.tensor_builders import TensorBuilders
from checkpoint_release.pth.unpickler import GETATTR, Builder, Unpickler, Unsupported

ALLOWED_GLOBALS = re.compile(
    r"torch\.("
    r"(cuda\.)?\w*Storage|storage\._?UntypedStorage"
    r"|Size|Tensor|device|nn\.parameter\.Parameter"
    r"|bool|bfloat16|b?complex\d+|u?int\d+|float\d+\w*"
    r"|strided|sparse_\w+|contiguous_format|channels_last\w*"
    r"|_utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|serialization\._get_layout|(_tensor|tensor)\._rebuild_from_type(_v2)?"
    r"|torch_version\.TorchVersion)"
    r"|collections\.(OrderedDict|defaultdict|Counter|deque)"
    r"|_codecs\.encode|copyreg\.__newobj__"
    r"|builtins\.(set|frozenset|list|dict|tuple|bytearray|bytes)"
    r"|builtins\.(complex|int|float|str|bool|object)"
    r"|pathlib\.(_local\.)?(Pure)?(Posix|Windows)?Path"
    r"|datetime\.(date|time|datetime|timezone|timedelta)"
)
"""The names that are not reported as left out: they came out as what they mean."""

MAX_DEVICE = 100  # characters in the kind of a device
_ATTRIBUTE = re.compile(r"(_?[A-Z]|[a-z])[A-Za-z0-9_]{0,100}")


def builders(file_size: int) -> dict[str, Builder]:
    """Dotted name → builder, for a checkpoint of `file_size` bytes."""
    return TensorBuilders(file_size).by_name() | _BUILDERS


# Containers. What a constructor would copy is handed on as it is, since nobody else
# holds it in an honest file.


def _ordered_dict(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """A dict of nothing, of a dict, or of pairs.

    The calls are OrderedDict(), OrderedDict(dict) and, as Python 2 wrote them,
    OrderedDict([[key, value], …]); of Counter and dict alike.

    Raises:
        Unsupported: the arguments are others.
    """
    match args:
        case ():
            return {}
        case (dict() as entries,):
            return entries
        case (list() as pairs,):
            unpickler.charge(120 * len(pairs))
            return _dict_of_pairs(unpickler, pairs)
    raise Unsupported


def _dict_of_pairs(unpickler: Unpickler, pairs: list[Any]) -> dict[Any, Any]:
    """A dict of the pairs, whose keys are checked.

    The opcodes that fill dicts check their keys; pairs in a list have met no check yet.

    Raises:
        Unsupported: one of them is no pair.
        CheckpointError: a key can't be one.
    """
    for pair in pairs:
        if not isinstance(pair, list | tuple):
            raise Unsupported
        if len(pair) != 2:
            raise Unsupported
    for number, (key, _) in enumerate(pairs):
        unpickler.check_key(key, number)
    return dict(pairs)


def _default_dict(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """defaultdict(factory[, entries]): a dict of the entries.

    The factory of missing values, a class or function, is left aside.
    """
    return _ordered_dict(unpickler, args[1:])


def _list(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """A list, a set or a deque, of nothing or of a list.

    The calls are list(), set(items) and deque(items[, maxlen]). A set stays a list in
    the file's order, so that nothing is hashed.

    Raises:
        Unsupported: the arguments are others, such as a text, which would be split into
            its characters.
    """
    match args:
        case () | ((), *_):
            return []
        case (list() as items, *_):
            return items
    raise Unsupported


def _tuple(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """A tuple, a frozenset or a torch.Size, of nothing, a tuple or a list.

    A frozenset stays a tuple in the file's order, so that nothing is hashed. To make a
    tuple of a list copies it, which is charged: a pickle can share the list.

    Raises:
        Unsupported: the arguments are others.
    """
    match args:
        case ():
            return ()
        case (tuple() as items,):
            return items
        case (list() as items,):
            unpickler.charge(64 + 8 * len(items))
            return tuple(items)
    raise Unsupported


def _new_object(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """copyreg.__newobj__(class, *arguments): what the class called with them gives.

    Protocols below 2 write an instance so. The class may not be __newobj__ itself: it
    would call itself as deep as the file says.
    """
    match args:
        case (Inert(name=name) as cls, *rest) if name != "copyreg.__newobj__":
            return unpickler.call(cls, tuple(rest))
    raise Unsupported


# Bytes, numbers, text.


def _encode(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """Bytes that protocol 2 writes as text: _codecs.encode(text, "latin1").

    Raises:
        Unsupported: another encoding, which would look for a codec by its name.
        ValueError: a character is beyond Latin-1.
    """
    match args:
        case (str() as text, "latin1" | "latin-1"):
            unpickler.charge(len(text))
            return text.encode("latin-1")
    raise Unsupported


def _bytes(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """bytes or bytearray, of nothing, of bytes, or of text with its encoding.

    Not of a number: bytes(number) is as many zeros, and a few bytes of a pickle would
    take all memory.

    Raises:
        Unsupported: the arguments are others.
    """
    match args:
        case ():
            return b""
        case (bytes() as data,):
            return data
        case (str(), "latin1" | "latin-1"):
            return _encode(unpickler, args)
    raise Unsupported


def _one_of(*kinds: type) -> Builder:
    """The builder that gives its single argument back.

    Args:
        kinds: the types that it may have; a subclass of str, say, is pickled as a call
            with the str.
    """

    def same(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if len(args) != 1 or type(args[0]) not in kinds:
            raise Unsupported
        return args[0]

    return same


def _complex(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """complex(real, imaginary); of a text, Python would parse it.

    Raises:
        OverflowError: an integer is beyond what a float holds.
    """
    match args:
        case (int() | float() as real, int() | float() as imaginary):
            return complex(real, imaginary)
    raise Unsupported


def _path(flavour: type[PurePosixPath] | type[PureWindowsPath]) -> Builder:
    """The builder of a path from its parts; the value is its text.

    Pure paths only join text: nothing looks at this machine's files, whatever the file
    names. Joining copies the parts, so their length is charged.

    Args:
        flavour: whose separators join the parts.
    """

    def join(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        length = 0
        for part in args:
            if type(part) is not str:
                raise Unsupported
            length += len(part)
        unpickler.charge(512 + 8 * length)
        return str(flavour(*args))

    return join


def _device(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """torch.device(kind[, index]): as text, such as "cuda:1".

    The kind is cut, because a text that is shared in a pickle would be copied here.
    """
    match args:
        case (str() as kind,):
            return kind
        case (str() as kind, int() as index):
            return f"{kind[:MAX_DEVICE]}:{index}"
    raise Unsupported


def _within(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
    """getattr(Outer, "Inner"): the record of a class within a class, or of a member of
    an Enum, as Python 3.11.0 to 3.11.3 wrote them.

    Raises:
        Unsupported: the first isn't the record of a global; or the name is private, or
            leads to harm.
    """
    match args:
        case (Inert(args=None) as outer, str() as name) if _ATTRIBUTE.fullmatch(name):
            return unpickler.within(outer, name)
    raise Unsupported


# Dates.


def _date(
    kind: type[datetime.datetime] | type[datetime.date] | type[datetime.time],
) -> Builder:
    """The builder of a date or time; the value is its text as of ISO 8601.

    Args:
        kind: the class, which Python pickles as its call with 4, 6 or 10 bytes of its
            own and perhaps a time zone.
    """

    def decode(unpickler: Unpickler, args: tuple[Any, ...]) -> Any:
        if not args:
            raise Unsupported
        packed = args[0]
        if type(packed) is not bytes:
            raise Unsupported
        if len(packed) not in (4, 6, 10):
            raise Unsupported
        zone = [_time_zone(part) for part in args[1:2]]
        try:
            return kind(packed, *zone).isoformat()  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise Unsupported from None

    return decode


def _time_zone(record: Any) -> datetime.timezone:
    """datetime.timezone(timedelta(days, seconds, microseconds)[, name]).

    Args:
        record: what a datetime has behind its bytes. Its name is left aside: a text of
            ISO 8601 has only the offset from UTC.

    Raises:
        Unsupported: it is another one, such as zoneinfo's, or out of range.
    """
    match record:
        case Inert(
            name="datetime.timezone",
            args=(Inert(name="datetime.timedelta", args=(days, seconds, micro)), *_),
        ):
            try:
                return datetime.timezone(datetime.timedelta(days, seconds, micro))
            except (TypeError, ValueError, OverflowError):
                raise Unsupported from None
    raise Unsupported


_BUILDERS: dict[str, Builder] = {
    "_codecs.encode": _encode,
    "builtins.bool": _one_of(bool),
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.dict": _ordered_dict,
    "builtins.float": _one_of(float),
    "builtins.frozenset": _tuple,
    GETATTR: _within,
    "builtins.int": _one_of(int),
    "builtins.list": _list,
    "builtins.set": _list,
    "builtins.str": _one_of(str),
    "builtins.tuple": _tuple,
    "collections.Counter": _ordered_dict,
    "collections.OrderedDict": _ordered_dict,
    "collections.defaultdict": _default_dict,
    "collections.deque": _list,
    "copyreg.__newobj__": _new_object,
    "datetime.date": _date(datetime.date),
    "datetime.datetime": _date(datetime.datetime),
    "datetime.time": _date(datetime.time),
    "decimal.Decimal": _one_of(str),
    "fractions.Fraction": _one_of(str),
    "torch.Size": _tuple,
    "torch.device": _device,
    "torch.torch_version.TorchVersion": _one_of(str),
}
for _core in ("core", "_core"):
    _BUILDERS[f"numpy.{_core}.multiarray.scalar"] = scalar
for _module in ("pathlib", "pathlib._local"):
    for _name in ("Path", "PosixPath", "PurePath", "PurePosixPath"):
        _BUILDERS[f"{_module}.{_name}"] = _path(PurePosixPath)
    for _name in ("WindowsPath", "PureWindowsPath"):
        _BUILDERS[f"{_module}.{_name}"] = _path(PureWindowsPath)
