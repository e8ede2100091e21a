"""An export that holds at other sizes passes the shape check, and no other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Array, Dimension, Signature, TensorSpec
from checkpoint_release.exporting.shape_check import (
    check_shapes,
    check_sizes,
    example_sizes,
)

SIGNATURE = Signature(
    (TensorSpec("x", shape=("batch", "length")),),
    (TensorSpec("total", shape=("batch",)), TensorSpec("scaled")),
    {"batch": Dimension("batch", 1, 8, 1), "length": Dimension("length", 2, None, 6)},
)


def model(inputs: Sequence[Array]) -> list[Array]:
    (x,) = inputs
    return [x.sum(1), x * np.float32(x.shape[1])]


def baked_value(inputs: Sequence[Array]) -> list[Array]:
    return [inputs[0].sum(1), inputs[0] * np.float32(6)]


def baked_shape(inputs: Sequence[Array]) -> list[Array]:
    return [inputs[0].sum(1)[:2], model(inputs)[1]]


def other_dtype(inputs: Sequence[Array]) -> list[Array]:
    return [array.astype(np.float64) for array in model(inputs)]


def failing(inputs: Sequence[Array]) -> list[Array]:
    if inputs[0].shape[1] != 6:
        raise RuntimeError("shapes\ndon't match")
    return model(inputs)


def nan(inputs: Sequence[Array]) -> list[Array]:
    return [model(inputs)[0], model(inputs)[1] * np.float32("nan")]


def test_it_asks_at_the_examples_at_others_and_at_the_smallest() -> None:
    # a 1 would hide behind broadcasting
    assert example_sizes(SIGNATURE) == {"batch": 2, "length": 6}
    assert list(check_sizes(SIGNATURE)) == [
        {"batch": 2, "length": 6},
        {"batch": 3, "length": 9},
        {"batch": 1, "length": 2},
    ]


def test_what_computes_the_same_passes() -> None:
    check_shapes("it", SIGNATURE, model, model)
    check_shapes("it", SIGNATURE, model)


@pytest.mark.parametrize(
    ("export", "problem"),
    [
        (
            baked_value,
            "it at batch 3, length 9: output 'scaled' is off the eager model's by",
        ),
        (baked_shape, "output 'total' has the shape (2,), and it should be (3,)"),
        (other_dtype, "output 'total' is float64, and the signature says float32"),
        (failing, "it at batch 3, length 9 fails: RuntimeError: shapes don't match"),
        (nan, "output 'scaled' is off the eager model's by nan"),
    ],
)
def test_what_does_not_is_named_with_the_sizes(export: object, problem: str) -> None:
    with pytest.raises(ExportError) as error:
        check_shapes("it", SIGNATURE, export, model)  # type: ignore[arg-type]
    assert problem in error.value.problem


def test_a_model_that_fails_at_its_own_sizes_is_not_the_export_s_fault() -> None:
    with pytest.raises(
        ExportError, match="the eager model itself fails: RuntimeError"
    ) as error:
        check_shapes("it", SIGNATURE, model, failing)
    assert "minimum and maximum" in error.value.remedy
