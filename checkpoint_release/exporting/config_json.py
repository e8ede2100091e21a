"""config.json: how to build the model and how to call it. It lies in every artifact
folder.

The constructor's arguments stand twice. At the top level they are where transformers'
configuration classes and huggingface_hub's PyTorchModelHubMixin look; under "kwargs"
they stand apart from everything else, so that a rebuilt model gets exactly them, even
where one is called as a key of config.json is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from checkpoint_release.core.architecture import Architecture

# safetensors' name → torch's, widest first
_FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def model_config(
    checkpoint: Mapping[str, Any], dtype: str | None = None
) -> dict[str, Any]:
    """What config.json says of a checkpoint's model.

    Args:
        checkpoint: the content of checkpoint.json.
        dtype: torch's name of the weights' dtype, where it isn't the checkpoint's own.

    Returns:
        `architectures` and `model_type` (of a model that doesn't describe itself: the
        factory's name), `dtype` (as transformers names it since version 5), the
        constructor's arguments, what the family's `config` adds, and then the keys of
        this project: `factory`, `described`, `kwargs`, `signature`.
    """
    architecture = Architecture.from_json(checkpoint["model"])
    own = architecture.to_json()
    name = architecture.factory.partition(":")[2]
    config = {
        "architectures": [name],
        "model_type": _snake_case(name),
        "dtype": dtype or weights_dtype(checkpoint),
    }
    if say := architecture.hook("config"):
        config |= say(architecture.kwargs)
    return (
        config
        | {
            key: value
            for key, value in architecture.kwargs.items()
            if key not in config | own
        }
        | own
    )


def weights_dtype(checkpoint: Mapping[str, Any]) -> str:
    """The widest floating-point dtype among the weights, by torch's name; float32 when
    there is none.

    The widest, for transformers casts what it loads to the dtype that config.json
    names.
    """
    found = checkpoint["tensors"]["dtypes"]
    return next((name for key, name in _FLOATS.items() if key in found), "float32")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
