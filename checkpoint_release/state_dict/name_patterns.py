"""PEFT's patterns for the names of layers, which are regular expressions.

A file's own regular expression may take hours for one name. So only those of a simple
form are taken: text, ., \\d, character classes, alternatives without repetition, and at
most two repetitions, whose time grows with no more than the cube of a name's length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import shown

_MAX_PATTERNS = 1000
_MAX_LENGTH = 200  # characters of a pattern
_MAX_NAME = 300  # characters of a layer's name
_STATE_NUMBERS = "state a number for each layer's name, as PEFT writes it"
_LITERAL = re.compile(r"[\w.-]+")  # in which . is the one between the parts of a name
_TOKEN = r"(?:[\w/-]|\\[.d]|\.|\[[\w-]+\])"  # noqa: S105  no password
_SIMPLE = re.compile(rf"\^?(?:{_TOKEN}[+*]?|\((?:\?:)?{_TOKEN}+(?:\|{_TOKEN}+)*\))+\$?")


@dataclass(frozen=True)
class NamePatterns:
    """Numbers for layers, by a pattern for the layer's name.

    Attributes:
        entries: a name, or the end of one, or an expression; and the number. In the
            file's order.
    """

    entries: tuple[tuple[str | re.Pattern[str], float], ...] = ()

    @classmethod
    def of(cls, stated: Any, place: str) -> NamePatterns:
        """The patterns of a config.

        Args:
            stated: pattern → number, as JSON has it; None: there are none.
            place: for messages.

        Raises:
            CheckpointError: it isn't that, or an expression isn't of the simple form.
        """
        if not stated:
            return cls()
        if not isinstance(stated, Mapping) or len(stated) > _MAX_PATTERNS:
            raise CheckpointError(
                f"{place} holds patterns that aren't names → numbers", _STATE_NUMBERS
            )
        entries: list[tuple[str | re.Pattern[str], float]] = []
        for pattern, number in stated.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise CheckpointError(
                    f"{place} gives {shown(pattern)} the value {shown(number)}, which"
                    " is no number",
                    _STATE_NUMBERS,
                )
            literal = _LITERAL.fullmatch(pattern)
            matching = pattern if literal else _compiled(pattern, place)
            entries.append((matching, float(number)))
        return cls(tuple(entries))

    def get(self, layer: str, default: float | None) -> float | None:
        """The number of the first pattern that matches, as PEFT looks for it.

        Args:
            layer: the layer's name.
            default: what stands where none matches.
        """
        for pattern, number in self.entries:
            if isinstance(pattern, str):
                if layer == pattern or layer.endswith(f".{pattern}"):
                    return number
            elif len(layer) <= _MAX_NAME and pattern.match(layer):
                return number
        return default


def _compiled(pattern: str, place: str) -> re.Pattern[str]:
    """The expression as PEFT applies it: to the end of a layer's name.

    Raises:
        CheckpointError: it isn't of the simple form.
    """
    repeated = pattern.count("+") + pattern.count("*")
    simple = len(pattern) <= _MAX_LENGTH and repeated <= 2
    if not simple or _SIMPLE.fullmatch(pattern) is None:
        raise CheckpointError(
            f"{place} has the pattern {shown(pattern)}, which isn't a layer's name or a"
            " simple expression",
            "name the layers in it, or merge the adapter where it was trained",
        )
    return re.compile(rf"(.*\.)?({pattern})$")
