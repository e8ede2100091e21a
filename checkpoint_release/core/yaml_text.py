"""Parsing YAML that a person wrote, within bounds, into what JSON can hold.

params.yaml is read as YAML 1.2 by the library that DVC itself uses, so that both see
the same values. What that library would turn into dates, sets or bytes is refused,
because the artifacts couldn't state it; so are numbers such as 017, which YAML 1.1
reads as fifteen.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, ScalarNode
from ruamel.yaml.reader import ReaderError

from checkpoint_release.core.errors import one_line
from checkpoint_release.core.text import printable, shown

MAX_SIZE = 1 << 18  # bytes; the project's own params.yaml has six thousand
MAX_DEPTH = 50
MAX_DIGITS = 1000  # of an integer
_MAX_VALUES = 20_000  # an alias (*a) counts as all that it stands for
_MAX_CHARACTERS = 1 << 20
_MAX_MERGED = 1000  # entries of one mapping, those counted twice that come twice
_LONGEST = 400  # characters of a reason
_OF_THE_LIBRARY = (YAMLError, ArithmeticError, LookupError, TypeError, ValueError)
"""What it raises: a value that isn't of its tag, as in `!!bool x`, is a KeyError."""
_AMBIGUOUS = re.compile(r"[-+]?0[0-9_]+")


class YamlError(ValueError):
    """The text isn't YAML, or is more than is read; the message completes "it is"."""


class _Constructor(SafeConstructor):
    """Makes values of numbers that every reader understands alike, and can write."""

    def construct_yaml_int(self, node: ScalarNode) -> int:
        """The integer that the text of a node stands for.

        Raises:
            ConstructorError: it has too many digits, or begins with 0.
        """
        text = node.value
        problem = ""
        if len(text) > MAX_DIGITS:
            problem = f"found an integer of more than {MAX_DIGITS:,} digits"
        elif _AMBIGUOUS.fullmatch(text):
            problem = (
                f"found {text}, which some readers take for octal: write it without the"
                " 0 in front, or in quotes"
            )
        if problem:
            raise ConstructorError(None, None, problem, node.start_mark)
        number: int = super().construct_yaml_int(node)
        return number

    def flatten_mapping(self, node: MappingNode) -> None:
        """Put the entries that a mapping merges (<<) among its own.

        Raises:
            ConstructorError: merged twice at each of a few levels, they would be
                millions.
        """
        super().flatten_mapping(node)
        if len(node.value) > _MAX_MERGED:
            problem = f"found a mapping that merges more than {_MAX_MERGED:,} entries"
            raise ConstructorError(None, None, problem, node.start_mark)


_Constructor.add_constructor("tag:yaml.org,2002:int", _Constructor.construct_yaml_int)


def parse_yaml(content: bytes) -> Any:
    """The value of a YAML document.

    Args:
        content: of the file, in UTF-8; a byte order mark may lead it.

    Raises:
        YamlError: it isn't YAML, or is more than the bounds allow.
    """
    if len(content) > MAX_SIZE:
        raise YamlError(f"longer than {MAX_SIZE:,} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise YamlError(f"not UTF-8: {error.reason} in line {line}") from None
    # The parser in C ends the process on a file that is nested deeply enough.
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", YAMLWarning)  # such as an anchor used twice
            value = yaml.load(text)
    except RecursionError:
        raise YamlError("nested too deeply") from None
    except _OF_THE_LIBRARY as error:
        raise YamlError(f"not YAML: {_reason(error, text)}") from None
    _require_bounds(value)
    return value


def _reason(error: Exception, text: str) -> str:
    """What the library found, and in which line.

    Args:
        error: the library's.
        text: that it read.
    """
    reason = one_line(error, _LONGEST)
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        parts = [each for each in (error.context, error.problem) if each]
        reason = f"{', '.join(parts)} in line {error.problem_mark.line + 1}"
    elif isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        reason = f"found the control character {text[error.position]!a} in line {line}"
    return printable(reason, _LONGEST)


def unsuitable_values(value: Any) -> Iterator[str]:
    """Values that JSON can't hold: dates, bytes, sets, NaN, keys that aren't text.

    Args:
        value: what parse_yaml returned.

    Returns:
        A line for each: its key's path, what was found and what is allowed.
    """
    pending = [("", value)]
    while pending:
        key, item = pending.pop()
        if isinstance(item, dict):
            for name in item:
                if not isinstance(name, str):
                    yield f"{key or 'the file'}: found the key {shown(name)}: {_TEXT}"
            pending += [
                (f"{key}.{printable(name)}" if key else printable(name), each)
                for name, each in item.items()
                if isinstance(name, str)
            ]
        elif isinstance(item, list):
            pending += [(f"{key}[{i}]", each) for i, each in enumerate(item)]
        elif problem := _scalar_problem(item):
            yield f"{key}: found {shown(item)}: {problem}"


_TEXT = "expected text; put it in quotes"


def _scalar_problem(value: Any) -> str:
    """Why JSON can't hold a value that is no list and no mapping; "" where it can."""
    if value is None or isinstance(value, bool | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "expected a finite number"
    if not isinstance(value, str):
        return _TEXT
    if "\0" in value:
        return "expected text without NUL"
    if any("\ud800" <= character <= "\udfff" for character in value):
        return "expected whole characters, and it holds half of one"
    return ""


def _require_bounds(value: Any) -> None:
    """Require a nest that can be walked: an alias may stand for any number of values,
    or for what it is within.

    Raises:
        YamlError: it is deeper, or holds more, than is allowed.
    """
    values = characters = 0
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.keys()
                inner += item.values()
            elif isinstance(item, list | tuple | set):
                inner += item
            elif isinstance(item, str):
                characters += len(item)
            if values + len(inner) > _MAX_VALUES or characters > _MAX_CHARACTERS:
                raise YamlError(f"of more than {_MAX_VALUES:,} values, or of long ones")
        if not inner:
            return
        values += len(inner)
        level = inner
    raise YamlError(f"nested more than {MAX_DEPTH} deep")
