"""The config.json of a checkpoint's model: how to build it and how to call it.

The constructor's arguments stand twice. At the top level they are where transformers'
configuration classes and huggingface_hub's PyTorchModelHubMixin look; under "kwargs"
they are apart from everything else, so that a rebuilt model gets exactly them, even
where one has the name of another key of config.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.artifacts.config import ModelConfig
from checkpoint_release.core.dtypes import DTYPES, FLOATS


def model_config(checkpoint: CheckpointFolder, dtype: str | None = None) -> ModelConfig:
    """What config.json says of a checkpoint's model.

    Beside the architecture it holds `architectures` and `model_type` (of a model that
    doesn't describe itself, the factory with its module: transformers would build its
    own GPT-2, with random weights, for what a factory `gpt2` made), `dtype` (as
    transformers names it since version 5), what the family's `config` adds, and the
    constructor's arguments.

    Args:
        checkpoint: the model and its weights.
        dtype: torch's name of the weights' dtype, where it isn't the checkpoint's own.

    Raises:
        ModelError: the family's `config` fails.
    """
    architecture = checkpoint.architecture
    name = architecture.factory.partition(":")[2]
    keys: dict[str, Any] = {
        "architectures": [name],
        "model_type": architecture.factory.replace(":", "."),
        "dtype": dtype or widest_float(checkpoint.facts.tensors.dtypes),
    }
    if family_config := architecture.hook("config"):
        keys |= family_config(architecture.kwargs)
    absent = [key for key, value in keys.items() if value is None]
    keys |= _free_arguments(architecture, keys)
    return ModelConfig(
        architecture, {key: value for key, value in keys.items() if key not in absent}
    )


def widest_float(dtypes: Iterable[str]) -> str:
    """The widest floating-point dtype among those of the weights.

    The widest, because transformers casts what it loads to the dtype of config.json.

    Args:
        dtypes: safetensors' names.

    Returns:
        torch's name; float32 where none is floating-point.
    """
    present = set(dtypes)
    for dtype in FLOATS:
        if dtype in present:
            return str(DTYPES[dtype].torch_name)
    return "float32"


def _free_arguments(architecture: Architecture, keys: dict[str, Any]) -> dict[str, Any]:
    """The constructor's arguments whose names no other key of config.json has."""
    taken = keys.keys() | architecture.to_json().keys()
    return {
        name: value for name, value in architecture.kwargs.items() if name not in taken
    }
