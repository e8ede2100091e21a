"""What the model's own module says about its architecture, for the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoint_release.core.architecture import Architecture


@dataclass(frozen=True)
class Description:
    """An architecture in words and numbers.

    Attributes:
        name: what the architecture is called.
        dimensions: arguments of the factory that a reader wants to know.
        summary: one or two sentences; may be empty.
        parameters: how many values training fits; None: not known.
        segments: the parts of a frame, each x1, y1, x2, y2; for models of motion.
        notes: what else is good to know, a sentence each.
        limitations: what the architecture can't do, a sentence each.
    """

    name: str
    dimensions: Mapping[str, Any]
    summary: str
    parameters: int | None
    segments: Sequence[str]
    notes: Sequence[str]
    limitations: Sequence[str]


def describe(architecture: Architecture) -> Description:
    """The description by the model's module; otherwise, what its factory's call says.

    Raises:
        ModelError: the module can't be imported, or fails.
    """
    hook = architecture.hook("describe")
    described: dict[str, Any] = hook(architecture.kwargs) if hook else {}
    return Description(
        name=described.get("name") or architecture.factory.partition(":")[2],
        dimensions=described.get("dimensions", architecture.kwargs),
        summary=described.get("summary", ""),
        parameters=described.get("parameters"),
        segments=described.get("segments", ()),
        notes=described.get("notes", ()),
        limitations=described.get("limitations", ()),
    )
