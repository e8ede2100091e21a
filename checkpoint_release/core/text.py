"""Text that comes from files, made fit for a terminal.

A tensor's name or a key of a file is whatever its author wrote: it may clear the
screen, turn the direction of writing round, or hold a line that looks like one of ours.
So:

- where such text becomes part of a message, `printable` makes one visible line of it;
- where a whole message is printed, `for_terminal` escapes what was forgotten, and keeps
  the line ends, which are the message's own.
"""

from __future__ import annotations

LONGEST = 200  # characters of a text in a message; names of tensors have some fifty


def printable(text: str, longest: int = LONGEST) -> str:
    r"""A text from a file as part of a message: one line, all of it visible.

    Line ends, control characters, marks of the direction of writing, invisible
    characters and lone surrogates come as Python's escapes, such as "\x1b" and "\n"; a
    long text is cut. Applying it twice changes nothing more.

    Args:
        text: as the file has it.
        longest: how many characters of it are shown.
    """
    if len(text) > longest:
        text = f"{text[:longest]}…"
    return _escaped(text)


def shown(value: object, longest: int = LONGEST) -> str:
    """A value from a file as part of a message: its repr, as printable has it.

    Args:
        value: what JSON or YAML held.
        longest: how many characters of it are shown.
    """
    return printable(repr(value), longest)


def for_terminal(text: str) -> str:
    """A whole message as it may be printed: only its line ends stay as they are.

    Args:
        text: lines of ours, with parts that may come from files.
    """
    lines = text.split("\n")
    return "\n".join(_escaped(line) for line in lines)


def human_size(count: int) -> str:
    """A number of bytes in the decimal units that the Hub shows."""
    if count >= 1e9:
        return f"{count / 1e9:,.2f} GB"
    if count >= 1e5:
        return f"{count / 1e6:,.1f} MB"
    return f"{count:,} bytes"


def _escaped(text: str) -> str:
    """The text, with Python's escapes for what has no visible form."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in text
    )
