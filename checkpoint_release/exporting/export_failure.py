"""Why an exporter failed, as far as the model that it met explains it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from checkpoint_release.core.errors import first_few

if TYPE_CHECKING:
    from checkpoint_release.runtimes.model_check import Behaviour

_MAX_LISTED = 3  # lines of code in a message
_CHANGE = "change what forward does there"
_SUGGESTED = re.compile(  # torch.export's own suggestion, a line for each dimension
    r"^\s*(\w+) = Dim\('\w+'(?:, min=(\d+))?(?:, max=(\d+))?\)", re.MULTILINE
)


def explanation(
    error: BaseException, behaviour: Behaviour, *, has_complex: bool = True
) -> tuple[str, str]:
    """Why an exporter failed, and the remedy.

    Args:
        error: what the exporter raised.
        behaviour: what was seen of the model when it ran alone.
        has_complex: whether the format has complex numbers.

    Returns:
        A clause to put behind the cause, or "", and an imperative clause.
    """
    if behaviour.decisions and _is_data_dependent(error):
        lines = first_few(behaviour.decisions, _MAX_LISTED)
        return (
            f"; forward turns values of tensors into Python's ({lines}), and a graph"
            " can't decide by them",
            "compute both ways and choose with torch.where",
        )
    if behaviour.complex_at and not has_complex:
        lines = first_few(behaviour.complex_at, _MAX_LISTED)
        return (
            f"; forward computes with complex numbers ({lines}), for which ONNX has no"
            " type",
            "compute with real and imaginary parts in forward",
        )
    bounds = _suggested_bounds(error)
    if bounds:
        return (
            "; forward decides by a size, and a graph keeps one of the ways",
            f"state {', '.join(bounds)} among the dimensions of {{model.signature}},"
            " where forward decides as in the example",
        )
    return "", _CHANGE


def _suggested_bounds(error: BaseException) -> list[str]:
    """The bounds within which torch.export can export a model, as a signature states
    them; none where it suggests none.
    """
    bounds = []
    for name, least, most in _SUGGESTED.findall(str(error)):
        dimension, _, step = name.rpartition("_")
        if not step.isdigit() or not dimension:
            dimension, step = name, "1"
        parts = []
        for key, size in (("minimum", least), ("maximum", most)):
            if size:
                parts.append(f"{key}: {int(size) * int(step)}")
        if parts:
            bounds.append(f"`{dimension}: {{{', '.join(parts)}}}`")
    return bounds


def _is_data_dependent(error: BaseException) -> bool:
    """Whether torch.export met a decision by values."""
    link: BaseException | None = error
    while link is not None:
        if "DataDependent" in type(link).__name__ or "data-dependent" in str(link):
            return True
        link = link.__cause__
    return False
