"""Why a model doesn't run as its signature says: found by trying what would run.

The message of a library is about its own arguments ("mat1 and mat2 shapes cannot be
multiplied"). What the reader can correct is a key of the signature, so each of them is
varied until the model runs; if none helps, it is the model that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import Dimension, TensorSpec
from checkpoint_release.runtimes.model_alone import (
    ForwardError,
    ModelAlone,
    Sizes,
    example_sizes,
    parameter_sizes,
    sizes_text,
    with_input,
)

_DTYPES = ("float32", "int64", "int32", "float64", "float16", "bool")
_STEPS = range(2, 65)  # multiples that sizes may have to be


def explain(alone: ModelAlone, sizes: Sizes, failure: ForwardError) -> ModelError:
    """What is wrong where a model fails on samples of its signature.

    Args:
        alone: the model.
        sizes: at which it failed.
        failure: what forward raised.
    """
    example = example_sizes(alone.signature)
    if sizes != example and alone.runs(example):
        return _wrong_size(alone, example, sizes, failure)
    for diagnose in _DIAGNOSES:
        found = diagnose(alone, sizes, failure)
        if found is not None:
            return found
    return alone.error(
        f"the model by itself, before any export, fails at {sizes_text(sizes)}:"
        f" {failure.cause}",
        "correct the shapes and dtypes in {model.signature}, or the model's forward",
    )


# --------------------------------------------------------------------------------------
# Sizes of dimensions


def _wrong_size(
    alone: ModelAlone, example: Sizes, sizes: Sizes, failure: ForwardError
) -> ModelError:
    """A model that runs at the sizes of the example, and not at these.

    Args:
        alone: the model.
        example: sizes at which it runs.
        sizes: at which it failed.
        failure: what forward raised.
    """
    found = _must_agree(alone, sizes, failure)
    if found is not None:
        return found
    for name, size in sizes.items():
        if not alone.runs(example | {name: size}):
            return _wrong_bound(alone, name, size, failure)
    return alone.error(
        f"the model by itself fails at {sizes_text(sizes)}: {failure.cause}",
        f"correct the bounds in {alone.key('dimensions')} to what the model takes",
    )


def _must_agree(
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


def _only_some_size(
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

    found = _nearest(runs, works=dimension.example, fails=size)
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


def _nearest(runs: Callable[[int], bool], works: int, fails: int) -> int:
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


# --------------------------------------------------------------------------------------
# Inputs


def wrong_high(
    alone: ModelAlone, spec: TensorSpec, sizes: Sizes, failure: ForwardError
) -> ModelError:
    """An input of integers whose highest value the model doesn't take.

    Args:
        alone: the model.
        spec: of the input.
        sizes: at which it was tried.
        failure: what forward raised.
    """
    low, high = spec.low or 0, spec.high or 1

    def runs(value: int) -> bool:
        inputs = alone.sample(sizes)
        inputs[spec.name] = np.full_like(inputs[spec.name], value)
        try:
            alone.run(inputs)
        except ForwardError:
            return False
        return True

    last = high - 1
    if runs(low):
        last = _nearest(runs, works=low, fails=high - 1)
        return alone.error(
            f"{alone.key('inputs')}: high of {spec.name!r} is {high}, and the model"
            f" fails at {high - 1}: {failure.cause}",
            f"state `high: {last + 1}`: the model takes up to {last}",
        )
    first = _nearest(runs, works=high - 1, fails=low) if runs(high - 1) else None
    remedy = f"state `low: {first}`" if first is not None else "correct low and high"
    return alone.error(
        f"{alone.key('inputs')}: low of {spec.name!r} is {low}, and the model fails"
        f" there: {failure.cause}",
        remedy,
    )


def _wrong_range(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """An input of integers that is too large or too small; None: it isn't that."""
    for spec in alone.signature.inputs:
        if not spec.is_integer or spec.low is None or spec.high is None:
            continue
        lowest = replace(spec, high=spec.low + 1)
        highest = replace(spec, low=spec.high - 1)
        for narrow in (lowest, highest):
            if alone.runs(sizes, with_input(alone.signature, narrow)):
                return wrong_high(alone, spec, sizes, failure)
    return None


def _wrong_dtype(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """An input with another dtype than forward takes; None: it isn't that."""
    for spec in alone.signature.inputs:
        for other in _other_dtypes(spec):
            if alone.runs(sizes, with_input(alone.signature, other)):
                return alone.error(
                    f"{alone.key('inputs')}: dtype of {spec.name!r} is {spec.dtype},"
                    f" and forward fails with it: {failure.cause}",
                    f"state `dtype: {other.dtype}`, with which it runs",
                )
    return None


def _other_dtypes(spec: TensorSpec) -> Iterator[TensorSpec]:
    """The input with every other dtype; integers are zeros, which are in any range."""
    for dtype in _DTYPES:
        if dtype == spec.dtype:
            continue
        integer = np.dtype(dtype).kind == "i"
        low, high = (0, 1) if integer else (None, None)
        yield replace(spec, dtype=dtype, low=low, high=high)


def _wrong_shape(
    alone: ModelAlone, sizes: Sizes, failure: ForwardError
) -> ModelError | None:
    """An input with a number in its shape that forward doesn't take; None: it isn't
    that.
    """
    candidates = parameter_sizes(alone.model)
    for spec in alone.signature.inputs:
        for axis, stated in enumerate(spec.shape or ()):
            if isinstance(stated, str):
                continue
            for size in candidates:
                shape = list(spec.shape or ())
                shape[axis] = size
                other = replace(spec, shape=tuple(shape))
                if alone.runs(sizes, with_input(alone.signature, other)):
                    return alone.error(
                        f"{alone.key('inputs')}: shape of {spec.name!r} is"
                        f" {list(spec.shape or ())}, and forward fails with it:"
                        f" {failure.cause}",
                        f"state {shape}, with which it runs",
                    )
    return None


_DIAGNOSES = (_wrong_range, _wrong_dtype, _wrong_shape, _must_agree, _only_some_size)
"""What may be wrong with a signature whose own examples a model doesn't take."""
