"""Which size in a signature a model doesn't keep: bounds, multiples, and relations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, permutations

from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import Dimension
from checkpoint_release.core.size_expressions import parse_size, size_text
from checkpoint_release.runtimes.model_alone import (
    ForwardError,
    ModelAlone,
    Sizes,
    example_sizes,
    parameter_sizes,
    sizes_text,
    with_input,
)

_STEPS = range(2, 65)  # multiples that sizes may have to be
_MOST_GROWTH = 16  # of a dimension, for each step of another that it follows
_OFFSETS = 8  # from the one that an expression states


def wrong_size(
    alone: ModelAlone, example: Sizes, sizes: Sizes, failure: ForwardError
) -> ModelError:
    """A model that runs at the sizes of the example, and not at these.

    Args:
        alone: the model.
        example: sizes at which it runs.
        sizes: at which it failed.
        failure: what forward raised.
    """
    found = must_agree(alone, sizes, failure) or _must_follow(alone, sizes, failure)
    if found is not None:
        return found
    for name, size in sizes.items():
        if not alone.runs(example | {name: size}):
            return _wrong_bound(alone, name, size, failure)
    return alone.error(
        f"the model by itself fails at {sizes_text(sizes)}: {failure.cause}",
        f"correct the bounds in {alone.key('dimensions')} to what the model takes",
    )


def must_agree(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """Two dimensions that must have one size; None: it isn't that.

    Args:
        alone: the model.
        sizes: at which it failed, different ones.
        failure: what forward raised.
    """
    for first, second in combinations(sizes, 2):
        # the larger one for both: a bound that is too high would still fail
        larger = max(sizes[first], sizes[second])
        same = sizes | {first: larger, second: larger}
        if same != sizes and alone.runs(same):
            return alone.error(
                f"{alone.key('dimensions')}: {first} and {second} are two dimensions,"
                f" and the model fails where they differ ({sizes_text(sizes)}):"
                f" {failure.cause}",
                f"write {first} in the place of {second} in the shapes of the inputs",
            )
    return None


def _must_follow(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """Two dimensions of which one follows from the other; None: it isn't that.

    Args:
        alone: the model, which runs at the sizes of its examples.
        sizes: at which it failed.
        failure: what forward raised.
    """
    example = example_sizes(alone.signature)
    for first, second in permutations(sizes, 2):
        expression = _relation(alone, example, first, second)
        if expression is not None:
            return alone.error(
                f"{alone.key('dimensions')}: {first} and {second} are two dimensions,"
                f" and the model fails at {sizes_text(sizes)}: {failure.cause}",
                f"write {expression} in the place of {second} in the shapes of the"
                " inputs: the model runs with that",
            )
    return None


def _relation(alone: ModelAlone, example: Sizes, first: str, second: str) -> str | None:
    """The second dimension as an expression of the first; None: it follows no such one.

    Only a second dimension that may not vary by itself follows the first.

    Args:
        alone: the model.
        example: sizes at which it runs.
        first, second: names of dimensions.
    """
    step = alone.signature.dimensions[first].multiple
    longer = example | {first: example[first] + step}
    if alone.runs(longer) or alone.runs(example | {second: example[second] + 1}):
        return None
    for growth in range(1, _MOST_GROWTH + 1):
        if not alone.runs(longer | {second: example[second] + growth}):
            continue
        offset = example[second] - Fraction(growth, step) * example[first]
        farther = example[first] + 3 * step
        expected = example[second] + 3 * growth
        if offset.denominator == 1 and alone.runs(
            example | {first: farther, second: expected}
        ):
            return size_text({first: Fraction(growth, step)}, int(offset))
    return None


def only_some_size(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """A dimension whose example the model doesn't take; None: it isn't that.

    Args:
        alone: the model.
        sizes: of the examples.
        failure: what forward raised.
    """
    for name, stated in sizes.items():
        for size in parameter_sizes(alone.model):
            if alone.runs(sizes | {name: size}):
                return alone.error(
                    f"{alone.key(f'dimensions.{name}')} is {stated} in examples, and"
                    f" the model fails there: {failure.cause}",
                    f"write {size} in its place in the shapes of the inputs, or state"
                    f" `example: {size}` and its bounds: with {size} the model runs",
                )
    return None


def _wrong_bound(
    alone: ModelAlone, name: str, size: int, failure: ForwardError
) -> ModelError:
    """A model that doesn't take a size which the bounds of one dimension allow.

    Args:
        alone: the model, which runs at the sizes of its examples.
        name: of the dimension.
        size: that it doesn't take.
        failure: what forward raised.
    """
    dimension = alone.signature.dimensions[name]
    example = example_sizes(alone.signature)

    def runs(value: int) -> bool:
        return alone.runs(example | {name: dimension.nearest(value)})

    found = nearest_that_runs(runs, works=dimension.example, fails=size)
    nearest = dimension.nearest(found)
    fails = f"the model fails at {name} {size}: {failure.cause}"
    if _takes_some_sizes_beyond(runs, dimension, nearest, size):
        step = _step(runs, dimension.example)
        taken = f"; it runs at multiples of {step}" if step else ""
        return alone.error(
            f"{alone.key(f'dimensions.{name}')} allows {dimension.bounds}, and {fails}"
            f"{taken}",
            f"state `multiple: {step}` for it"
            if step
            else "pad in forward, or state a number in the place of the dimension",
        )
    bound = "minimum" if size < dimension.example else "maximum"
    stated = dimension.minimum if bound == "minimum" else dimension.maximum
    shown = "null" if stated is None else stated
    runs_to = "from" if bound == "minimum" else "up to"
    return alone.error(
        f"{alone.key(f'dimensions.{name}.{bound}')} is {shown}, and {fails}",
        f"set it to {nearest}: the model runs {runs_to} there",
    )


def nearest_that_runs(runs: Callable[[int], bool], works: int, fails: int) -> int:
    """The size nearest to one that fails at which the model runs, by halving.

    Args:
        runs: whether the model runs at a size.
        works: a size at which it does.
        fails: a size at which it doesn't.
    """
    while abs(works - fails) > 1:
        middle = (works + fails) // 2
        if runs(middle):
            works = middle
        else:
            fails = middle
    return works


def _takes_some_sizes_beyond(
    runs: Callable[[int], bool], dimension: Dimension, nearest: int, size: int
) -> bool:
    """Whether sizes fail for another reason than a bound, such as being odd.

    Args:
        runs: whether the model runs at a size.
        dimension: whose sizes.
        nearest: the size that runs and has a neighbour that fails.
        size: that fails.
    """
    if size < dimension.example:
        between = range(nearest + 1, dimension.example)
        return not all(runs(value) for value in between[:4])
    beyond = (size + 1, size + 2, size + 3, 2 * dimension.example)
    return any(value > size and runs(value) for value in beyond)


def _step(runs: Callable[[int], bool], example: int) -> int | None:
    """The number whose multiples are the sizes that a model takes; None: no such."""
    for step in _STEPS:
        if example % step == 0 and runs(example + step) and not runs(example + 1):
            return step
    return None


def wrong_expression(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """A size that follows otherwise than stated; None: it isn't that."""
    for spec in alone.signature.inputs:
        for axis, text in spec.dynamic_axes.items():
            for other in _other_expressions(text):
                shape = list(spec.shape or ())
                shape[axis] = other
                changed = replace(spec, shape=tuple(shape))
                if alone.runs(sizes, with_input(alone.signature, changed)):
                    return alone.error(
                        f"{alone.key('inputs')}: {text} in the shape of {spec.name!r}"
                        f" isn't what forward takes: {failure.cause}",
                        f"write {other} in its place, with which it runs",
                    )
    return None


def _other_expressions(text: str) -> Iterator[str]:
    """The expression with other offsets, the nearest first; a name has none."""
    expression = parse_size(text)
    if expression is None or text in expression.factors:
        return
    for distance in range(1, _OFFSETS + 1):
        for offset in (expression.offset + distance, expression.offset - distance):
            yield size_text(expression.factors, offset)
