"""What the checkpoint's own model gives has to be finite."""

from __future__ import annotations

import numpy as np
import pytest

from checkpoint_release.core.errors import ModelError
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.finite import require_finite

NAN = {"logits": np.array([1.0, np.nan])}


def case(**inputs: np.ndarray) -> Case:
    return Case("nominal, batch=2", "nominal", 1.0, inputs)


def test_finite_outputs_and_integers_pass() -> None:
    outputs = {"logits": np.ones(3), "labels": np.ones(3, np.int64)}
    require_finite(outputs, case(mask=np.zeros((2, 3), bool)), "float32")


@pytest.mark.parametrize(
    "mask", [np.zeros((2, 3), np.int64), np.array([[True, False], [True, True]])]
)
def test_a_mask_that_may_leave_nothing_is_named_as_the_cause(mask: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"\['logits'\].*rows of \['mask'\]") as caught:
        require_finite(NAN, case(tokens=np.zeros((2, 3), np.int64), mask=mask), "")
    assert "-inf" in caught.value.remedy and "model.inputs" in caught.value.remedy


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.zeros((2, 3))},
        {"tokens": np.zeros((2, 3), np.int64)},
        {"mask": np.array([[True, False], [False, True]])},
    ],
)
def test_without_such_a_mask_the_weights_are_looked_at(
    inputs: dict[str, np.ndarray],
) -> None:
    with pytest.raises(ModelError) as caught:
        require_finite(NAN, case(**inputs), "float64")
    assert "mask" not in caught.value.problem
    assert "look at its weights" in caught.value.remedy
