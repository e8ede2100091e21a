"""Why a model doesn't run as its signature says: found by trying what would run.

The message of a library is about its own arguments ("mat1 and mat2 shapes cannot be
multiplied"). What the reader can correct is a key of the signature, so each of them is
varied until the model runs; if none helps, it is the model that fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.runtimes.model_alone import (
    ForwardError,
    ModelAlone,
    Sizes,
    example_sizes,
    parameter_sizes,
    sizes_text,
    with_input,
)
from checkpoint_release.runtimes.size_diagnosis import (
    must_agree,
    nearest_that_runs,
    only_some_size,
    wrong_expression,
    wrong_size,
)

_DTYPES = ("float32", "int64", "int32", "float64", "float16", "bool")


def explain(alone: ModelAlone, sizes: Sizes, failure: ForwardError) -> ModelError:
    """What is wrong where a model fails on samples of its signature.

    Args:
        alone: the model.
        sizes: at which it failed.
        failure: what forward raised.
    """
    example = example_sizes(alone.signature)
    if sizes != example and alone.runs(example):
        return wrong_size(alone, example, sizes, failure)
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
    low, high = int(spec.low or 0), int(spec.high or 1)

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
        last = nearest_that_runs(runs, works=low, fails=high - 1)
        return alone.error(
            f"{alone.key('inputs')}: high of {spec.name!r} is {high}, and the model"
            f" fails at {high - 1}: {failure.cause}",
            f"state `high: {last + 1}`: the model takes up to {last}",
        )
    first = (
        nearest_that_runs(runs, works=high - 1, fails=low) if runs(high - 1) else None
    )
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


_DIAGNOSES = (
    _wrong_range,
    _wrong_dtype,
    _wrong_shape,
    wrong_expression,
    must_agree,
    only_some_size,
)
"""What may be wrong with a signature whose own examples a model doesn't take."""
