"""The names of adapters' tensors.

An adapter holds two factors for each layer that it adapts: lora_A [rank, in] and
lora_B [out, rank] (https://arxiv.org/abs/2106.09685); of an embedding lora_embedding_A
[rank, entries] and lora_embedding_B [size, rank]; and with DoRA lora_magnitude_vector
[out] beside them (https://arxiv.org/abs/2402.09353). They come in a file of their own,
or injected into the model's state dict beside the layers' own weights, which are then
named X.base_layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PEFT_PREFIX = "base_model.model."
MAGNITUDE = "magnitude_vector"
_DEFAULT = "default"  # what PEFT calls an adapter that the user gave no name

# PEFT's model has X.lora_A.default.weight ("default" is the adapter's name), PEFT's
# adapter files X.lora_A.weight; a script that keeps a factor as a parameter, X.lora_A.
_PART = re.compile(
    r"(?P<layer>.+)\.lora_(?P<role>A|B|embedding_A|embedding_B|magnitude_vector)"
    r"(\.(?P<adapter>(?!(weight|bias)\Z)[A-Za-z_][^.]*))?(\.weight)?"
)
_OTHER_METHODS = {
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "ia3_l": "IA3",
    "oft_r": "OFT",
    "boft_": "BOFT",
    "vera_lambda": "VeRA",
    "lora_E": "AdaLoRA",
    "lora_down": "a LoRA as kohya's scripts name it",
    "lora_up": "a LoRA as kohya's scripts name it",
    "prompt_embeddings": "prompt tuning",
    "fourierft_": "FourierFT",
    "randlora_": "RandLoRA",
    "trainable_tokens_": "trained tokens",
}
"""Beginning of a part of a tensor's name → the method that trained it."""


@dataclass(frozen=True)
class Part:
    """What the name of an adapter's tensor says.

    Attributes:
        layer: that it adapts, such as "encoder.0".
        role: A, B, embedding_A, embedding_B or magnitude_vector.
        adapter: the adapter's name, "default" where it has none.
    """

    layer: str
    role: str
    adapter: str

    @classmethod
    def of(cls, name: str) -> Part | None:
        """The parts of a tensor's name; None where it is no adapter's."""
        match = _PART.fullmatch(name)
        if match is None:
            return None
        return cls(match["layer"], match["role"], match["adapter"] or _DEFAULT)


def is_adapter(names: Iterable[str]) -> bool:
    """Whether all of the tensors are an adapter's, by their names."""
    return all(Part.of(name) for name in names)


def has_factors(names: Iterable[str]) -> bool:
    """Whether some of the tensors are an adapter's, by their names."""
    return any(Part.of(name) for name in names)


def other_method(names: Iterable[str]) -> str:
    """The method, other than LoRA and DoRA, that trained such tensors; "": none."""
    for name in names:
        for part in name.split("."):
            for beginning, method in _OTHER_METHODS.items():
                if part.startswith(beginning):
                    return method
    return ""
