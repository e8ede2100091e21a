"""Reading a card's front matter, whoever wrote it."""

from __future__ import annotations

from typing import Any

from checkpoint_release.core.yaml_text import YamlError, parse_yaml


def split_card(card: str) -> tuple[dict[str, Any], str]:
    """A card's front matter and its body.

    Args:
        card: a README.md.

    Returns:
        The fields, empty where there are none or they can't be read, and the text
        after them.
    """
    start, fence, rest = card.partition("---\n")
    if start.strip() or not fence:
        return {}, card
    text, end, body = rest.partition("\n---")
    if not end:
        return {}, card
    try:
        fields = parse_yaml(text.encode())
    except YamlError:
        fields = None
    return (fields if isinstance(fields, dict) else {}), body.lstrip("\n")
