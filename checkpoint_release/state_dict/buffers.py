"""Buffers that follow from a model's architecture, such as the frequencies of rotary
embeddings.

A checkpoint in half precision holds them rounded, and widening it doesn't bring their
digits back: the angle at position p is off by p times the rounding. The model that was
trained computed them in float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from checkpoint_release.core.errors import first_few
from checkpoint_release.core.signature import Array
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.wrappers import Computed

OPTION = "checkpoint.recompute_buffers"
# Relative. float32 rounds by 6e-8, float16 by up to 5e-4 and bfloat16 by up to 4e-3.
_ROUNDED = 1e-6
_MAX_LISTED = 1  # names in a note


def rounded_buffers(tensors: StateDict, exact: Mapping[str, Array]) -> dict[str, float]:
    """The buffers that hold fewer digits than float32 has.

    Args:
        tensors: the state dict.
        exact: name → values in float64, as the architecture determines them.

    Returns:
        Name → the largest error, relative to the exact value.
    """
    rounded = {}
    for name, values in exact.items():
        if name not in tensors:
            continue
        held = tensors[name].numpy().astype(np.float64)
        scale = np.where(values == 0, 1.0, np.abs(values))
        error = float(np.max(np.abs(held - values) / scale, initial=0.0))
        if error > _ROUNDED:
            rounded[name] = error
    return rounded


def recomputed(tensors: StateDict, exact: Mapping[str, Array]) -> StateDict:
    """The state dict with these buffers in float32, rounded once from float64.

    Args:
        tensors: the state dict.
        exact: name → values in float64; names that it doesn't have are passed over.

    Returns:
        A state dict of the same names in the same order.
    """
    anew: StateDict = {}
    for name, values in exact.items():
        if name in tensors:
            anew[name] = _in_float32(values)
    return {name: anew.get(name, tensor) for name, tensor in tensors.items()}


def rounding_note(rounded: Mapping[str, float]) -> str:
    """A sentence about buffers that were rounded.

    Args:
        rounded: as rounded_buffers returns it, not empty.
    """
    count = f"{len(rounded)} buffers" if len(rounded) > 1 else "a buffer"
    names = first_few(list(rounded), _MAX_LISTED)
    return (
        f"{count} that the architecture determines ({names}) have the digits of"
        f" half precision, off by up to {max(rounded.values()):.1e} of a value, unlike"
        f" those of the model in training; {OPTION}: true computes them anew"
    )


def _in_float32(values: Array) -> Computed:
    """A tensor of these values, rounded to float32."""
    return Computed("F32", values.shape, lambda: values.astype(np.float32))
