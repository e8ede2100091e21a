"""What a diffusers model takes and gives.

Inputs are those of the classes that are known here; outputs are found by two runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import Dimension, Signature, TensorSpec
from checkpoint_release.models.diffusers.building import CLASS, build_model
from checkpoint_release.models.probing import probed_outputs

Config = Mapping[str, Any]
_STEPS = 1000  # of diffusers' schedulers, where they aren't told otherwise
_LARGEST_EXAMPLE = 64
_EXAMPLE = 32
_TEXT = 16  # tokens of a text in examples


def signature(kwargs: Config, inputs: list[str] | None) -> Signature:
    """The signature of a configuration's model.

    Args:
        kwargs: the configuration.
        inputs: the option model.inputs; None: all that are described.

    Raises:
        ModelError: the class isn't known here, needs what can't be described, or fails.
    """
    import torch

    described = _described(kwargs)
    names = [spec.name for spec in described]
    unknown = sorted(set(inputs or ()).difference(names))
    if unknown:
        raise ModelError(
            f"{{model.inputs}} names {unknown}, and the inputs of {kwargs[CLASS]} that"
            f" can be described are {names}",
            "choose among those, or set it to null to take them all",
            options=["model.inputs"],
        )
    taken = tuple(spec for spec in described if inputs is None or spec.name in inputs)
    dimensions = _dimensions(taken, kwargs)
    with torch.device("meta"):
        model = build_model(kwargs).eval()
    try:
        outputs = probed_outputs(model, taken, dimensions)
    except ModelError:
        outputs = probed_outputs(build_model(kwargs).eval(), taken, dimensions)
    return Signature(taken, outputs, dimensions)


def _described(config: Config) -> list[TensorSpec]:
    """The inputs of the configuration's model.

    Raises:
        ModelError: its class isn't known here, or needs what can't be described.
    """
    kind = _CLASSES.get(str(config[CLASS]))
    needs = config.get("addition_embed_type") or config.get("encoder_hid_dim_type")
    if kind is None or needs:
        why = f"needs {needs} beside its tensors" if needs else "isn't described here"
        raise ModelError(
            f"{config[CLASS]} {why}; described are {', '.join(_CLASSES)}",
            "bring a {model.factory} of your own that builds it, with a"
            " {model.signature}",
            options=["model.factory", "model.signature"],
        )
    return kind(config)


def _unet(config: Config) -> list[TensorSpec]:
    inputs = [_image("sample", config), _timestep()]
    if config.get("cross_attention_dim") is not None:
        inputs.append(_text(config))
    return inputs + _labels(config.get("num_class_embeds"))


def _unet_1d(config: Config) -> list[TensorSpec]:
    shape = ("batch", config["in_channels"], config["sample_size"])
    sample = TensorSpec("sample", shape=shape, description="the noisy signal")
    return [sample, _timestep()]


def _transformer(config: Config) -> list[TensorSpec]:
    size = config["sample_size"]
    shape = ("batch", config["in_channels"], size, size)
    hidden = TensorSpec("hidden_states", shape=shape, description="the noisy latents")
    return [hidden, _timestep(), *_labels(config.get("num_embeds_ada_norm"))]


def _autoencoder(config: Config) -> list[TensorSpec]:
    return [_image("sample", config)]


_CLASSES: dict[str, Callable[[Config], list[TensorSpec]]] = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _unet,
    "UNet1DModel": _unet_1d,
    "DiTTransformer2DModel": _transformer,
    "AutoencoderKL": _autoencoder,
    "AutoencoderTiny": _autoencoder,
    "VQModel": _autoencoder,
}
"""Class → its inputs, in forward's order."""


def _image(name: str, config: Config) -> TensorSpec:
    channels = config["in_channels"]
    return TensorSpec(
        name,
        shape=("batch", channels, "height", "width"),
        description="an image or its latents, as the model was trained on",
    )


def _timestep() -> TensorSpec:
    return TensorSpec(
        "timestep",
        "int64",
        ("batch",),
        low=0,
        high=_STEPS,
        description="the step of the diffusion, as the scheduler counts",
    )


def _text(config: Config) -> TensorSpec:
    width = config["cross_attention_dim"]
    if isinstance(width, list | tuple):
        width = width[0]
    return TensorSpec(
        "encoder_hidden_states",
        shape=("batch", "tokens", width),
        description="the text encoder's output",
    )


def _labels(count: int | None) -> list[TensorSpec]:
    if not count:
        return []
    text = "the class of the image"
    return [TensorSpec("class_labels", "int64", ("batch",), 0, count, text)]


def _dimensions(inputs: tuple[TensorSpec, ...], config: Config) -> dict[str, Dimension]:
    """The dimensions that inputs have; images are halved by all blocks but the last."""
    blocks = config.get("block_out_channels") or config.get(
        "encoder_block_out_channels"
    )
    step = 2 ** (len(blocks or [1]) - 1)
    size = config.get("sample_size") or _EXAMPLE
    height, width = size if isinstance(size, list | tuple) else (size, size)
    known = {
        "batch": Dimension("batch"),
        "height": _side("height", int(height), step),
        "width": _side("width", int(width), step),
        "tokens": Dimension("tokens", example=_TEXT),
    }
    named: set[str] = set()
    for spec in inputs:
        named.update(spec.dynamic_axes.values())
    return {name: each for name, each in known.items() if name in named}


def _side(name: str, size: int, step: int) -> Dimension:
    side = Dimension(name, minimum=step, example=step, multiple=step)
    example = side.nearest(min(size, max(_LARGEST_EXAMPLE, 2 * step)))
    return Dimension(name, minimum=step, example=example, multiple=step)
