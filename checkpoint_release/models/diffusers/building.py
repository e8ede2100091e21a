"""Building a model of diffusers from its configuration, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.extras import extras_named

if TYPE_CHECKING:
    from torch import nn

CLASS = "_class_name"
"""The key of a configuration that names the model's class."""


def import_diffusers() -> Any:
    """The library.

    Raises:
        MissingLibraryError: it isn't installed.
    """
    with extras_named():
        import diffusers
    return diffusers


def model_class(diffusers: Any, values: Mapping[str, Any]) -> Any:
    """The class that a configuration names.

    Raises:
        ValueError: diffusers has no such model.
    """
    name = values.get(CLASS)
    found = getattr(diffusers, str(name), None)
    if not (isinstance(found, type) and issubclass(found, diffusers.ModelMixin)):
        raise ValueError(f"there is no model class {name!r}")
    return found


def build_model(values: Mapping[str, Any]) -> nn.Module:
    """The model with random weights, in float32.

    Raises:
        ValueError: diffusers has no such model.
    """
    diffusers = import_diffusers()
    chosen = model_class(diffusers, values)
    from checkpoint_release.models.diffusers.timesteps import with_kept_frequencies

    own = {key: value for key, value in values.items() if not key.startswith("_")}
    model: nn.Module = chosen.from_config(own)
    if isinstance(model, diffusers.VQModel):
        model.register_forward_hook(_without_training_loss)
    return with_kept_frequencies(model)


def _without_training_loss(_model: nn.Module, _arguments: Any, returned: Any) -> Any:
    """What VQModel returns without `commit_loss`, which only its training reads.

    The loss is one number for a whole batch, and a model that runs needs none.
    """
    return type(returned)(sample=returned.sample)
