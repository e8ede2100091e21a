"""Patterns of paths: `*` stands for anything within one part of a path, and `{step}`
for the same, whose text is kept under that name.

The names are the placeholders of other texts in fleet.yaml, such as `step-{step}`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Formatter

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.text import shown
from checkpoint_release.fleet.spec import REMEDY


@dataclass(frozen=True)
class Pattern:
    """A path with `*` and `{name}`; without them it stands for itself."""

    text: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names that it captures.

        Raises:
            ParamsError: a brace isn't closed, or a name isn't one or comes twice.
        """
        names = tuple(name for _, name in _pieces(self.text) if name is not None)
        wrong = [name for name in names if not name.isidentifier()]
        if wrong or len(set(names)) < len(names):
            raise ParamsError(
                f"the pattern {shown(self.text)} needs names that are words, each once:"
                " {step}",
                REMEDY,
            )
        return names

    @property
    def is_plain(self) -> bool:
        """Whether it stands for one path only."""
        return not self.names and "*" not in self.text

    @property
    def fixed(self) -> str:
        """The leading parts of the path that hold no pattern; "" where none does."""
        parts = self.text.split("/")
        fixed: list[str] = []
        for part in parts[:-1]:
            if "*" in part or "{" in part:
                break
            fixed.append(part)
        return "/".join(fixed)

    @property
    def glob(self) -> str:
        """The pattern with `*` for every name."""
        pattern = ""
        for literal, name in _pieces(self.text):
            pattern += "*".join(glob.escape(part) for part in literal.split("*"))
            pattern += "" if name is None else "*"
        return pattern

    def match(self, path: str) -> dict[str, str] | None:
        """What the names stand for in a path; None where the pattern doesn't fit."""
        found = self._expression.fullmatch(path)
        return None if found is None else found.groupdict()

    def matches(self, paths: Iterable[str]) -> dict[str, dict[str, str]]:
        """The paths that fit → what the names stand for, in the order of _natural."""
        found = {}
        for path in sorted(paths, key=natural):
            values = self.match(path)
            if values is not None:
                found[path] = values
        return found

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        expression = ""
        for literal, name in _pieces(self.text):
            parts = [re.escape(part) for part in literal.split("*")]
            expression += "[^/]*".join(parts)
            if name is not None:
                expression += f"(?P<{name}>[^/]+?)"
        _ = self.names  # raises where a name can't be one
        return re.compile(expression)


def natural(text: str) -> list[tuple[int, str]]:
    """A key for sorting by which step-9 comes before step-10."""
    parts = re.split(r"([0-9]+)", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def fill(text: str, values: Mapping[str, object]) -> str:
    """A text with its placeholders replaced.

    Args:
        text: such as `step-{step}`.
        values: name → what to put in its place.

    Raises:
        ParamsError: it names something that has no value.
    """
    filled = ""
    for literal, name in _pieces(text):
        filled += literal
        if name is None:
            continue
        if name not in values:
            known = ", ".join(values) or "none"
            raise ParamsError(
                f"{shown(text)} needs {{{name}}}, and the names here are: {known}",
                "name it in the pattern of the source, as in step-{step}.pth",
            )
        filled += str(values[name])
    return filled


def placeholders(text: str) -> set[str]:
    """The names that a text holds in braces."""
    return {name for _, name in _pieces(text) if name is not None}


def _pieces(text: str) -> list[tuple[str, str | None]]:
    """The literal texts of a pattern, each with the name that follows it.

    Raises:
        ParamsError: a brace isn't closed, or holds more than a name.
    """
    try:
        parsed = list(Formatter().parse(text))
    except ValueError as error:
        raise ParamsError(f"the pattern {shown(text)}: {error}", REMEDY) from None
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ParamsError(
            f"the pattern {shown(text)} holds more than names in braces", REMEDY
        )
    return [(literal, name) for literal, name, _, _ in parsed]
