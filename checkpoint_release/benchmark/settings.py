"""The sizes of the inputs that are measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from checkpoint_release.core.artifacts.benchmark import sizes_text
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.parity_sizes import possible_sizes
from checkpoint_release.core.signature import Signature
from checkpoint_release.parity.cases import require_room

OPTION = "benchmark.sizes"
MOST_SIZES = 64
"""Combinations of sizes; more would be measured for hours."""


@dataclass(frozen=True)
class Sizes:
    """The size of each dynamic dimension.

    Attributes:
        of: dimension → size, in the signature's order.
    """

    of: dict[str, int]

    @property
    def text(self) -> str:
        """Such as "batch=1, sequence=250"; see sizes_text."""
        return sizes_text(self.of)


def all_sizes(
    signature: Signature, stated: Mapping[str, Sequence[int]]
) -> tuple[list[Sizes], list[str]]:
    """Every combination of the stated sizes.

    Args:
        signature: of the model.
        stated: dimension → sizes; the others have the signature's example.

    Returns:
        The combinations, with the first sizes of all dimensions first; and a note on
        each size that the model doesn't take.

    Raises:
        ParamsError: there are more than MOST_SIZES, or inputs would be too large.
    """
    possible, notes = possible_sizes(signature, stated, OPTION)
    choices = {}
    for name, dimension in signature.dimensions.items():
        choices[name] = possible.get(name) or [dimension.example]
    count = math.prod(map(len, choices.values()))
    if count > MOST_SIZES:
        raise ParamsError(
            f"{{{OPTION}}} asks for {count} combinations of sizes, and {MOST_SIZES} are"
            " allowed",
            "state fewer sizes",
            options=[OPTION],
        )
    combinations = []
    for combination in product(*choices.values()):
        sizes = dict(zip(choices, combination, strict=True))
        require_room(signature, sizes, OPTION)
        combinations.append(Sizes(sizes))
    return combinations, notes
