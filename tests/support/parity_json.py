"""parity.json as parity-check writes it, for tests that start behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from checkpoint_release.core.signature import Signature


def parity_json(checked: Mapping[str, str], signature: Signature) -> dict[str, Any]:
    """A verdict that passed these formats (name → sha256 of the manifest), every figure
    another number.
    """
    names = [spec.name for spec in signature.outputs]
    formats = {}
    for i, format in enumerate(checked):
        exact = format == "safetensors"
        formats[format] = {
            "passed": True,
            "rule": "exact" if exact else "noise",
            "weights": {"bit_for_bit": 40 + i, "of": 50},
            "bit_identical_cases": 11 if exact else 0,
            "outputs": {
                name: {
                    "max_abs_error": (i + 1) * 1e-6 + j * 1e-7,
                    "mean_abs_error": 1e-8,
                    "times_floor": 0.5 + i + j / 10,
                    "limit": 4.0,
                    "cosine": 1.0,
                    "ulps": 1.0,
                    "max_ulps": 3.0,
                    "worst_case": "plain, sequence=5, batch=1",
                    "worst_index": "0,0",
                }
                for j, name in enumerate(names)
            },
        }
    return {
        "passed": True,
        "checked": dict(checked),
        "rule": {"noise_multiple": 4.0, "seed": 0, "cases": 11},
        "noise_floor": {name: {"typical": 1.5e-7, "worst": 9e-7} for name in names},
        "formats": formats,
    }
