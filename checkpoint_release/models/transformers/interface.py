"""What a transformers model takes and gives.

Inputs are those that forward names, of the kinds that are known here; outputs are found
by two runs. An axis that changed as a dimension of the inputs did is that dimension.
The runs are on torch's meta device, which computes shapes and no values, or, where
forward looks at values, on zeros.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.errors import ModelError
from checkpoint_release.core.signature import (
    Dimension,
    Signature,
    TensorSpec,
)
from checkpoint_release.models.probing import probed_outputs

if TYPE_CHECKING:
    from torch import nn

Config = Mapping[str, Any]
_LONGEST = ("max_position_embeddings", "n_positions", "max_sequence_length")
_COUNTED_FROM_PADDING = ("roberta", "camembert", "xlm", "mpnet", "longformer", "esm")


def _tokens(name: str, dimension: str) -> Callable[[Config], TensorSpec]:
    def spec(config: Config) -> TensorSpec:
        vocabulary = config.get("vocab_size") or _inner(config, "vocab_size")
        return TensorSpec(
            name,
            "int64",
            ("batch", dimension),
            low=0,
            high=vocabulary,
            description="tokens, as the tokenizer numbers them",
        )

    return spec


def _mask(name: str, dimension: str) -> Callable[[Config], TensorSpec]:
    def spec(_config: Config) -> TensorSpec:
        return TensorSpec(
            name,
            "int64",
            ("batch", dimension),
            low=0,
            high=2,
            description="1 for a token, 0 for padding",
        )

    return spec


def _token_types(config: Config) -> TensorSpec:
    return TensorSpec(
        "token_type_ids",
        "int64",
        ("batch", "sequence"),
        low=0,
        high=max(1, int(config.get("type_vocab_size") or 1)),
        description="which of two texts a token is of",
    )


def _pixels(config: Config) -> TensorSpec:
    size = config.get("image_size") or _inner(config, "image_size") or 224
    height, width = size if isinstance(size, list | tuple) else (size, size)
    channels = config.get("num_channels") or _inner(config, "num_channels") or 3
    return TensorSpec(
        "pixel_values",
        shape=("batch", channels, height, width),
        description="an image, as the image processor scales it",
    )


def _waves(_config: Config) -> TensorSpec:
    return TensorSpec(
        "input_values", shape=("batch", "samples"), description="sound, in samples"
    )


_KINDS: dict[str, Callable[[Config], TensorSpec]] = {
    "input_ids": _tokens("input_ids", "sequence"),
    "pixel_values": _pixels,
    "input_values": _waves,
    "attention_mask": _mask("attention_mask", "sequence"),
    "token_type_ids": _token_types,
    "decoder_input_ids": _tokens("decoder_input_ids", "target"),
    "decoder_attention_mask": _mask("decoder_attention_mask", "target"),
}
"""Inputs in the order in which a signature has them."""
_ON_REQUEST = ("token_type_ids", "decoder_attention_mask")
_MASKS = (*_ON_REQUEST, "attention_mask")
"""Taken where model.inputs names them. What a causal model gives for a token that may
attend to nothing is not defined, and random masks of it would ask for that.
"""


def _inner(config: Config, key: str) -> Any:
    """A key of the configuration of a part: the text's, the image's."""
    for name in ("text_config", "vision_config", "encoder", "decoder"):
        part = config.get(name)
        if isinstance(part, Mapping) and part.get(key) is not None:
            return part[key]
    return None


def signature(kwargs: Config, inputs: list[str] | None) -> Signature:
    """The signature of a configuration's model.

    Args:
        kwargs: the configuration.
        inputs: the option model.inputs; None: those that are needed.

    Raises:
        ModelError: forward takes nothing that is known here, or fails.
    """
    import torch

    from checkpoint_release.models.transformers.building import build_model

    with torch.device("meta"):
        model = build_model(kwargs).eval()
    taken = _inputs(model, kwargs, inputs)
    dimensions = _dimensions(taken, kwargs)
    try:
        outputs = probed_outputs(model, taken, dimensions)
    except ModelError:
        outputs = probed_outputs(build_model(kwargs).eval(), taken, dimensions)
    return Signature(taken, outputs, dimensions)


def _inputs(
    model: nn.Module, config: Config, asked: list[str] | None
) -> tuple[TensorSpec, ...]:
    """The inputs of forward that the exports take.

    Raises:
        ModelError: there are none.
    """
    known = _known_inputs(model)
    if asked is None:
        spared = _MASKS if _is_causal(model) else _ON_REQUEST
        names = [name for name in known if name not in spared]
    else:
        names = [name for name in known if name in asked]
    if not names or not set(asked or ()).issubset(known):
        raise ModelError(
            f"{{model.inputs}} is {asked}, and of the inputs of {type(model).__name__}"
            f" these can be described: {known}",
            "choose among those, or state {model.signature} with a {model.factory} of"
            " your own",
            options=["model.inputs", "model.signature", "model.factory"],
        )
    return tuple(_KINDS[name](config) for name in names)


def _known_inputs(model: nn.Module) -> list[str]:
    """The inputs of forward that can be described; a mask only beside token ids."""
    accepted = inspect.signature(model.forward).parameters
    known = [name for name in _KINDS if name in accepted]
    if "input_ids" not in known or "input_values" in known:
        return [name for name in known if name != "attention_mask"]
    return known


def _is_causal(model: nn.Module) -> bool:
    """Whether a token attends to those before it alone."""
    from transformers.models.auto import modeling_auto

    name, model_type = type(model).__name__, getattr(model.config, "model_type", "")
    if "CausalLM" in name or "LMHead" in name:
        return True
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in causal and model_type not in masked


def _dimensions(inputs: tuple[TensorSpec, ...], config: Config) -> dict[str, Dimension]:
    longest = _longest(config)
    samples = Dimension("samples", minimum=4000, example=16000)  # a second at 16 kHz
    known = {
        "batch": Dimension("batch"),
        "sequence": Dimension("sequence", maximum=longest, example=_example(longest)),
        "target": Dimension("target", maximum=longest, example=_example(longest)),
        "samples": samples,
    }
    named: set[str] = set()
    for spec in inputs:
        named.update(spec.dynamic_axes.values())
    return {name: each for name, each in known.items() if name in named}


def _example(longest: int | None) -> int:
    return 16 if longest is None else min(16, longest)


def _longest(config: Config) -> int | None:
    """The longest text, where positions are learned; None: no limit is known."""
    for key in _LONGEST:
        longest = config.get(key) or _inner(config, key)
        if isinstance(longest, int) and longest > 0:
            offset = 0
            if str(config.get("model_type")).startswith(_COUNTED_FROM_PADDING):
                offset = int(config.get("pad_token_id") or 0) + 1
            return longest - offset
    return None
