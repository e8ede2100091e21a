"""params.yaml, edited as a person would: comments, order and other values stay."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from checkpoint_release.core.errors import ParamsError, one_line
from checkpoint_release.core.yaml_text import YamlError, parse_yaml

Settings = Mapping[str, Any]
"""Dotted key, such as onnx.opset → value."""

NEUTRAL: Settings = {
    "checkpoint.path": "checkpoints/model.pth",
    "model.factory": None,
    "model.source": None,
    "model.inputs": None,
    "parity.sizes": {},
    "benchmark.sizes": {},
    "card.written_for": None,
    "card.title": None,
    "card.license": None,
    "card.authors": [],
    "card.pipeline_tag": None,
    "card.tags": [],
    "card.evaluated_on": None,
    "card.address": None,
}
"""What this project's own params.yaml says of its demo, as of no model."""


COMMENT_COLUMN = 36  # where the comments of params.yaml stand


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 16  # columns: no line is folded
    yaml.representer.add_representer(type(None), _represent_null)
    return yaml


def _represent_null(representer: Any, _value: None) -> Any:
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _parse(text: str) -> CommentedMap:
    """The document with its comments.

    Raises:
        ParamsError: it isn't YAML, or no mapping.
    """
    try:
        parse_yaml(text.encode())  # within bounds, before another reader sees it
        document = _yaml().load(text)
    except (YamlError, YAMLError) as error:
        raise ParamsError(
            f"params.yaml can't be edited: it is {one_line(error)}",
            "correct that line first",
        ) from None
    if not isinstance(document, CommentedMap):
        raise ParamsError("params.yaml holds no mapping", "restore its sections first")
    return document


def _text(document: CommentedMap) -> str:
    target = io.StringIO()
    _yaml().dump(document, target)
    return target.getvalue()


def with_settings(text: str, settings: Settings) -> str:
    """A params.yaml with these options set.

    Args:
        text: of params.yaml.
        settings: the options.

    Raises:
        ParamsError: there is no such option, or the text can't be edited.
    """
    document = _parse(text)
    for key, value in settings.items():
        _set(document, key, value)
    return _text(document)


def _set(document: CommentedMap, key: str, value: Any) -> None:
    section: Any = document
    *names, last = key.split(".")
    for name in names:
        section = section.get(name) if isinstance(section, CommentedMap) else None
    if not isinstance(section, CommentedMap) or last not in section:
        raise ParamsError(
            f"params.yaml has no option {key}",
            "name one as section.key, such as onnx.opset",
        )
    section[last] = value
    comment = section.ca.items.get(last)
    if comment and comment[2] is not None:
        comment[2].start_mark.column = COMMENT_COLUMN


def with_new_options(text: str, template: str) -> tuple[str, list[str]]:
    """A params.yaml with the options that a template has and it hasn't.

    Args:
        text: somebody's params.yaml, whose values stay.
        template: of a later version.

    Returns:
        The text, and the dotted keys that were added, with the template's values.

    Raises:
        ParamsError: a text can't be edited.
    """
    document, source = _parse(text), _parse(template)
    added: list[str] = []
    for name, section in source.items():
        if name not in document:
            document[name] = section
            added.append(str(name))
            continue
        own = document[name]
        if isinstance(section, CommentedMap) and isinstance(own, CommentedMap):
            added += [f"{name}.{key}" for key in _add_missing(own, section)]
    return (_text(document) if added else text), added


def _add_missing(own: CommentedMap, section: CommentedMap) -> list[str]:
    """Add what a section of the template has and one's own hasn't; return its keys."""
    keys = list(section)
    missing = [key for key in keys if key not in own]
    for key in missing:
        comment = section.ca.items.get(key)
        note = comment[2].value.partition("\n")[0].lstrip("# ") if comment else None
        own.insert(len(own), key, section[key], comment=note)
    return [str(key) for key in missing]
