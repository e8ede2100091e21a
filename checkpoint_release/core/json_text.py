"""Parsing JSON that anybody may have written, within bounds.

Python's own parser takes NaN, repeated names, and any depth and length: readers would
differ in what they make of such a file, or run out of memory.
"""

from __future__ import annotations

import json
import math
from typing import Any

from checkpoint_release.core.text import printable

MAX_SIZE = 64 << 20  # bytes; an index of a million tensors takes about as much
MAX_DEPTH = 100
MAX_DIGITS = 1000  # of an integer; Python needs quadratic time to read and write them
_VALUE = 100  # bytes that a short value takes, with its place in a list or dict
_MEMORY = 64 << 20  # bytes that any file may take
_GROWTH = 4  # further bytes for each byte of the file
_SHOWN = 60  # characters of a name in a message


class JsonError(ValueError):
    """The text isn't JSON, or is more than is read; the message completes "it is"."""


def parse_json(text: bytes | str, max_size: int = MAX_SIZE) -> Any:
    """The value of a JSON text (RFC 8259), which every reader understands alike.

    Args:
        text: in UTF-8 where it is bytes.
        max_size: bytes or characters that are read at most.

    Raises:
        JsonError: it isn't JSON; it is longer, deeper or of more values than the
            bounds; it repeats a name in an object; or it holds NaN, infinity, an
            integer of more than MAX_DIGITS or half a character.
    """
    if len(text) > max_size:
        raise JsonError(f"longer than {max_size:,} bytes")
    if isinstance(text, bytes):
        text = _decoded(text)
    _require_memory(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except JsonError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise JsonError(f"not JSON: {error}") from None
    _require_bounds(value)
    return value


def _decoded(content: bytes) -> str:
    """The text of UTF-8.

    Raises:
        JsonError: it is of another encoding.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(
            f"not UTF-8, which JSON is written in: {error.reason} at byte {error.start}"
        ) from None


def _require_memory(text: str) -> None:
    """Require that the values take no more than the text's length explains.

    The text `{},` takes three bytes, and its dict twenty times as many.

    Raises:
        JsonError: they would take more.
    """
    values = sum(text.count(mark) for mark in "[{,:")
    if values * _VALUE > _MEMORY + _GROWTH * len(text):
        raise JsonError(f"of {values:,} values, more than a file of its size may hold")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    raise JsonError(
        f"not JSON that all read alike: it repeats '{printable(name, _SHOWN)}'"
    )


def _refuse_constant(name: str) -> Any:
    raise JsonError(f"not JSON: it holds {name}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"out of range: it holds {printable(text, _SHOWN)}")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JsonError(
            f"out of range: it holds an integer of {len(text):,} digits, and"
            f" {MAX_DIGITS:,} are allowed"
        )
    return int(text)


def _require_bounds(value: Any) -> None:
    """Require what can be walked by recursion, and written as UTF-8 again.

    Raises:
        JsonError: it is nested too deeply, or a text in it holds half a character.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list):
                inner += item
            elif isinstance(item, str) and not _is_unicode(item):
                raise JsonError(f"not Unicode: it holds '{printable(item, _SHOWN)}'")
        if not inner:
            return
        level = inner
    raise _too_deep()


def _too_deep() -> JsonError:
    return JsonError(f"nested more than {MAX_DEPTH} deep")


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: JSON can hold half of a surrogate pair."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)
