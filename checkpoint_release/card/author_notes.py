"""What only the author can say about a model: the card options and a folder of notes.

The folder belongs to the author. Each of its files is optional, and nothing writes to
it:

    notes.md       Markdown for the card. What stands under one of STANDARD_SECTIONS
                   goes into the card's section of that name; any other second-level
                   heading becomes a section of its own.
    citation.bib   how to cite the model, in BibTeX
    metrics.json   measured results, as the list `results` of the Hub's model-index
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from huggingface_hub.repocard_data import EvalResult, model_index_to_eval_results

from checkpoint_release.card.markdown import code, split_sections, unclosed_block
from checkpoint_release.core.errors import CardError, one_line
from checkpoint_release.core.json_text import parse_json
from checkpoint_release.core.params import CardParams
from checkpoint_release.core.text import shown

NOTES_FILE = "notes.md"
CITATION_FILE = "citation.bib"
METRICS_FILE = "metrics.json"
EXPECTED_SECTIONS = ("Description", "Intended use", "Out of scope", "Training data")
"""Sections that every card should have, and only its author can write."""
STANDARD_SECTIONS = (*EXPECTED_SECTIONS, "Evaluation", "Limitations")
"""Headings of notes.md that the card has a place for."""
MAX_SIZE = 1 << 20  # bytes of a file of the author's
SHORT_DIGEST = 16  # hexadecimal digits


@dataclass(frozen=True)
class AuthorNotes:
    """What the author states about this checkpoint.

    Attributes:
        params: the card options; nothing is stated in them when they are about another
            checkpoint.
        applicable: whether the options and the folder are about this checkpoint.
        sections: heading → Markdown, from notes.md; headings of STANDARD_SECTIONS as
            they are there.
        citation: BibTeX; may be empty.
        results: what metrics.json holds.
    """

    params: CardParams
    applicable: bool = True
    sections: dict[str, str] = field(default_factory=dict)
    citation: str = ""
    results: tuple[EvalResult, ...] = ()

    def section(self, heading: str) -> str:
        """The Markdown for one of STANDARD_SECTIONS; may be empty."""
        return self.sections.get(heading, "")

    @property
    def stated_metrics(self) -> dict[str, object]:
        """Name → value of the results in metrics.json."""
        found = {}
        for result in self.results:
            found[result.metric_name or result.metric_type] = result.metric_value
        return found

    def extra_sections(self) -> dict[str, str]:
        """Heading → Markdown of the sections that the card has no place for."""
        extra = dict(self.sections)
        for heading in STANDARD_SECTIONS:
            extra.pop(heading, None)
        return extra


def read_notes(params: CardParams, checkpoint_sha256: str) -> AuthorNotes:
    """Read what the author states about a checkpoint.

    Args:
        params: the card options.
        checkpoint_sha256: of the checkpoint, in lower-case hex.

    Raises:
        CardError: the folder is missing, or one of its files can't be used.
    """
    if not checkpoint_sha256.startswith(params.written_for or ""):
        return AuthorNotes(_without_statements(params), applicable=False)
    folder = Path(params.notes_dir)
    if not folder.is_dir():
        raise CardError(
            f"{{card.notes_dir}} is {params.notes_dir!r}, and there is no such folder",
            "name a folder; it may be empty",
            options=["card.notes_dir"],
        )
    return AuthorNotes(
        params,
        sections=_read_sections(folder / NOTES_FILE),
        citation=_read_text(folder / CITATION_FILE).strip(),
        results=_read_results(folder / METRICS_FILE),
    )


def _without_statements(params: CardParams) -> CardParams:
    """The same options, but with nothing stated about a model."""
    return msgspec.structs.replace(
        params,
        title=None,
        license=None,
        license_name=None,
        license_link=None,
        authors=[],
        language=[],
        datasets=[],
        base_model=[],
        pipeline_tag=None,
        tags=[],
        evaluated_on=None,
        metadata={},
    )


def _read_sections(path: Path) -> dict[str, str]:
    """Heading → Markdown of notes.md.

    A standard heading may be written in any case, and what stands above the first
    heading belongs to the description. Sections of the same heading are joined.

    Raises:
        CardError: it isn't UTF-8, begins with front matter, or ends inside a block that
            the rest of the card would become part of.
    """
    notes = _read_text(path)
    if notes.startswith("---\n"):
        raise CardError(
            f"{path} begins with front matter, which the card has already",
            "set these keys as options under {card}",
            options=["card"],
        )
    line = unclosed_block(notes)
    if line is not None:
        raise CardError(
            f"{path}: the block that begins in line {line} is never closed, and would"
            " take in the rest of the card",
            "close it: a code block with the fence that it began with, HTML with its"
            " end",
        )
    standard = {heading.casefold(): heading for heading in STANDARD_SECTIONS}
    standard[""] = "Description"
    sections: dict[str, str] = {}
    for section in split_sections(notes):
        heading = standard.get(section.heading.casefold(), section.heading)
        joined = f"{sections.get(heading, '')}\n\n{section.text}"
        sections[heading] = joined.strip("\n")
    return sections


def _read_text(path: Path) -> str:
    """The file's text; empty if there is no such file.

    Raises:
        CardError: it isn't UTF-8, or longer than MAX_SIZE.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SIZE + 1)
    except FileNotFoundError:
        return ""
    if len(content) > MAX_SIZE:
        raise CardError(
            f"{path} is longer than {MAX_SIZE:,} bytes",
            "shorten it: the Hub shows the card as one page",
        )
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not UTF-8: {error}", "save it as UTF-8") from None


