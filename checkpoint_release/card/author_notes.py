"""What only the author can say of a model: params.yaml's `card` section and the folder
that card.notes_dir names.

The folder is the author's, its files are optional, and no stage writes to it:

    notes.md       Markdown that goes into the card; `## Description`, `## Intended use`, `## Out of scope`,
                   `## Training data`, `## Evaluation` and `## Limitations` go to the card's own sections, and
                   any other heading becomes a section of its own
    citation.bib   how to cite the model, in BibTeX
    metrics.json   measured results, as the list `results` of the Hub's model-index
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.repocard_data import EvalResult, model_index_to_eval_results

from checkpoint_release.card.markdown import split_sections
from checkpoint_release.core.errors import CardError
from checkpoint_release.core.params import CardParams

OWN_SECTIONS = (
    "Description",
    "Intended use",
    "Out of scope",
    "Training data",
    "Evaluation",
    "Limitations",
)


@dataclass(frozen=True)
class AuthorNotes:
    """The author's words about this checkpoint.

    Attributes:
        params: the card section of params.yaml; None when it is about another checkpoint.
        sections: heading → Markdown, from notes.md.
        citation: BibTeX, or nothing.
        results: what metrics.json holds.
    """

    params: CardParams | None
    sections: dict[str, str] = field(default_factory=dict)
    citation: str = ""
    results: tuple[EvalResult, ...] = ()

    def section(self, heading: str) -> str:
        """The Markdown under one of the card's own headings, in whatever case the
        author wrote it.

        What comes before the first heading is part of the description.
        """
        before = [self.sections.get("", "")] if heading == "Description" else []
        under = [
            text
            for name, text in self.sections.items()
            if name and _same(name, heading)
        ]
        return "\n\n".join(filter(None, before + under))

    def extra_sections(self) -> dict[str, str]:
        """The sections that the card has no place of its own for."""
        taken = ("", *OWN_SECTIONS)
        return {
            name: text
            for name, text in self.sections.items()
            if not any(_same(name, each) for each in taken)
        }


def read_notes(params: CardParams, checkpoint: str) -> AuthorNotes:
    """The author's words, if they are about the checkpoint with that sha256.

    Raises:
        CardError: the folder is missing, or one of its files can't be used.
    """
    if params.written_for is not None and not checkpoint.startswith(params.written_for):
        return AuthorNotes(None)
    folder = Path(params.notes_dir)
    if not folder.is_dir():
        raise CardError(
            f"card.notes_dir is {params.notes_dir!r}, and there is no such folder",
            "name a folder; it may be empty",
        )
    notes = _text(folder / "notes.md")
    if notes.startswith("---\n"):
        raise CardError(
            f"{folder / 'notes.md'} begins with front matter, which the card has"
            " already",
            "move its keys to the card section of params.yaml",
        )
    return AuthorNotes(
        params,
        split_sections(notes),
        _text(folder / "citation.bib").strip(),
        _results(folder / "metrics.json"),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not UTF-8: {error}", "save it as UTF-8") from None


def _results(path: Path) -> tuple[EvalResult, ...]:
    if not path.exists():
        return ()
    remedy = (
        'write a list of {"task": {"type"}, "dataset": {"type", "name"}, "metrics":'
        ' [{"type", "value"}]}, as in the results of the Hub\'s model-index'
    )
    try:
        value: Any = json.loads(_text(path))
        _, results = model_index_to_eval_results([{"name": "", "results": value}])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CardError(f"{path} is not a list of results: {error!r}", remedy) from None
    for result in results:
        if isinstance(result.metric_value, bool) or not isinstance(
            result.metric_value, int | float | str
        ):
            raise CardError(
                f"{path}: {result.metric_type} is {result.metric_value!r}",
                "give a number or a short text",
            )
    return tuple(results)


def _same(heading: str, other: str) -> bool:
    return heading.casefold() == other.casefold()
