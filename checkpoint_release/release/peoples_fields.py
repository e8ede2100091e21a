"""Front matter that people added to the card on the Hub: a gate's text, a picture, the
name of a newer model. A release that replaces the card keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import yaml

from checkpoint_release.core.params import CARD_FIELDS
from checkpoint_release.release.front_matter import split_card

_WRITTEN_HERE = CARD_FIELDS | {"library_name"}


def peoples_fields(
    card: str, there: str, dropped: Collection[str] = ()
) -> dict[str, Any]:
    """The fields of the card on the Hub that a new card would lose.

    What the pipeline writes itself is replaced, or gone on purpose.

    Args:
        card: the new one.
        there: the one on the Hub.
        dropped: fields that shall go.
    """
    fields, _ = split_card(card)
    gone = {*fields, *_WRITTEN_HERE, *dropped}
    there_fields, _ = split_card(there)
    return {name: value for name, value in there_fields.items() if name not in gone}


def with_fields(card: str, fields: Mapping[str, Any]) -> str:
    """The card with further front matter, below its own.

    Args:
        card: README.md, which has front matter.
        fields: to add.
    """
    if not fields:
        return card
    text = yaml.safe_dump(dict(fields), allow_unicode=True, sort_keys=False)
    head, _, body = card.removeprefix("---\n").partition("\n---")
    return f"---\n{head}\n{text}---{body}"
