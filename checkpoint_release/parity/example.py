"""The family's own example: a case of the parity check, which the model card shows."""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.parity import EXAMPLE_INPUTS, EXAMPLE_OUTPUTS
from checkpoint_release.core.errors import InferenceError, ModelError
from checkpoint_release.core.signature import check_inputs
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.reference import Reference
from checkpoint_release.parity.sample import save_arrays

EXAMPLE = "example"
"""The kind of the case, and the beginning of its name."""


def example_cases(architecture: Architecture) -> list[Case]:
    """The case of the family's example; none where the family has no example.

    Raises:
        ModelError: the family's hook fails, or its inputs aren't those of the model.
    """
    hook = architecture.hook("example")
    signature = architecture.signature
    inputs = hook(architecture.kwargs, signature) if hook else None
    if inputs is None:
        return []
    if not isinstance(inputs, dict):
        raise _not_taken(f"it is a {type(inputs).__name__} and no dict of arrays")
    try:
        sizes = check_inputs(signature, inputs)
    except InferenceError as error:
        raise _not_taken(error.problem) from None
    listed = [f"{name}={size}" for name, size in sizes.items()]
    name = ", ".join([EXAMPLE, *listed])
    return [Case(name, EXAMPLE, 1.0, inputs, drawn=False, sizes=sizes)]


def _not_taken(reason: str) -> ModelError:
    return ModelError(
        f"the example of {{model.factory}} isn't what the model takes: {reason}",
        "correct the function `example` of its module",
        options=["model.factory"],
    )


def write_example(folder: Path, reference: Reference) -> None:
    """Write the inputs and outputs of the example, where there is one.

    Args:
        folder: of the parity check.
        reference: what the checkpoint's own model computes. The outputs are float64's,
            rounded to the model's dtypes.
    """
    for case in reference.cases:
        if case.case.kind == EXAMPLE:
            save_arrays(folder / EXAMPLE_INPUTS, case.case.inputs)
            save_arrays(folder / EXAMPLE_OUTPUTS, case.rounded)
