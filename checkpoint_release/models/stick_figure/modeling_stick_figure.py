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
    StickFigureOutput,
    StickFigureTransformer,
)


class StickFigureModel(PreTrainedModel):
    """The model's own parts under their own names, so that its state dict is the
    checkpoint's.
    """

    config_class = StickFigureConfig
    main_input_name = "motion"
    _no_split_modules = ("EncoderBlock",)

    def __init__(self, config: StickFigureConfig) -> None:
        super().__init__(config)
        for name, part in StickFigureTransformer(
            **config.constructor()
        ).named_children():
            self.add_module(name, part)
        for module in self.modules():
            if isinstance(module, RotaryEmbedding):
                module.register_forward_hook(self._in_own_dtype)
        self.post_init()

    def forward(
        self,
        motion: Tensor,
        text_embedding: Tensor,
        action_sequence: Tensor | None = None,
        camera_data: Tensor | None = None,
        partner_motion: Tensor | None = None,
        image_tensor: Tensor | None = None,
        image_camera_pose: Tensor | None = None,
    ) -> StickFigureOutput:
        """As StickFigureTransformer.forward, which says what each input is."""
        return StickFigureTransformer.forward(
            self,
            motion,
            text_embedding,
            action_sequence,
            camera_data,
            partner_motion,
            image_tensor,
            image_camera_pose,
        )

    def _in_own_dtype(
        self, module: nn.Module, args: Any, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """Angles are computed in float32 even in a half-precision model, whose dtype
        their sines then take.
        """
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
