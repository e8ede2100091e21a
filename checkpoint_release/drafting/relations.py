"""Sizes that inputs share or don't, and sizes that follow from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice, product

from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.core.size_expressions import parse_size, size_text
from checkpoint_release.drafting.trials import Sizes, Specs, Trials

_LENGTHS = ("sequence", "length")
_FOLLOWING = ((1, 1), (1, -1), (2, 0), (2, 1), (2, -1), (4, 0), (3, 0), (8, 0))
"""Growth and offset of a length that follows from another, the likeliest first."""
_MOST_VARIANTS = 64


def where_one_follows(specs: Specs) -> Iterator[Specs]:
    """The inputs, the length of one written as what follows from another's.

    Args:
        specs: of which two or more share a length; otherwise there is nothing.
    """
    for name in _LENGTHS:
        sharing = [
            number for number, spec in enumerate(specs) if name in spec.dimension_names
        ]
        if len(sharing) < 2:
            continue
        for growth, offset in _FOLLOWING:
            text = size_text({name: Fraction(growth)}, offset)
            for number in reversed(sharing):
                changed = with_sizes(specs[number], {name: text})
                yield (*specs[:number], changed, *specs[number + 1 :])


def with_sizes(spec: TensorSpec, replaced: Mapping[str, int | str]) -> TensorSpec:
    """An input with other sizes in the place of dimensions, in expressions too.

    Args:
        spec: of the input.
        replaced: dimension → a number, a name or an expression.
    """
    shape = spec.shape or ()
    return replace(spec, shape=tuple(_replaced(size, replaced) for size in shape))


def _replaced(size: int | str, replaced: Mapping[str, int | str]) -> int | str:
    expression = None if isinstance(size, int) else parse_size(size)
    if expression is None:
        return size
    factors: dict[str, Fraction] = {}
    offset = Fraction(expression.offset)
    for name, factor in expression.factors.items():
        other = replaced.get(name, name)
        parsed = None if isinstance(other, int) else parse_size(other)
        if parsed is None:
            offset += factor * int(other)
            continue
        offset += factor * parsed.offset
        for inner, inner_factor in parsed.factors.items():
            factors[inner] = factors.get(inner, Fraction(0)) + factor * inner_factor
    return size_text(factors, int(offset)) if factors else int(offset)


# Dimensions of their own


def separated(trials: Trials, specs: Specs, sizes: Sizes) -> tuple[Specs, Sizes]:
    """The inputs, each with dimensions of its own where the model takes other sizes.

    A guess shares dimensions between inputs as far as it can; the batch stays shared.

    Args:
        trials: of the model.
        specs: on which it runs.
        sizes: at which it does.

    Returns:
        The inputs, and sizes of all their dimensions.
    """
    for number in range(1, len(specs)):
        shared: set[str] = set()
        for spec in specs[:number]:
            shared |= spec.dimension_names
        for name in sorted(shared & specs[number].dimension_names - {"batch"}):
            own = f"{specs[number].name}_{name}"
            for variant in islice(_variants(specs, number, name, own), _MOST_VARIANTS):
                if _are_independent(trials, variant, sizes, name, own):
                    specs, sizes = variant, sizes | {own: sizes[name]}
                    break
    return specs, sizes


def _variants(specs: Specs, number: int, name: str, own: str) -> Iterator[Specs]:
    """The inputs with a dimension of its own for one; later ones follow either, or
    their sum.
    """
    changed = with_sizes(specs[number], {name: own})
    later = [list(_shapes(spec, name, own)) for spec in specs[number + 1 :]]
    for rest in product(*later):
        variant = (*specs[:number], changed, *rest)
        standing_alone: set[int | str] = set()
        for spec in variant:
            standing_alone.update(spec.shape or ())
        if own in standing_alone:
            yield variant


def _shapes(spec: TensorSpec, name: str, own: str) -> Iterator[TensorSpec]:
    """An input with either of two dimensions at each of its axes, or their sum."""
    choices = [list(_choices(size, name, own)) for size in spec.shape or ()]
    for shape in product(*choices):
        yield replace(spec, shape=tuple(shape))


def _choices(size: int | str, name: str, own: str) -> Iterator[int | str]:
    expression = None if isinstance(size, int) else parse_size(size)
    count = Fraction(0) if expression is None else expression.factors.get(name, 0)
    if expression is None or not count:
        yield size
        return
    others = {key: each for key, each in expression.factors.items() if key != name}
    for mine in range(int(count) + 1):
        factors = dict(others)
        for key, factor in ((name, count - mine), (own, Fraction(mine))):
            if factor:
                factors[key] = Fraction(factor)
        yield size_text(factors, expression.offset)


def _are_independent(
    trials: Trials, specs: Specs, sizes: Sizes, name: str, own: str
) -> bool:
    """Whether the model runs where either of two dimensions is the larger.

    A size of 1 would be broadcast, and shows nothing.
    """
    example = sizes[name]
    for other in (example // 2, example * 2, example + 1):
        if other < 2:
            continue
        runs = [
            trials.runs(specs, sizes | {name: first, own: second})
            for first, second in ((example, other), (other, example))
        ]
        if all(runs):
            return True
    return False


# Dimensions that are one


def merged(specs: Sequence[TensorSpec], first: str, second: str, name: str) -> Specs:
    """The inputs with one dimension in the place of two.

    Args:
        specs: of the inputs.
        first, second: the two.
        name: of the one.
    """
    return tuple(with_sizes(spec, {first: name, second: name}) for spec in specs)
