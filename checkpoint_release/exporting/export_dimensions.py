"""A signature's dimensions as torch.export has them, with bounds and relations."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from torch.export import Dim

from checkpoint_release.core.signature import Dimension
from checkpoint_release.core.size_expressions import SizeExpression, parse_size


class ExportDimensions:
    """torch.export's dimensions of a signature.

    torch.export multiplies a dimension and adds to it, and divides none. One of which
    all sizes are multiples is therefore a multiple of another, which counts the steps.
    """

    def __init__(self, dimensions: Mapping[str, Dimension]) -> None:
        """Make one for each dimension that can have several sizes.

        Args:
            dimensions: of the signature, by name.
        """
        self._fixed: dict[str, int] = {}
        self._steps: dict[str, Any] = {}
        self._multiples: dict[str, int] = {}
        for name, dimension in dimensions.items():
            self._multiples[name] = dimension.multiple
            if dimension.minimum == dimension.maximum:
                self._fixed[name] = dimension.minimum
            else:
                self._steps[name] = _steps(dimension)

    def of(self, size: str) -> Any:
        """What torch.export is given for an axis; None: it has one size only.

        Args:
            size: the name of a dimension, or an expression.
        """
        expression = parse_size(size)
        if expression is None:  # a name that is no identifier
            expression = SizeExpression({size: Fraction(1)}, 0)
        factors: dict[str, int] = {}
        offset = Fraction(expression.offset)
        for name, factor in expression.factors.items():
            if name in self._fixed:
                offset += factor * self._fixed[name]
            else:
                factors[name] = int(factor * self._multiples[name])
        if not factors:
            return None
        if len(factors) > 1:
            # It has no sums; the graph shows it the relation, which it keeps.
            return Dim.DYNAMIC
        ((name, step),) = factors.items()
        dimension = self._steps[name]
        if step != 1:
            dimension = step * dimension
        return dimension + int(offset) if offset else dimension


def _steps(dimension: Dimension) -> Any:
    """The number of steps of a dimension; of a multiple of 1 the dimension itself."""
    step, name = dimension.multiple, dimension.name
    low, high = dimension.minimum, dimension.maximum
    if step == 1:
        return Dim(name, min=low, max=high)
    most = None if high is None else high // step
    return Dim(f"{name}_{step}", min=low // step, max=most)
