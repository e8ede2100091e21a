"""Which tensors of a state dict are the model's, and under which names.

Training wraps a model: in another module, whose attribute's name comes before every
name; beside a loss with weights of its own; with counters. Loading scripts undo that
with removeprefix and strict=False, silently. Here it is stated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from checkpoint_release.core.errors import CheckpointError, first_few
from checkpoint_release.core.selection import Selection
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.prefixes import without_prefix

_AVERAGES = "n_averaged"  # torch.optim.swa_utils.AveragedModel's counter
_MAX_LISTED = 3  # names in a message


@dataclass(frozen=True)
class Selected:
    """The tensors under the model's own names.

    Attributes:
        tensors: name → tensor.
        prefix: what was stripped from every name.
        left_out: the names of the other tensors, as the file has them, sorted.
    """

    tensors: StateDict
    prefix: str
    left_out: tuple[str, ...]


def select(weights: StateDict, selection: Selection) -> Selected:
    """Leave out what isn't the model's, and strip what wrappers put before the names.

    Args:
        weights: name → tensor, as the file has them.
        selection: what the user states.

    Raises:
        CheckpointError: a pattern matches no name, nothing would be left, or a name
            lacks the stated prefix.
    """
    left_out = _left_out(weights, selection.leave_out)
    kept = {name: each for name, each in weights.items() if name not in left_out}
    if _is_averaged_model(kept):
        del kept[_AVERAGES]
        left_out.add(_AVERAGES)
    tensors, stripped = without_prefix(kept)
    if selection.prefix is not None:
        tensors = _without_stated(tensors, selection.prefix)
        stripped += selection.prefix
    return Selected(tensors, stripped, tuple(sorted(left_out)))


def _left_out(weights: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """The names that the patterns match.

    Raises:
        CheckpointError: a pattern matches none, or they match all.
    """
    names = list(weights)
    left_out: set[str] = set()
    for pattern in patterns:
        matching = [name for name in names if fnmatchcase(name, pattern)]
        if not matching:
            raise CheckpointError(
                f"{{checkpoint.leave_out}} names {pattern!r}, and no tensor is called"
                f" so: the names are {first_few(names, _MAX_LISTED)}",
                "correct the pattern; * stands for any characters",
                options=["checkpoint.leave_out"],
            )
        left_out.update(matching)
    if names and len(left_out) == len(names):
        raise CheckpointError(
            "{checkpoint.leave_out} leaves out every tensor",
            "name fewer of them",
            options=["checkpoint.leave_out"],
        )
    return left_out


def _is_averaged_model(names: Iterable[str]) -> bool:
    """Whether AveragedModel wrote the state dict: its counter, and its module."""
    others = set(names)
    if _AVERAGES not in others:
        return False
    others.remove(_AVERAGES)
    return bool(others) and all(name.startswith("module.") for name in others)


def _without_stated(tensors: StateDict, prefix: str) -> StateDict:
    """Strip the prefix that the user states.

    Raises:
        CheckpointError: a name lacks it.
    """
    others = [name for name in tensors if not name.startswith(prefix)]
    if others:
        raise CheckpointError(
            f"{{checkpoint.prefix}} is {prefix!r}, and {len(others)} of"
            f" {len(tensors)} names don't begin with it:"
            f" {first_few(others, _MAX_LISTED)}",
            "correct it, or name those tensors in {checkpoint.leave_out} if they aren't"
            " the model's",
            options=["checkpoint.prefix", "checkpoint.leave_out"],
        )
    return {name.removeprefix(prefix): each for name, each in tensors.items()}
