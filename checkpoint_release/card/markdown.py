"""Text that comes from elsewhere, written so that Markdown shows it and does nothing
else with it.

What a checkpoint says of itself goes into code spans, where nothing is markup. What the
author and the model's own module say is escaped. Both lose control characters, and
neither can be endless.
"""

from __future__ import annotations

import re
import unicodedata

_LONGEST = 200
# a _ between letters is no emphasis
_MARKUP = re.compile(r"([\\`*\[\]<>|&~$]|(?<![^\W_])_|_(?![^\W_]))")
_TICKS = re.compile(r"`+")


def one_line(value: object, longest: int = _LONGEST) -> str:
    """One line without control, formatting (such as right-to-left marks) and private
    characters, cut at `longest`.
    """
    # Cutting first keeps a text of gigabytes from being looked through.
    visible = "".join(
        " " if character.isspace() else character
        for character in str(value)[: 2 * longest]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    line = " ".join(visible.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def escaped(value: object, longest: int = 2000) -> str:
    """Text as text: nothing in it is emphasis, a link, a table's border or HTML
    (CommonMark 2.4).
    """
    return _MARKUP.sub(r"\\\1", one_line(value, longest))


def code(value: object) -> str:
    """A code span for a table's cell or a line; in it nothing is markup (CommonMark
    6.1, GFM 4.10).

    Floats are rounded to six digits.
    """
    line = one_line(f"{value:.6g}" if isinstance(value, float) else value)
    if not line:
        return ""
    ticks = "`" * (max((len(run) for run in _TICKS.findall(line)), default=0) + 1)
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    # A table splits at a bar even inside code, and takes the backslash away.
    return f"{ticks}{space}{line}{space}{ticks}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> str:
    """A block of code that no line of the text can end."""
    ticks = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{ticks}{language}\n{text.strip()}\n{ticks}"


def split_sections(text: str) -> dict[str, str]:
    """Markdown cut at its second-level headings: heading → what follows it; "" is what
    comes before the first.

    A heading that comes twice is one section, in the order of its first.
    """
    found: dict[str, list[str]] = {"": []}
    heading, fence = "", ""
    for line in text.splitlines():
        if opened := re.match(r" {0,3}(`{3,}|~{3,})", line):
            marks = opened.group(1)
            if not fence:
                fence = marks
            elif (
                marks[0] == fence[0]
                and len(marks) >= len(fence)
                and not line.strip(" " + marks[0])
            ):
                fence = ""
        title = re.match(r"## +(.+?)(?: +#+)? *$", line) if not fence else None
        if title:
            heading = title.group(1)
            found.setdefault(heading, [])
        else:
            found[heading].append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in found.items()}


def human_size(count: int) -> str:
    """Bytes in the decimal units that the Hub shows."""
    return (
        f"{count / 1e9:,.2f} GB"
        if count >= 1e9
        else f"{count / 1e6:,.1f} MB"
        if count >= 1e5
        else f"{count:,} bytes"
    )
