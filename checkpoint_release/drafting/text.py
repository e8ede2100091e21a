"""A draft as params.yaml takes it: a line for each tensor and dimension."""

from __future__ import annotations

import json
from typing import Any

from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.drafting.draft import Draft

_NO_NAMES_IN_YAML = ("false", "n", "no", "null", "off", "on", "true", "y", "yes")


def draft_yaml(draft: Draft) -> str:
    """The signature in YAML; inputs that may be left out are comments in it.

    Args:
        draft: as draft_signature gives it.
    """
    signature = draft.signature
    lines = ["inputs:", *map(_tensor, signature.inputs)]
    if draft.optional:
        lines.append("# forward can do without these; one without its # is taken:")
        lines += [f"#{_tensor(spec)}" for spec in draft.optional]
    lines += ["outputs:", *map(_tensor, signature.outputs)]
    if signature.dimensions:
        lines.append("dimensions:")
    for name, dimension in signature.dimensions.items():
        lines.append(f"  {name}: {_flow(dimension.to_json())}")
    return "\n".join(lines) + "\n"


def _tensor(spec: TensorSpec) -> str:
    value = spec.to_json()
    if spec.dtype == TensorSpec.dtype:
        del value["dtype"]
    return f"  - {_flow(value)}"


def _flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        items = [f"{key}: {_flow(item)}" for key, item in value.items()]
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if value is None:
        return "null"
    return _text(value) if isinstance(value, str) else str(value)


def _text(value: str) -> str:
    """A text, in quotes unless it is a name or an expression."""
    is_bare = all(char.isalnum() or char in "_+-*/ " for char in value)
    if is_bare and value[0].isalpha() and value.lower() not in _NO_NAMES_IN_YAML:
        return value
    return json.dumps(value, ensure_ascii=False)
