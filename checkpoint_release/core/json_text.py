"""Parsing JSON that anybody may have written, within bounds.

Python's own parser takes NaN, repeated names, and any depth and length: readers would
differ in what they make of such a file, or run out of memory.
"""

from __future__ import annotations

import json
from typing import Any

MAX_SIZE = 64 << 20  # bytes; an index of a million tensors takes about as much
MAX_DEPTH = 100


class JsonError(ValueError):
    """The text isn't JSON, or is more than is read; the message completes "it is"."""


def parse_json(text: bytes | str, max_size: int = MAX_SIZE) -> Any:
    """The value of a JSON text.

    Args:
        text: in UTF-8 where it is bytes.
        max_size: bytes or characters that are read at most.

    Raises:
        JsonError: it isn't JSON, is longer or deeper than the bounds, repeats a name in
            an object, or holds NaN, infinity, a number of thousands of digits or half a
            character.
    """
    if len(text) > max_size:
        raise JsonError(f"longer than {max_size:,} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise JsonError(f"not JSON: {reason}") from None
    _require_bounds(value)
    return value


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise JsonError(f"not JSON that all read alike: it repeats {repeated[:60]!r}")
    return value


def _refuse_constant(name: str) -> Any:
    raise JsonError(f"not JSON: it holds {name}")


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
                raise JsonError(f"not Unicode: it holds {item[:60]!r}")
        if not inner:
            return
        level = inner
    raise JsonError(f"nested more than {MAX_DEPTH} deep")


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: JSON can hold half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
