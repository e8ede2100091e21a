"""A transformers model's config.json: read once, and then the factory's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from checkpoint_release.core.architecture import TensorShapes
from checkpoint_release.core.errors import (
    ArtifactError,
    ParamsError,
    one_line,
)
from checkpoint_release.core.files import read_json
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.models.transformers.building import (
    configuration,
    import_transformers,
    model_class,
)

CONFIG_FILE = "config.json"
_OF_THE_MACHINE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
"""Keys that say where a configuration came from; the dtype is the weights' own."""
_SHOWN = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "image_size",
)


def read_architecture(
    _tensors: TensorShapes, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole configuration, which builds the model wherever transformers is.

    Args:
        overrides: the option model.kwargs: `config` (a config.json, its folder or a
            name on the Hub), `architecture` (the class, where the configuration names
            none or another is meant), and keys that replace the configuration's own.

    Raises:
        ParamsError: there is no configuration, or transformers has no such model.
        MissingLibraryError: transformers isn't installed.
    """
    own = dict(overrides)
    own.pop("image_size", None)
    place, architecture = own.pop("config", None), own.pop("architecture", None)
    if not isinstance(place, str):
        raise ParamsError(
            "model.kwargs has no config, and the model is built from its configuration",
            "set it to the path of a config.json, to its folder, or to a name on the"
            " Hub, as in {config: ../runs/tagger}",
        )
    found = _read(place)
    found |= own
    if architecture is not None:
        found["architectures"] = [architecture]
    return _completed(found, place)


def _read(place: str) -> dict[str, Any]:
    """The configuration in a file, a folder or a repository on the Hub."""
    path = Path(place)
    if path.is_dir():
        path /= CONFIG_FILE
    if not path.exists():
        return _from_hub(place)
    try:
        value = read_json(path)
    except ArtifactError as error:
        raise ParamsError(
            f"model.kwargs names {place}: {error.problem}",
            "name a config.json of transformers",
        ) from None
    if not isinstance(value, dict) or "model_type" not in value:
        raise ParamsError(
            f"model.kwargs names {place}, which has no model_type",
            "name a config.json of transformers",
        )
    return value


def _from_hub(name: str) -> dict[str, Any]:
    """The configuration of a model on the Hub, which runs no code of its.

    Raises:
        ParamsError: it can't be had.
    """
    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"model.kwargs names the configuration {name}, which is neither a file nor"
            f" a folder, and can't be had from the Hub: {one_line(error, 200)}",
            "correct its path, which is relative to the folder of params.yaml",
        ) from None
    return _values(config, name)


def _completed(found: dict[str, Any], place: str) -> dict[str, Any]:
    """The configuration with transformers' defaults for what it leaves out.

    The defaults are stated, because another version may have others.

    Raises:
        ParamsError: transformers has no such model.
    """
    transformers = import_transformers()
    try:
        model_class(transformers, found)
        config = configuration(transformers, found)
    except (ValueError, TypeError, KeyError) as error:
        raise ParamsError(
            f"the configuration {place} makes no model of transformers"
            f" {transformers.__version__}: {one_line(error, 300)}",
            "state the class as `architecture` in model.kwargs, or bring its code as"
            " model.factory",
        ) from None
    whole = _values(config, place)
    for key in _OF_THE_MACHINE:
        whole.pop(key, None)
    whole["architectures"] = found["architectures"]
    return whole


def _values(config: Any, place: str) -> dict[str, Any]:
    """What a configuration object holds, its defaults included.

    Raises:
        ParamsError: some of it JSON can't hold, such as infinity.
    """
    try:
        value: dict[str, Any] = parse_json(config.to_json_string(use_diff=False))
    except JsonError as error:
        raise ParamsError(
            f"the configuration {place} can't be kept: it is {error}",
            "replace that value by a key of model.kwargs",
        ) from None
    return value


def config(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keys by which transformers knows the model; the others follow them."""
    return {
        "architectures": list(kwargs["architectures"]),
        "model_type": kwargs["model_type"],
    }


def describe(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card says about the architecture."""
    name = kwargs["architectures"][0]
    return {
        "name": name,
        "summary": f"A {name} of the library transformers.",
        "dimensions": {key: kwargs[key] for key in _SHOWN if key in kwargs},
    }
