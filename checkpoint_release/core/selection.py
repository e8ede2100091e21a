"""What is stated about the names of a checkpoint's tensors, and when it would help."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

SELECTION_OPTIONS = ("checkpoint.prefix", "checkpoint.leave_out")
_MAX_PATTERNS = 10  # to leave out; with more of them it isn't a near miss

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Selection:
    """What the user states about the names.

    Attributes:
        leave_out: names that aren't the model's; * and ? stand for any characters.
        prefix: what every other name begins with; None: nothing beyond the prefixes
            of known wrappers.
    """

    leave_out: tuple[str, ...] = ()
    prefix: str | None = None


def selection_for(shapes: Shapes, own: Shapes) -> Selection | None:
    """A selection with which tensors would be those of a model whose own are known.

    Args:
        shapes: of the tensors.
        own: of the model's.

    Returns:
        None where one of the model's tensors is missing, or of another shape, whatever
        prefix is stripped; or where nothing has to be selected.
    """
    if not own:
        return None
    some = next(iter(own))
    for name in shapes:
        prefix = name.removesuffix(some)
        if not name.endswith(some) or (prefix and not prefix.endswith(".")):
            continue
        wanted = {f"{prefix}{each}": shape for each, shape in own.items()}
        if wanted.items() <= shapes.items():
            outside = [each for each in shapes if each not in wanted]
            return _leaving_out(outside, wanted, prefix)
    return None


def _leaving_out(
    outside: Sequence[str], wanted: Collection[str], prefix: str
) -> Selection | None:
    """What leaves out names, with a pattern for a part that no wanted name shares.

    Args:
        outside: the names.
        wanted: all others.
        prefix: that those have.
    """
    patterns: dict[str, None] = {}
    for name in outside:
        pattern = pattern_of(name)
        shared = any(fnmatchcase(each, pattern) for each in wanted)
        patterns[name if shared else pattern] = None
    if not (patterns or prefix) or len(patterns) > _MAX_PATTERNS:
        return None
    return Selection(tuple(patterns), prefix or None)


def remedy(selection: Selection) -> str:
    """The selection as a remedy in a message, options in braces."""
    parts = []
    if selection.prefix is not None:
        parts.append(f"{{checkpoint.prefix}} to {selection.prefix!r}")
    if selection.leave_out:
        parts.append(f"{{checkpoint.leave_out}} to {list(selection.leave_out)}")
    return f"the rest fits: set {' and '.join(parts)}"


def pattern_of(name: str) -> str:
    """What matches all names that begin with the same part."""
    first, dot, _ = name.partition(".")
    return f"{first}.*" if dot else name
