"""Checks of what a stated signature says of one tensor: its sizes and its range."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from checkpoint_release.core.dtypes import SIGNATURE_DTYPES
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.signature import Dimension, TensorSpec
from checkpoint_release.core.size_expressions import parse_size, size_names
from checkpoint_release.core.text import shown

OPTION = "model.signature"
ALLOWED = {
    "inputs": "list the model's inputs, in forward's order",
    "outputs": "list the model's outputs, in the order of what forward returns",
    "dimensions": "give a mapping from the dimensions in shapes to their bounds",
    "name": "give the name that the model's forward has for it",
    "dtype": f"choose one of {', '.join(SIGNATURE_DTYPES)}",
    "shape": "list whole numbers of at least 1, names of dimensions, and what follows"
    " from those, such as 2*frames + 1 or height/8",
    "low": "give a number; of integers a whole number",
    "high": "give a number; of integers a whole number",
    "description": "give a text, in quotes if need be",
    "minimum": "give a whole number of at least 0",
    "maximum": "give a whole number of at least 1, or null: unbounded",
    "example": "give a whole number of at least 1",
    "multiple": "give a whole number of at least 1",
}
"""Key of a signature → what is allowed there."""


def signature_error(key: str, problem: str, remedy: str) -> ParamsError:
    """An error about a key of the option model.signature."""
    return ParamsError(f"{key} {problem}", remedy, options=[OPTION])


def check_size(size: str, key: str) -> None:
    """Make sure that a text in a shape is a name or an expression.

    Args:
        size: the text.
        key: where it stands, for messages.

    Raises:
        ParamsError: it is neither.
    """
    is_meant = bool(set(size) & set("+*/")) or not (size[0].isalpha() or size[0] == "_")
    if is_meant and parse_size(size) is None:
        raise signature_error(
            key,
            f"is {shown(size)}, which is no size",
            "write a name, or a sum of whole numbers and of dimensions, each by a"
            " factor above 0, such as 2*frames + 1, past + tokens or height/8",
        )


def check_expressions(
    spec: TensorSpec, dimensions: Mapping[str, Dimension], key: str
) -> None:
    """Make sure that expressions are of the signature's dimensions, and give whole
    numbers that can be sizes.

    Args:
        spec: whose shape.
        dimensions: of the signature.
        key: where the shape stands, for messages.

    Raises:
        ParamsError: one isn't or doesn't.
    """
    for axis, text in spec.dynamic_axes.items():
        expression = parse_size(text)
        if text in dimensions or expression is None:
            continue
        _require_dimensions(text, dimensions, f"{key}[{axis}]")
        for name, factor in expression.factors.items():
            step = (factor * dimensions[name].multiple).denominator
            if step > 1:
                multiple = dimensions[name].multiple * step
                raise signature_error(
                    f"{key}[{axis}]",
                    f"is {shown(text)}, and not every {name} can be divided so",
                    f"state `multiple: {multiple}` in the dimension {name}",
                )
        smallest = {name: each.minimum for name, each in dimensions.items()}
        least = expression.value(smallest)
        if least < 0:
            raise signature_error(
                f"{key}[{axis}]",
                f"is {shown(text)}, and with the smallest sizes that is {least}",
                "raise the minimum of its dimensions",
            )


def _require_dimensions(text: str, known: Collection[str], key: str) -> None:
    """Make sure that an expression is of dimensions.

    Args:
        text: the expression.
        known: the dimensions.
        key: where it stands, for messages.

    Raises:
        ParamsError: a name in it stands alone in no input's shape.
    """
    unknown = sorted(size_names(text).difference(known))
    if unknown:
        raise signature_error(
            key,
            f"is {shown(text)}, and {shown(unknown)} stands alone in no input's shape",
            "a size follows from dimensions that some input has by themselves; where"
            " none has, write a name here, and a `multiple` if it has one",
        )


def check_range(spec: TensorSpec, key: str) -> None:
    """Make sure that a stated range is one of values that the dtype holds.

    Args:
        spec: of which low or high is stated, or both.
        key: where it stands, for messages.

    Raises:
        ParamsError: it isn't, or only one of the two is stated.
    """
    if spec.dtype == "bool":
        raise signature_error(key, "is bool and has a range", "remove low and high")
    for name, bound in (("low", spec.low), ("high", spec.high)):
        is_whole = isinstance(bound, int) or not spec.is_integer
        if bound is None or not is_whole or not math.isfinite(bound):
            raise signature_error(f"{key}.{name}", f"is {bound!r}", ALLOWED[name])
    if spec.is_integer:
        _check_integer_range(spec, key)
    else:
        _check_float_range(spec, key)


def _check_float_range(spec: TensorSpec, key: str) -> None:
    """Make sure that a range of floats is one of several values that the dtype holds.

    Raises:
        ParamsError: it isn't.
    """
    low, high = spec.low or 0.0, spec.high or 0.0
    largest = float(np.finfo(spec.dtype).max)
    if not -largest <= low < high <= largest:
        raise signature_error(
            f"{key}.low",
            f"is {low}, and high is {high}",
            "choose low below high, within what"
            f" {spec.dtype} holds: ±{largest:.4g}; both are included",
        )


def _check_integer_range(spec: TensorSpec, key: str) -> None:
    """Make sure that a range of integers is one that the dtype holds.

    Raises:
        ParamsError: it isn't.
    """
    low, high = int(spec.low or 0), int(spec.high or 0)
    limits = np.iinfo(spec.dtype)
    if not limits.min <= low < high <= int(limits.max) + 1:
        raise signature_error(
            f"{key}.low",
            f"is {low}, and high is {high}",
            "choose low (included) below high (excluded), within what"
            f" {spec.dtype} holds: {limits.min} to {limits.max}",
        )
