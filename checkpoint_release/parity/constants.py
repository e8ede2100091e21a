"""The numbers that the constants of a file stand for.

A model computes with √2 or an epsilon of 10⁻⁶, and an ONNX file keeps the nearest
float32 of it, which is off by up to 6e-8 of its value. Evaluated in double precision,
that is the largest difference between a right graph and its model. So each constant is
replaced by a number of which two things hold: it rounds to exactly the number in the
file, and with all of them together the graph computes what the model computes. Where no
such numbers exist, the graph computes something else.

Likely numbers are tried first: short decimals, roots of ratios. Others are found by
least squares. Within half a step of float32 the outputs are
linear in the constants, up to the square of a relative difference of 6e-8; so the
outputs' differences from the model are written as a combination of what half a step of
each constant changes. What was found counts for nothing by itself: the graph is
evaluated again with it, also in cases that the fit has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.signature import Array
from checkpoint_release.tensors.safetensors import open_safetensors

LARGEST_TABLE = 8
"""How many numbers a tensor may have to be taken for constants."""
LARGEST_DENOMINATOR = 4096
"""Of the ratios whose roots are likely, such as 1/√768."""
MOST = 64
"""How many constants are fitted."""
EQUATIONS = 4
"""How many numbers of outputs there must be for each constant that is fitted."""
CLOSE = 1e-6
"""Multiple of half a step by which least squares may overshoot: its own rounding."""


@dataclass
class Constant:
    """A number that the file holds in float32, wherever it occurs in the graph.

    Attributes:
        stored: the number in the file.
        places: set it to another value, each in one place of the graph.
    """

    stored: float
    places: list[Callable[[float], None]] = field(default_factory=list)

    @property
    def reach(self) -> float:
        """How far a number may be from the stored one that rounds to it: half a step of
        float32.
        """
        return float(np.spacing(np.float32(abs(self.stored)))) / 2

    def set(self, value: float) -> None:
        """Let the graph compute with another value."""
        for place in self.places:
            place(value)


@dataclass(frozen=True)
class Weights:
    """The checkpoint's tensors, which are no constants in a graph that holds them.

    Attributes:
        names: of all tensors.
        contents: the bytes in float32 of those that could be taken for constants, which
            a graph may hold under another name.
        numbers: how many the tensors have in all.
        largest_table: how many numbers a tensor of a graph may have to be taken for
            constants, if it is none of these.
    """

    names: frozenset[str] = frozenset()
    contents: frozenset[bytes] = frozenset()
    numbers: int = 0
    largest_table: int = LARGEST_TABLE

    def include(self, name: str, array: Array) -> bool:
        """Whether a tensor of a graph is one of them.

        Args:
            name: as exporters have it, who may put the name of a module in front.
            array: its numbers.
        """
        rest = name
        while rest:
            if rest in self.names:
                return True
            _, _, rest = rest.partition(".")
        return array.astype(np.float32).tobytes() in self.contents


def is_small(size: int) -> bool:
    """Whether a tensor of so many numbers could be taken for constants."""
    return size <= LARGEST_TABLE


def weights_of(checkpoint: Path) -> Weights:
    """The tensors of a checkpoint.

    Args:
        checkpoint: its folder.
    """
    tensors = open_safetensors(checkpoint / WEIGHTS_FILE)
    small, numbers = set(), 0
    for tensor in tensors.values():
        size = math.prod(tensor.shape)
        numbers += size
        if is_small(size):
            small.add(tensor.numpy().astype(np.float32).tobytes())
    return Weights(frozenset(tensors), frozenset(small), numbers)


def align(constants: Sequence[Constant], differences: Callable[[], Array]) -> bool:
    """Set each constant to a number that rounds to the stored one, so that the graph is
    as close to the model as can be.

    Args:
        constants: of the graph, set to whatever was tried before.
        differences: evaluates the graph with the constants as they are set, and gives
            how far it is from the model: float64, one number for each number of all
            outputs, in units in which all are comparable.

    Returns:
        Whether there was something to fit, and few enough.
    """
    for constant in constants:
        constant.set(constant.stored)
    before = differences()
    most = min(MOST, before.size // EQUATIONS)
    if not 0 < len(constants) <= most:
        return False
    effects = []
    for constant in constants:
        constant.set(constant.stored + constant.reach)
        effects.append(differences() - before)
        constant.set(constant.stored)
    steps = bounded_least_squares(np.stack(effects, axis=1), -before)
    for constant, step in zip(constants, steps, strict=True):
        constant.set(constant.stored + constant.reach * float(step))
    return True


def likely_number(stored: float) -> float:
    """The number that a model most likely has where its file has this float32: a short
    decimal, or the root of a ratio of small integers.

    Returns:
        A number that rounds to the stored one: that itself, where nothing is likely.
    """
    single = np.float32(stored)
    decimal = float(f"{stored:.6g}")
    if np.float32(decimal) == single:
        return decimal
    square = Fraction(stored * stored).limit_denominator(LARGEST_DENOMINATOR)
    root = math.copysign(math.sqrt(square), stored)
    return root if np.float32(root) == single else stored


def bounded_least_squares(matrix: Array, target: Array) -> Array:
    """The x with every |xᵢ| ≤ 1 for which matrix · x comes close to the target.

    Unknowns that least squares puts beyond a bound are held at that bound, one after
    the other, the worst first, and the others are solved for again (an active-set
    method without release, as in Stark and Parker, Bounded-Variable Least-Squares,
    1995, whose bounds matter only where something else is wrong).

    Args:
        matrix: float64 of shape (equations, unknowns).
        target: float64 of shape (equations,).

    Returns:
        Float64 of shape (unknowns,). An unknown that changes nothing is 0.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    solution = np.zeros(matrix.shape[1])
    free = lengths > 0
    while free.any():
        fixed = matrix[:, ~free] @ solution[~free]
        # columns of one length: an epsilon changes far less than √2, and counts as much
        columns = matrix[:, free] / lengths[free]
        found, *_ = np.linalg.lstsq(columns, target - fixed, rcond=1e-10)
        solution[free] = found / lengths[free]
        excess = np.where(free, np.abs(solution), 0.0)
        worst = int(np.argmax(excess))
        if excess[worst] <= 1 + CLOSE:
            break
        solution[worst] = np.sign(solution[worst])
        free[worst] = False
    return np.clip(solution, -1.0, 1.0)
