"""State dicts whose weights are quantised, known by the names that a library gives.

They aren't floats of the model's own names and shapes, so no family reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from checkpoint_release.state_dict.quantised_parts import (
    AWQ,
    BITSANDBYTES_4,
    BITSANDBYTES_8,
    GPTQ,
    TORCH_AO,
    TORCHAO,
)
from checkpoint_release.state_dict.quantised_records import kind_of

_LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (BITSANDBYTES_4, (".absmax", ".quant_map")),
    (BITSANDBYTES_8, (".SCB",)),
    (GPTQ, (".qweight", ".qzeros", ".g_idx")),
    (AWQ, (".qweight", ".qzeros", ".scales")),
    ("compressed-tensors", (".weight_packed", ".weight_scale")),
    ("float8 in blocks", (".weight_scale_inv",)),
    ("float8 or int8 with scales", (".weight_scale",)),
    ("HQQ", (".W_q",)),
    (TORCH_AO, ("._packed_params._packed_params",)),
    (TORCH_AO, (".scale", ".zero_point")),
)
"""A library's layout, and the ends of names that all occur in it; the more telling
first.
"""
CAN_BE_FLOATS = (BITSANDBYTES_4, BITSANDBYTES_8, GPTQ, AWQ, TORCH_AO, TORCHAO)
"""The layouts that say all that it takes; see checkpoint_release.state_dict.dequantise.
"""
OPTION = "checkpoint.dequantise"
REMEDY = (
    "release the weights from before they were quantised; or turn them into floats"
    " where they were (such as by model.dequantize() in transformers), and save that"
)


def quantisation(names: Collection[str]) -> str:
    """The layout that the names show.

    Args:
        names: of a state dict's entries.

    Returns:
        Such as "GPTQ"; "" where no quantisation shows.
    """
    ends = {"." + name.rpartition(".")[2] for name in names}
    ends |= {"." + ".".join(name.split(".")[-2:]) for name in names}
    for layout, telling in _LAYOUTS:
        if all(end in ends for end in telling):
            return layout
    return ""


def quantisation_in(value: Any) -> str:
    """The layout of a checkpoint's own entries, or of those in one of its dicts.

    Args:
        value: what the checkpoint holds.
    """
    if not isinstance(value, Mapping):
        return ""
    mappings = [value, *(each for each in value.values() if isinstance(each, Mapping))]
    for mapping in mappings[:100]:
        found = quantisation([name for name in mapping if isinstance(name, str)])
        found = found or next(filter(None, map(kind_of, mapping.values())), "")
        if found:
            return found
    return ""


def remedy(layout: str) -> str:
    """What to do about it, for a message that has OPTION among its options."""
    if layout in CAN_BE_FLOATS:
        return (
            "set {checkpoint.dequantise} to true, which turns them into the floats that"
            " they stand for; or release the weights from before they were quantised"
        )
    return REMEDY


def note(layout: str) -> str:
    """A sentence about it."""
    advice = remedy(layout).replace(f"{{{OPTION}}}", OPTION)
    return f"the weights are quantised, as {layout} lays them out: {advice}"
