"""Building a model of transformers from its configuration, and from nothing else.

A configuration may name code (auto_map), kernels on the Hub (attn_implementation) or
pretrained backbones. None of that is followed: the class is one of the library's own,
and it computes its attention eagerly, which every exporter understands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.extras import extras_named

if TYPE_CHECKING:
    from torch import nn

_PASSED_OVER = (
    "_attn_implementation",
    "_attn_implementation_internal",
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "_experts_implementation",
    "quantization_config",
)
_PRETRAINED = ("use_pretrained_backbone", "use_timm_backbone")


def import_transformers() -> Any:
    """The library.

    Raises:
        MissingLibraryError: it isn't installed.
    """
    with extras_named():
        import transformers
    return transformers


def configuration(transformers: Any, values: Mapping[str, Any]) -> Any:
    """The configuration object of these values.

    Raises:
        ValueError: transformers has no such model_type.
    """
    own = {key: value for key, value in values.items() if key not in _PASSED_OVER}
    for key in _PRETRAINED:
        if own.get(key):
            raise ValueError(f"{key} would load another model")
    model_type = own.pop("model_type", None)
    return transformers.AutoConfig.for_model(model_type, **own)


def model_class(transformers: Any, values: Mapping[str, Any]) -> Any:
    """The class that a configuration names as its architecture.

    Raises:
        ValueError: it names none, or transformers has no such model.
    """
    names = values.get("architectures")
    if not isinstance(names, list) or len(names) != 1:
        raise ValueError(f"architectures is {names!r}, and one class is needed")
    found = getattr(transformers, str(names[0]), None)
    is_model = isinstance(found, type) and issubclass(
        found, transformers.PreTrainedModel
    )
    if not is_model:
        raise ValueError(f"there is no model class {names[0]!r}")
    return found


def build_model(values: Mapping[str, Any]) -> nn.Module:
    """The model with random weights, in float32.

    Raises:
        ValueError: transformers has no such model.
    """
    import torch

    transformers = import_transformers()
    chosen = model_class(transformers, values)
    config = configuration(transformers, values)
    config.use_cache = False  # past keys and values are no outputs of an export
    model: nn.Module = chosen._from_config(
        config, attn_implementation="eager", dtype=torch.float32
    )
    return model
