"""Text from elsewhere stays text, whatever is in it."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from checkpoint_release.card.markdown import (
    Section,
    code,
    escaped,
    fenced,
    one_line,
    split_sections,
    unclosed_block,
)

MARKDOWN = MarkdownIt("commonmark").enable("table")
# Text that likes to be markup, among text of all kinds
HOSTILE = st.lists(
    st.sampled_from(
        [*list("`*_[]()<>|\\&!#~$-:/."), "&lt;", "<b>", "](x)", "``", "\n", "\n\n", "a"]
    )
    | st.text()
)


@given(HOSTILE.map("".join))
@example("__0__")
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    shown = MARKDOWN.renderInline("x" + escaped(text) + "x")
    assert html.unescape(shown) == "x" + one_line(text, 2000) + "x"
    assert not re.search("<[a-z]", shown)


@given(HOSTILE.map("".join))
def test_a_cell_of_code_stays_one_cell(text: str) -> None:
    shown = MARKDOWN.render(f"| a | b |\n|---|---|\n| {code(text)} | end |\n")
    cells = re.findall("<td>(.*)</td>", shown)
    assert len(cells) == 2 and cells[1] == "end"
    assert html.unescape(
        cells[0].removeprefix("<code>").removesuffix("</code>")
    ) == one_line(text)


def test_unescaped_text_would_be_markup() -> None:
    assert "<em>" in MARKDOWN.renderInline(
        "*x*"
    ) and "<em>" not in MARKDOWN.renderInline(escaped("*x*"))


@pytest.mark.parametrize("text", ["a\x00b", "a\u202eb", "a\u200bb", "a\x1b[2Jb"])
def test_what_cannot_be_seen_is_taken_out(text: str) -> None:
    assert one_line(text).isprintable()


def test_a_long_text_is_cut() -> None:
    assert one_line("y" * 10**7) == "y" * 199 + "…"


@given(st.text(alphabet="`~\n ax", max_size=60))
def test_no_line_ends_a_block_of_code(text: str) -> None:
    tokens = MARKDOWN.parse(fenced(text, "bibtex"))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content.strip() == text.strip()


def test_notes_are_cut_at_their_headings_and_not_inside_code() -> None:
    notes = (
        "Before.\n\n## One #\na\n\n```sh\n## not a heading\n```\n### deeper\n##"
        " Two\n~~~\n```\n## still code\n~~~\nb\n"
    )
    assert split_sections(notes) == [
        Section("", "Before."),
        Section("One", "a\n\n```sh\n## not a heading\n```\n### deeper"),
        Section("Two", "~~~\n```\n## still code\n~~~\nb"),
    ]


@pytest.mark.parametrize(
    "block",
    [
        "<!--\n## hidden\n-->",
        "<pre>\n## preformatted\n\n## too\n</pre>",
        "> ## quoted",
        "- ## an item",
        "    ## indented code",
        "##",
        "[link]: https://example.org\n\nsee [link]",
        "a line\x0c## and\u2028## and\x85## another",
        "* * *",
    ],
)
def test_what_is_no_heading_stays_in_its_section_to_the_letter(block: str) -> None:
    assert split_sections(f"## One\n\n{block}\n\n## Two\nb") == [
        Section("", ""),
        Section("One", block),
        Section("Two", "b"),
    ]


@pytest.mark.parametrize(
    "heading", ["## One", "  ## One ##", "One\n---", "##\tOne", "## One\t"]
)
def test_a_heading_may_be_written_in_all_of_markdown_s_ways(heading: str) -> None:
    assert split_sections(f"a\n\n{heading}\nb") == [
        Section("", "a"),
        Section("One", "b"),
    ]


@given(st.lists(st.sampled_from(["## {}", "{} ", "", "\t", "```", "- {}", "---"])))
def test_every_section_is_the_author_s_text_to_the_letter(lines: list[str]) -> None:
    rest = "\n".join(line.format(number) for number, line in enumerate(lines))
    for section in split_sections(rest):
        assert section.text in rest
        rest = rest[rest.index(section.text) + len(section.text) :]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("```", 1),
        ("a\n\n~~~ python\nb\n```\n", 3),
        ("````\n```\n", 1),
        ("   ```\n## b", 1),
        ("a\n\n<!-- b\n\nc", 3),
        ("<pre>\nb\n\n", 1),
        ("<script>", 1),
        ("<![CDATA[", 1),
    ],
)
def test_a_block_that_takes_in_what_follows_is_found(text: str, line: int) -> None:
    assert unclosed_block(text) == line


@pytest.mark.parametrize(
    "text",
    [
        "",
        "```\na\n```",
        "~~~\n```\n~~~~\n",
        "`````\n```\n`````",
        "- ```\n  a",
        "> ```\n> a",
        "    ```\n",
        "a ``` b",
        "<!-- a -->",
        "<div>\n\n**a**",
        "[a]: /b",
        "a\n===",
    ],
)
def test_a_block_that_ends_is_no_fault(text: str) -> None:
    assert unclosed_block(text) is None
