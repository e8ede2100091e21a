"""A diffusers model's config.json: read once, and then the factory's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.core.architecture import TensorShapes
from checkpoint_release.core.errors import ArtifactError, ParamsError, one_line
from checkpoint_release.core.files import canonical_json, read_json
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.models.diffusers.building import (
    CLASS,
    build_model,
    import_diffusers,
    model_class,
)

CONFIG_FILE = "config.json"
_SHOWN = (
    "in_channels",
    "out_channels",
    "latent_channels",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "sample_size",
)


def read_architecture(
    _tensors: TensorShapes, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole configuration, which builds the model wherever diffusers is.

    Args:
        overrides: the option model.kwargs: `config` (a config.json, or its folder), and
            keys that replace the configuration's own.

    Raises:
        ParamsError: there is no configuration, or diffusers has no such model.
        MissingLibraryError: diffusers isn't installed.
    """
    own = dict(overrides)
    own.pop("image_size", None)
    place = own.pop("config", None)
    if not isinstance(place, str):
        raise ParamsError(
            "model.kwargs has no config, and the model is built from its configuration",
            "set it to the path of a config.json or to its folder, as in"
            " {config: ../runs/unet}",
        )
    return _completed(_read(place) | own, place)


def _read(place: str) -> dict[str, Any]:
    """The configuration in a file or folder.

    Raises:
        ParamsError: there is none, or it isn't one of diffusers.
    """
    path = Path(place)
    if path.is_dir():
        path /= CONFIG_FILE
    remedy = (
        "name a config.json that save_pretrained of diffusers wrote; of a pipeline,"
        " that of one of its models, such as its folder unet"
    )
    try:
        value = read_json(path)
    except ArtifactError as error:
        raise ParamsError(
            f"model.kwargs names {place}: {error.problem}", remedy
        ) from None
    if not isinstance(value, dict) or CLASS not in value:
        raise ParamsError(f"model.kwargs names {place}, which has no {CLASS}", remedy)
    return value


def _completed(found: dict[str, Any], place: str) -> dict[str, Any]:
    """The configuration with diffusers' defaults for what it leaves out.

    The defaults are stated, because another version may have others.

    Raises:
        ParamsError: diffusers has no such model.
    """
    diffusers = import_diffusers()
    import torch

    try:
        model_class(diffusers, found)
        with torch.device("meta"):
            model: Any = build_model(found)
        whole = {
            name: value
            for name, value in model.config.items()
            if not name.startswith("_")
        }
        kept: dict[str, Any] = parse_json(canonical_json(whole))
    except (ValueError, TypeError, KeyError, JsonError) as error:
        raise ParamsError(
            f"the configuration {place} makes no model of diffusers"
            f" {diffusers.__version__}: {one_line(error, 300)}",
            "correct it, or bring its code as model.factory",
        ) from None
    return {CLASS: found[CLASS], **kept}


def config(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keys by which diffusers knows the model; the others follow them.

    A key `dtype` would be an argument of the model's class to it.
    """
    name = kwargs[CLASS]
    return {CLASS: name, "architectures": [name], "dtype": None}


def describe(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card says about the architecture."""
    name = kwargs[CLASS]
    shown = {key: kwargs[key] for key in _SHOWN if kwargs.get(key) is not None}
    return {
        "name": name,
        "summary": f"{name}, a model of the library diffusers.",
        "dimensions": shown,
    }
