"""StickFigureTransformer for transformers' AutoModel.

A release carries this file beside `model.py`, the model itself; together they need
nothing but torch and transformers.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from .configuration_stick_figure import StickFigureConfig
from .model import (
    ROTARY_BASE,
    RotaryEmbedding,
    StickFigureTransformer,
)


class StickFigureModel(PreTrainedModel):
    """The model's own parts, named as in the checkpoint's state dict."""

    config_class = StickFigureConfig
    main_input_name = "motion"
    _no_split_modules = ("EncoderBlock",)

    def __init__(self, config: StickFigureConfig) -> None:
        super().__init__(config)
        model = StickFigureTransformer(**config.constructor())
        for name, part in model.named_children():
            self.add_module(name, part)
        for module in self.modules():
            if isinstance(module, RotaryEmbedding):
                module.register_forward_hook(self._in_own_dtype)
        self.post_init()

    forward = StickFigureTransformer.forward

    def _in_own_dtype(
        self, module: nn.Module, args: Any, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """Round sines and cosines, computed in float32, to a half-precision model."""
        return tuple(part.to(self.dtype) for part in angles)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, RotaryEmbedding):
            # Where a file lacks it, transformers would leave whatever the memory held.
            pairs = module.inv_freq.numel()
            exponents = module.inv_freq.new_tensor(
                [pair / pairs for pair in range(pairs)]
            )
            module.inv_freq.copy_(1.0 / ROTARY_BASE**exponents)