def _read_results(path: Path) -> tuple[EvalResult, ...]:
    """The results in metrics.json; none if there is no such file.

    Raises:
        CardError: it isn't JSON, or not a list of results.
    """
    if not path.exists():
        return ()
    try:
        value: Any = parse_json(_read_text(path))
        _, results = model_index_to_eval_results([{"name": "", "results": value}])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CardError(
            f"{path} is not a list of results: {type(error).__name__}:"
            f" {one_line(error)}",
            'write a list of {"task": {"type"}, "dataset": {"type", "name"}, "metrics":'
            ' [{"type", "value"}]}, as in the results of the Hub\'s model-index',
        ) from None
    for result in results:
        _require_number_or_text(result, path)
    return tuple(results)


def _require_number_or_text(result: EvalResult, path: Path) -> None:
    """Make sure that a model-index can hold the result's value.

    Args:
        result: from the author's file.
        path: the file, for the message.

    Raises:
        CardError: it can't.
    """
    value = result.metric_value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise CardError(
            f"{path}: {shown(result.metric_type)} is {shown(value)}",
            "give a number or a short text",
        )


# What is still missing


@dataclass(frozen=True)
class MissingItem:
    """Something that the card should say, and only the author can.

    Attributes:
        what: what it is.
        where: where to state it, as Markdown.
    """

    what: str
    where: str


def missing_items(
    notes: AuthorNotes, checkpoint_sha256: str, *, has_metrics: bool
) -> list[MissingItem]:
    """What the author should still supply, in the order of the card.

    Args:
        notes: what the author states.
        checkpoint_sha256: of the checkpoint that the card is about.
        has_metrics: whether the checkpoint holds metrics, whose data needs a name.
    """
    if not notes.applicable:
        digits = checkpoint_sha256[:SHORT_DIGEST]
        return [
            MissingItem(
                "Everything that an author states",
                "rewrite the options under `card`, which are about another checkpoint,"
                f" and set `card.written_for` to `{digits}`",
            )
        ]
    params = notes.params
    # The folder's name isn't given: it may be a path of the author's own machine.
    notes_file = f"{code(NOTES_FILE)} in the folder `card.notes_dir`"
    citation_file = f"{code(CITATION_FILE)} in the folder `card.notes_dir`"
    wanted: list[tuple[object, str, str]] = []
    for heading in EXPECTED_SECTIONS:
        where = f"`## {heading}` in {notes_file}"
        wanted.append((notes.section(heading), heading, where))
    wanted += [
        (params.license, "Licence", "the option `card.license`"),
        (params.authors, "Authors", "the option `card.authors`"),
        (notes.citation, "Citation", f"BibTeX in {citation_file}"),
        (params.pipeline_tag, "Task on the Hub", "the option `card.pipeline_tag`"),
    ]
    if has_metrics:
        data = "What the metrics were measured on"
        wanted.append((params.evaluated_on, data, "the option `card.evaluated_on`"))
    return [MissingItem(what, where) for stated, what, where in wanted if not stated]
