"""Text from elsewhere, written so that Markdown shows it and does nothing else with it.

What a checkpoint holds goes into code spans, where nothing is markup. What the author
and the model's own module state is escaped. Both lose control characters, and neither
can be of any length.
"""

from __future__ import annotations

import io
import re
import unicodedata
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

_LONGEST_LINE = 200
_LONGEST_TEXT = 2000
# a _ between letters is no emphasis
_MARKUP = re.compile(r"([\\`*\[\]<>|&~$]|(?<![^\W_])_|_(?![^\W_]))")
_BACKTICKS = re.compile(r"`+")


def one_line(value: object, longest: int = _LONGEST_LINE) -> str:
    """The value's text on one line.

    Control, formatting (such as right-to-left marks) and private characters are left
    out.

    Args:
        value: what to show.
        longest: characters at which it is cut.
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

    Args:
        value: what to show.
        longest: characters at which it is cut.

    Source: CommonMark 0.31, section 2.4.
    """
    return _MARKUP.sub(r"\\\1", one_line(value, longest))


def code(value: object) -> str:
    """A code span for a cell or a line of text; an empty value gives no span.

    Args:
        value: what to show; floats are rounded to six significant digits.

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
    """A code block that no line of the text can end.

    Args:
        text: the code.
        language: what it is written in, for highlighting; may be empty.
    """
    fence = _fence(text, shortest=3)
    return f"{fence}{language}\n{text.strip()}\n{fence}"


@dataclass(frozen=True)
class Section:
    """A second-level heading of Markdown, and the text below it.

    Attributes:
        heading: as the author wrote it, on one line; "" above the first heading.
        text: to the letter, but for blank lines around it.
    """

    heading: str
    text: str


def split_sections(text: str) -> list[Section]:
    """Cut Markdown at its second-level headings.

    Headings inside quotations and lists don't count, and neither do empty ones.

    Returns:
        What stands above the first heading, and then a section for each heading.
    """
    lines = io.StringIO(text, newline="").readlines()
    sections = []
    title, begin = "", 0
    for heading in _second_level_headings(text):
        sections.append(_section(title, lines[begin : heading.first_line]))
        title, begin = heading.title, heading.next_line
    sections.append(_section(title, lines[begin:]))
    return sections


def unclosed_block(text: str) -> int | None:
    """The line, counted from 1, of a block that would take in whatever follows it.

    A code block without its closing fence does, and HTML such as a comment or <pre>
    without its end.

    Returns:
        None: there is none.

    Source: CommonMark 0.31, sections 4.5 and 4.6.
    """
    document = SyntaxTreeNode(MarkdownIt("commonmark").parse(f"{text}\n\n# end\n"))
    last = document.children[-1]
    if last.tag == "h1" or last.map is None:
        return None
    return last.map[0] + 1


@dataclass(frozen=True)
class _Heading:
    """A heading's text, its first line, and the line that follows it."""

    title: str
    first_line: int
    next_line: int


def _second_level_headings(text: str) -> list[_Heading]:
    """The headings at the top level of the document that aren't empty, in order."""
    document = SyntaxTreeNode(MarkdownIt("commonmark").parse(text))
    headings = []
    for block in document.children:
        if block.tag != "h2" or block.map is None:
            continue
        first_line, next_line = block.map
        title = " ".join(block.children[0].content.split())
        if title:
            headings.append(_Heading(title, first_line, next_line))
    return headings


def _section(heading: str, lines: list[str]) -> Section:
    return Section(heading, "".join(lines).lstrip("\r\n").rstrip())


def _fence(text: str, shortest: int) -> str:
    """Backticks that no run of backticks in the text can close.

    Args:
        text: what will stand between them.
        shortest: how many there must be at least.
    """
    longest = max(map(len, _BACKTICKS.findall(text)), default=0)
    return "`" * max(shortest, longest + 1)
