"""What the checkpoint's own model gives has to be finite to be compared."""

from __future__ import annotations

import numpy as np

from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import Arrays
from checkpoint_release.parity.cases import Case


def require_finite(outputs: Arrays, case: Case, precision: str) -> None:
    """Require that an error against the reference can be measured.

    Args:
        outputs: of the checkpoint's own model in a case.
        case: the case, for the message.
        precision: that the model ran in, for the message.

    Raises:
        ModelError: an output holds NaN or infinity; the message names each.
    """
    broken = []
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            broken.append(name)
    if not broken:
        return
    problem = (
        f"the checkpoint's own model, in {precision}, gives NaN or infinity for"
        f" {broken} in the case {case.name!r}"
    )
    masks = _masks_of_one_value(case.inputs)
    if masks:
        raise ModelError(
            f"{problem}, where rows of {masks} are of one value throughout",
            "if nothing is attended to in such a row, let forward bear it, as with"
            " torch.finfo(scores.dtype).min in the place of -inf; or leave the mask"
            " out of {model.inputs}",
            options=["model.inputs"],
        )
    raise ModelError(
        problem,
        "look at its weights; if only that magnitude is too much for it, take it"
        " out of {parity.magnitudes}",
        options=["parity.magnitudes"],
    )


def _masks_of_one_value(inputs: Arrays) -> list[str]:
    """The masks, which are booleans or called so, with a row of one value alone: it may
    leave nothing to attend to.
    """
    names = []
    for name, array in inputs.items():
        is_mask = array.dtype.kind == "b" or "mask" in name.lower()
        if not is_mask or not array.ndim:
            continue
        if (array == array[..., :1]).all(axis=-1).any():
            names.append(name)
    return names
