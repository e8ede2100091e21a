"""Text from elsewhere, written so that Markdown shows it and does nothing else with it.

What a checkpoint holds goes into code spans, where nothing is markup. What the author
and the model's own module state is escaped. Both lose control characters, and neither
can be of any length.
"""

from __future__ import annotations

import io
import re
import unicodedata
from itertools import pairwise

from markdown_it import MarkdownIt

_LONGEST_LINE = 200
_LONGEST_TEXT = 2000
# a _ between letters is no emphasis
_MARKUP = re.compile(r"([\\`*\[\]<>|&~$]|(?<![^\W_])_|_(?![^\W_]))")
_BACKTICKS = re.compile(r"`+")


def one_line(value: object, longest: int = _LONGEST_LINE) -> str:
    """The value's text on one line, cut at `longest` characters.

    Control, formatting (such as right-to-left marks) and private characters are left
    out.
    """
    visible = []
    # Cutting first keeps a text of gigabytes from being looked through.
    for character in str(value)[: 2 * longest]:
        if character.isspace():
            visible.append(" ")
        elif not unicodedata.category(character).startswith("C"):
            visible.append(character)
    line = " ".join("".join(visible).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def escaped(value: object, longest: int = _LONGEST_TEXT) -> str:
    """Text in which nothing is emphasis, a link, a cell's border or HTML.

    Source: CommonMark 0.31, section 2.4.
    """
    return _MARKUP.sub(r"\\\1", one_line(value, longest))


def code(value: object) -> str:
    """A code span for a cell or a line of text; floats are rounded to six digits.

    Source: CommonMark 0.31, section 6.1; GitHub Flavored Markdown 0.29, section 4.10.
    """
    line = one_line(f"{value:.6g}" if isinstance(value, float) else value)
    if not line:
        return ""
    fence = _fence(line, shortest=1)
    if "`" in (line[0], line[-1]):
        line = f" {line} "
    # A cell ends at a bar even inside code, unless a backslash stands before it.
    return f"{fence}{line}{fence}".replace("|", "\\|")


def fenced(text: str, language: str = "") -> str:
    """A code block that no line of the text can end."""
    fence = _fence(text, shortest=3)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


def split_sections(text: str) -> dict[str, str]:
    """Cut Markdown at its second-level headings.

    Headings inside quotations and lists, and empty ones, don't count. A section is the
    author's own text but for blank lines around it.

    Returns:
        Heading → the text below it, in the order of the headings; "" → the text above
        the first. Sections of the same heading are joined.
    """
    lines = io.StringIO(text, newline="").readlines()
    sections: dict[str, list[str]] = {}
    heading, begin = "", 0
    for title, first, after in _second_level_headings(text):
        sections.setdefault(heading, []).append("".join(lines[begin:first]))
        heading, begin = title, after
    sections.setdefault(heading, []).append("".join(lines[begin:]))
    return {heading: _joined(texts) for heading, texts in sections.items()}


def _second_level_headings(text: str) -> list[tuple[str, int, int]]:
    """Each heading's title, its first line, and the line after it."""
    tokens = MarkdownIt("commonmark").parse(text)
    headings = []
    for token, inline in pairwise(tokens):
        if token.type != "heading_open" or token.tag != "h2" or token.level:
            continue
        title = " ".join(inline.content.split())
        if title and token.map:
            headings.append((title, token.map[0], token.map[1]))
    return headings


def _joined(texts: list[str]) -> str:
    """Several texts, a blank line between them, without blank lines around them."""
    trimmed = [text.strip("\r\n") for text in texts]
    return "\n\n".join(text for text in trimmed if text.strip())


def _fence(text: str, shortest: int) -> str:
    """Backticks that no run of them in the text can close."""
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    return "`" * max(shortest, longest + 1)


def human_size(count: int) -> str:
    """A number of bytes in the decimal units that the Hub shows."""
    if count >= 1e9:
        return f"{count / 1e9:,.2f} GB"
    if count >= 1e5:
        return f"{count / 1e6:,.1f} MB"
    return f"{count:,} bytes"
