"""Quantised weights as the floats that they stand for.

Only layouts that say all that it takes. Each number becomes the one that the layout's
own library computes with, rounded once to the dtype that the library gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from checkpoint_release.pth import Checkpoint
from checkpoint_release.state_dict.bitsandbytes import bitsandbytes_floats
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.packed_weights import packed_floats
from checkpoint_release.state_dict.quantised_parts import Floats

QUANTISATION_CONFIG = "quantize_config"
"""The file that GPTQ's tools leave beside weights, without its ending."""


def quantisation_config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What is stated of the quantisation beside the weights; empty where nothing is."""
    config = checkpoint.facts.get("config")
    stated = config.get("quantization_config") if isinstance(config, dict) else None
    stated = stated or checkpoint.facts.get(QUANTISATION_CONFIG)
    return stated if isinstance(stated, dict) else {}


def dequantised(
    weights: StateDict, config: Mapping[str, Any] | None = None
) -> tuple[StateDict, str]:
    """The weights with floats in the place of those that are quantised.

    Args:
        weights: name → tensor, as they lie in the file.
        config: what is stated of the quantisation beside them, such as in the
            `quantization_config` of config.json.

    Returns:
        The weights, computed when they are written, and the layout that was found,
        such as "bitsandbytes in 4 bits"; "" where nothing is quantised.

    Raises:
        CheckpointError: something of a quantised weight is missing, or contradicts
            itself.
    """
    found: Iterator[Floats] = chain(
        bitsandbytes_floats(weights), packed_floats(weights, config or {})
    )
    result: StateDict = dict(weights)
    layouts: set[str] = set()
    for floats in found:
        for part in floats.parts:
            result.pop(part, None)
        result[floats.name] = floats.tensor
        layouts.add(floats.layout)
    return result, ", ".join(sorted(layouts))
