"""What the author writes comes onto the card under the headings that it has."""

from __future__ import annotations

from pathlib import Path

import msgspec

from checkpoint_release.card.author_notes import AuthorNotes, read_notes
from checkpoint_release.core.params import load_params
from tests.support.project import ROOT

CHECKPOINT_SHA256 = "a" * 64


def read(tmp_path: Path, notes: str, written_for: str | None = None) -> AuthorNotes:
    (tmp_path / "notes.md").write_text(notes)
    card = load_params(ROOT / "params.yaml").card
    params = msgspec.structs.replace(
        card, notes_dir=str(tmp_path), written_for=written_for
    )
    return read_notes(params, CHECKPOINT_SHA256)


def test_sections_of_the_same_heading_are_joined(tmp_path: Path) -> None:
    notes = read(tmp_path, "## Thanks\na\n\n## Other\nb\n## Thanks\n\nc\n")
    assert notes.extra_sections() == {"Thanks": "a\n\nc", "Other": "b"}


def test_a_standard_heading_may_be_in_any_case(tmp_path: Path) -> None:
    notes = read(tmp_path, "## OUT OF SCOPE\nhares\n## thanks\nall\n")
    assert notes.section("Out of scope") == "hares"
    assert notes.extra_sections() == {"thanks": "all"}


def test_what_stands_above_the_first_heading_leads_the_description(
    tmp_path: Path,
) -> None:
    notes = read(tmp_path, "A rabbit.\n\n## Description\nIt hops.\n")
    assert notes.section("Description") == "A rabbit.\n\nIt hops."
    assert read(tmp_path, "## Thanks\nall").section("Description") == ""


def test_blank_notes_are_no_description(tmp_path: Path) -> None:
    assert read(tmp_path, "  \n\n\t\n").section("Description") == ""


def test_of_notes_about_another_checkpoint_nothing_is_taken(tmp_path: Path) -> None:
    notes = read(tmp_path, "A rabbit.", written_for="b" * 8)
    assert not notes.applicable and not notes.sections
    assert notes.params.license is None and notes.params.authors == []
    assert read(tmp_path, "A rabbit.", written_for="a" * 8).applicable
