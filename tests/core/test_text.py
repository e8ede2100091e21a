"""What files say reaches a terminal as visible text, and forges no lines."""

from __future__ import annotations

import pytest

from checkpoint_release.core.errors import CheckpointReleaseError, first_few
from checkpoint_release.core.text import for_terminal, human_size, printable

HOSTILE = {
    "clears the screen": ("\x1b[2J", r"\x1b[2J"),
    "forges a line": ("weight\nok  files", r"weight\nok  files"),
    "goes back to the line's begin": ("weight\rok", r"weight\rok"),
    "other line ends": ("a\x85b\u2028c\u2029d\x0be", r"a\x85b\u2028c\u2029d\x0be"),
    "turns the direction round": ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
    "is invisible": ("wei\u200bght\ufeff", r"wei\u200bght\ufeff"),
    "half a character": ("\ud800", r"\ud800"),
    "control characters of 8 bits": ("\x9b2J", r"\x9b2J"),
    "backspaces": ("evil\b\b\b\bgood", r"evil\x08\x08\x08\x08good"),
    "NUL": ("a\0b", r"a\x00b"),
    "tags beyond the first plane": ("\U000e0041", r"\U000e0041"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_invisible_or_steers_a_terminal_is_escaped(
    text: str, shown: str
) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()
    assert printable(printable(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["layers.0.weight", "größe", "权重", "😀", "a b", r"C:\models", "it's", ""],
)
def test_what_people_can_read_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert for_terminal(text) == text


def test_long_texts_are_cut_and_the_cut_is_seen() -> None:
    assert printable("x" * 1000) == "x" * 200 + "…"
    assert printable("x" * 200) == "x" * 200
    assert printable("abcdef", longest=3) == "abc…"


def test_a_whole_message_keeps_its_lines_and_nothing_else() -> None:
    message = "model.pth: two\ttensors\n  what to do: \x1b[31mrun\r\n"
    shown = "model.pth: two\\ttensors\n  what to do: \\x1b[31mrun\\r\n"
    assert for_terminal(message) == shown


def test_listed_names_are_printable() -> None:
    assert first_few(["a\nb", "\x1b[2J", "c"], 2) == r"a\nb, \x1b[2J, …"


def test_an_errors_message_is_fit_for_a_terminal() -> None:
    error = CheckpointReleaseError("\x1b[2J is no tensor", "see\tthe file")
    assert str(error) == "\\x1b[2J is no tensor\n  what to do: see\\tthe file"


def test_sizes_are_in_the_units_of_the_hub() -> None:
    assert [human_size(n) for n in (999, 839_552, 12_345_678, 5_000_000_000)] == [
        "999 bytes",
        "0.8 MB",
        "12.3 MB",
        "5.00 GB",
    ]
