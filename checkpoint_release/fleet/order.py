"""Which release came before another in a repository that a fleet publishes to.

Members of one training follow one another by how far it was: `step-200` comes after
`step-100`, `epoch=2-step=200` after `epoch=1-step=100`. Of two trainings, such as those
of two seeds, neither comes after the other.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence

from checkpoint_release.fleet.patterns import natural
from checkpoint_release.fleet.plan import Member, Target

_PROGRESS = ("step", "epoch", "iteration", "iter", "checkpoint", "ckpt")
"""How the word before a number ends that says how far a training was; or with an s."""

Series = tuple[object, ...]
Numbers = tuple[int, ...]


class Order:
    """The releases of a fleet in each repository, one after the other.

    Args:
        members: in any order.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._positions: dict[str, tuple[Series, Numbers]] = {}
        self._lines: dict[Series, list[tuple[Numbers, Target]]] = defaultdict(list)
        for member in members:
            found = position(member.name)
            if found is None:
                continue
            name, numbers = found
            for place, target in enumerate(member.targets):
                series = (target.repository, place, name)
                self._positions[target.text] = (series, numbers)
                self._lines[series].append((numbers, target))
        for line in self._lines.values():
            line.sort(key=_numbers)

    def before(self, target: Target) -> Iterator[Target]:
        """Where the releases before one went, the nearest first; none before a first
        one, and of what follows no other.
        """
        if target.text not in self._positions:
            return
        series, numbers = self._positions[target.text]
        line = self._lines[series]
        place = bisect_left(line, numbers, key=_numbers)
        for _, earlier in reversed(line[:place]):
            yield earlier


def _numbers(entry: tuple[Numbers, Target]) -> Numbers:
    return entry[0]


def position(name: str) -> tuple[Series, Numbers] | None:
    """Which training a member is of, and how far that was.

    Args:
        name: of the member, such as seed-1-step-200.

    Returns:
        All of the name but the numbers that say how far; and those numbers. None where
        no number does: of several numbers, none has a name for it.
    """
    pieces = natural(name)
    numbers = [place for place, (number, _) in enumerate(pieces) if number >= 0]
    chosen = [place for place in numbers if _is_progress(pieces[place - 1][1])]
    if not chosen and len(numbers) == 1:
        chosen = numbers
    if not chosen:
        return None
    series: list[object] = [
        None if place in chosen else piece for place, piece in enumerate(pieces)
    ]
    return tuple(series), tuple(pieces[place][0] for place in chosen)


def _is_progress(text: str) -> bool:
    """Whether a text ends with a word for how far a training was."""
    words = "".join(each if each.isalpha() else " " for each in text.lower()).split()
    return bool(words) and words[-1].removesuffix("s").endswith(_PROGRESS)
