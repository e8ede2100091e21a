"""TorchScript's code as words, read as torch's own lexer reads it.

Where Python and torch could see different words, such as beyond ASCII or in texts with
a prefix, the code counts as unreadable. torch itself writes none of that.
https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/frontend/lexer.h
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_WORD = 1 << 20  # characters in a text or a number
# torch's parser calls itself for each of these, and overflows the stack at some ten
# thousand; what torch writes has some dozens
MAX_DEPTH = 200  # brackets
MAX_RUN = 4000  # words without a comma
MAX_BRANCHES = 1000  # of one if, or all in a file
MAX_INDENT = 1000  # blanks before a statement
_MAX_SHOWN = 40

_WORD = re.compile(
    r"""
    (?P<string>(?P<quote>'''|\"\"\"|'|\")(?:\\[\s\S]|(?!(?P=quote))[\s\S])*(?P=quote))
    |(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[jJ]?(?![\w.]))
    |(?P<name>[A-Za-z_]\w*)
    |(?P<comment>\#[^\n]*)
    |(?P<newline>\n)
    |(?P<blank>[ \t]+)
    |(?P<symbol>->|[=!<>]=|<<|>>|\*\*|//|[-+*/%=<>&|^~@]|[][(){}.,:])
    """,
    re.VERBOSE | re.ASCII,
)
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
# a character that a terminal takes for an order, in a text that may be printed
_CONTROL = re.compile(rb"[^\n\t -~]|\\(033|x1[bB])")


class UnreadableProgramError(Exception):
    """Code that isn't what torch writes; the message is a clause that says where."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word: kind is name, number, string or symbol."""

    kind: str
    text: str

    @property
    def is_name(self) -> bool:
        """Whether it is an identifier."""
        return self.kind == "name"


def statements(code: bytes) -> Iterator[list[Word]]:
    """The words of each logical line, blanks and comments left out.

    A line goes on within brackets. Where it is a statement with a block, the block's
    statements follow as lines of their own.

    Raises:
        UnreadableProgramError: something isn't what torch writes.
    """
    found = _CONTROL.search(code)
    if found:
        raise UnreadableProgramError(
            f"byte {found.start()} is {found[0]!r}, which torch doesn't write there"
        )
    line: list[Word] = []
    depth = run = branches = 0
    for word in _words(code.decode("ascii")):
        if word.kind == "newline":
            if line and depth == 0:
                yield line
                line, run = [], 0
            continue
        depth = max(0, depth + (word.text in _OPENING) - (word.text in _CLOSING))
        run = 0 if word.text == "," else run + 1
        branches += word.text == "elif"
        if depth > MAX_DEPTH or run > MAX_RUN or branches > MAX_BRANCHES:
            raise UnreadableProgramError("it is nested too deeply")
        line.append(word)
    if line:
        yield line


def _words(text: str) -> Iterator[Word]:
    """One word after another.

    Raises:
        UnreadableProgramError: a character begins no word, or a text has a prefix.
    """
    at = 0
    previous = ""
    while at < len(text):
        match = _WORD.match(text, at)
        if match is None:
            shown = text[at : at + _MAX_SHOWN]
            raise UnreadableProgramError(f"{shown!r} is no word of TorchScript")
        kind = match.lastgroup or ""
        if kind == "quote":
            kind = "string"
        if kind == "string" and previous == "name":
            raise UnreadableProgramError(f"a text has a prefix at character {at}")
        length = len(match[0])
        if length > MAX_WORD or (kind == "blank" and length > MAX_INDENT):
            raise UnreadableProgramError(f"a word has {length} characters")
        if kind not in ("blank", "comment"):
            yield Word(kind, match[0])
        previous = kind
        at = match.end()
