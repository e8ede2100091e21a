"""Putting ZeRO's parameters together from flat tensors of all ranks.

ZeRO 1 and 2 cut the row of all parameters into equal parts, ZeRO 3 each parameter.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeGuard

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.pth.budget import Budget
from checkpoint_release.tensors.joined import Strung
from checkpoint_release.tensors.tensor import Tensor, contiguous_strides

ONE_RUN = "get the files of all ranks again, from one and the same step"
"""What to do where the ranks don't go together."""
_PIECE = 300  # bytes charged for a piece of a tensor

Shapes = dict[str, tuple[int, ...]]
"""Parameter → shape, in the order in which their elements follow each other."""


def is_shape(value: Any) -> TypeGuard[tuple[int, ...]]:
    """Whether a value that was read can be a tensor's shape."""
    if not isinstance(value, tuple) or len(value) > 64:
        return False
    return all(type(each) is int and 0 <= each < 1 << 40 for each in value)


def flat_groups(states: Sequence[Mapping[str, Any]], key: str) -> list[list[Tensor]]:
    """Each rank's flat tensors: one for each group of parameters.

    Raises:
        CheckpointError: they are something else, or ranks have other numbers of them.
    """
    found = []
    for rank, state in enumerate(states):
        groups = state.get(key)
        if isinstance(groups, Tensor):
            groups = [groups]
        if not isinstance(groups, list) or not all(map(is_flat, groups)):
            raise CheckpointError(f"rank {rank} has no {key} of flat tensors", ONE_RUN)
        found.append(groups)
    if len({len(groups) for groups in found}) != 1:
        raise CheckpointError("the ranks have different groups", ONE_RUN)
    return found


def is_flat(value: Any) -> bool:
    """Whether a value that was read is a tensor of one dimension, in one piece."""
    if not isinstance(value, Tensor) or len(value.shape) != 1:
        return False
    return value.is_contiguous and not (value.conjugate or value.negate)


def cut_row(
    shapes: Sequence[Shapes],
    ranks: Sequence[Sequence[Tensor]],
    paddings: Any,
    budget: Budget,
) -> dict[str, Strung]:
    """The parameters of ZeRO 1 and 2: groups whose elements lie in a row over ranks.

    Args:
        shapes: of each group's parameters.
        ranks: rank → the rank's part of each group.
        paddings: group → elements behind each parameter; None: there are none.
        budget: of all files.

    Raises:
        CheckpointError: the groups aren't as long as their parameters.
    """
    if len(shapes) != len(ranks[0]):
        raise CheckpointError(
            f"there are {len(shapes)} groups of parameters, and the ranks hold"
            f" {len(ranks[0])}",
            ONE_RUN,
        )
    weights = {}
    for number, group in enumerate(shapes):
        row = FlatRow([rank[number] for rank in ranks], budget)
        gaps = _gaps(paddings, number, len(group))
        at = 0
        for (name, shape), gap in zip(group.items(), gaps, strict=True):
            size = math.prod(shape)
            weights[name] = row.tensor(name, shape, [(at, size)])
            at += size + gap
        # DeepSpeed aligns the row to twice the number of ranks, and may leave that out.
        aligned = 2 * len(ranks)
        if math.ceil(at / aligned) != math.ceil(row.size / aligned):
            raise CheckpointError(
                f"the parameters of group {number} have {at:,} elements, and the ranks"
                f" hold {row.size:,}",
                ONE_RUN,
            )
    return weights


def _gaps(paddings: Any, group: int, count: int) -> list[int]:
    """The elements behind each parameter of a group.

    Raises:
        CheckpointError: they are garbled.
    """
    if paddings is None:
        return [0] * count
    own = paddings[group] if isinstance(paddings, list) and group < len(paddings) else 0
    if not isinstance(own, list | tuple) or len(own) != count:
        raise CheckpointError("the paddings of the parameters are garbled", ONE_RUN)
    if not is_shape(tuple(own[:64])) or not all(type(each) is int for each in own):
        raise CheckpointError("the paddings of the parameters are garbled", ONE_RUN)
    return list(own)


def cut_each(
    shapes: Sequence[Shapes], ranks: Sequence[Sequence[Tensor]], budget: Budget
) -> dict[str, Strung]:
    """The parameters of ZeRO 3, each of which is cut over all ranks.

    Args:
        shapes: of all parameters, in groups that don't matter here.
        ranks: rank → flat tensors that make up one row together.
        budget: of all files.

    Raises:
        CheckpointError: the rows aren't as long as their parameters.
    """
    count = len(ranks)
    row = FlatRow([tensor for groups in ranks for tensor in groups], budget)
    lengths = [sum(tensor.shape[0] for tensor in groups) for groups in ranks]
    if len(set(lengths)) != 1:
        raise CheckpointError("the ranks hold different numbers of elements", ONE_RUN)
    weights = {}
    at = 0
    for group in shapes:
        for name, shape in group.items():
            size = math.prod(shape)
            share = math.ceil(size / count)
            spans = []
            for rank in range(count):
                length = max(0, min(share, size - rank * share))
                spans.append((rank * lengths[0] + at, length))
            weights[name] = row.tensor(name, shape, spans)
            at += share
    if at != lengths[0]:
        raise CheckpointError(
            f"the parameters have {at:,} elements on each rank, and the ranks hold"
            f" {lengths[0]:,}",
            ONE_RUN,
        )
    return weights


class FlatRow:
    """Flat tensors, one behind the other.

    Args:
        tensors: contiguous, of one dimension.
        budget: is charged for each piece of a tensor.
    """

    def __init__(self, tensors: Sequence[Tensor], budget: Budget) -> None:
        self._tensors = tensors
        self._budget = budget
        self._ends = list(accumulate(tensor.shape[0] for tensor in tensors))

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._ends[-1] if self._ends else 0

    def tensor(
        self, name: str, shape: tuple[int, ...], spans: Iterable[tuple[int, int]]
    ) -> Strung:
        """The tensor whose elements lie at these places.

        Args:
            name: for messages.
            shape: of the tensor.
            spans: first element and number of elements.

        Raises:
            CheckpointError: they lie outside, or are of different dtypes.
        """
        pieces: list[Tensor] = []
        for start, length in spans:
            pieces += self._pieces(name, start, length)
        dtypes = {piece.dtype for piece in pieces}
        if len(dtypes) > 1:
            raise CheckpointError(
                f"the ranks hold {printable(name)} in different dtypes", ONE_RUN
            )
        return Strung(dtypes.pop() if dtypes else "F32", shape, tuple(pieces))

    def _pieces(self, name: str, start: int, length: int) -> list[Tensor]:
        if start + length > self.size:
            raise CheckpointError(
                f"{printable(name)} ends at element {start + length:,}, and the ranks"
                f" hold {self.size:,}",
                ONE_RUN,
            )
        found = []
        at, stop = start, start + length
        number = bisect_right(self._ends, start)
        while at < stop:
            tensor, end = self._tensors[number], self._ends[number]
            begin = end - tensor.shape[0]
            high = min(stop, end)
            if at < high:
                self._budget.charge(_PIECE)
                found.append(_slice(tensor, at - begin, high - at))
                at = high
            number += 1
        return found


def _slice(tensor: Tensor, start: int, length: int) -> Tensor:
    """Elements of a flat tensor."""
    shape = (length,)
    return Tensor(
        tensor.dtype,
        shape,
        contiguous_strides(shape),
        tensor.offset + start,
        tensor.storage,
    )
