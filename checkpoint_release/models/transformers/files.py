"""Files that belong to a model of transformers beside its weights: its tokenizer, its
image or sound processor, and how it generates.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

NAMES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def companion_files(sources: Iterable[Path]) -> dict[str, Path]:
    """The files to carry along: name in the release → where it lies.

    Args:
        sources: the paths of model.source; of a file, its own folder isn't looked into.
    """
    found: dict[str, Path] = {}
    for source in sources:
        places = [source / name for name in NAMES] if source.is_dir() else [source]
        for place in places:
            if place.name in NAMES and place.is_file():
                found.setdefault(place.name, place)
    return found
