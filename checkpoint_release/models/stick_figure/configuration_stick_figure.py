"""The configuration under which transformers knows a StickFigureTransformer.

A release carries this file; it needs nothing but transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig


class StickFigureConfig(PretrainedConfig):
    """The constructor's arguments, which `StickFigureTransformer` explains."""

    model_type = "stick_figure"

    def __init__(
        self,
        input_dim: int = 20,
        output_dim: int = 20,
        d_model: int = 384,
        nhead: int = 12,
        num_layers: int = 8,
        embedding_dim: int = 1024,
        num_actions: int = 60,
        dropout: float = 0.1,
        enable_image_conditioning: bool = False,
        image_encoder_arch: str = "lightweight_cnn",
        fusion_strategy: str = "gated",
        image_size: Sequence[int] | None = None,
        **others: Any,
    ) -> None:
        self.input_dim = input_dim
        self.output_dim = output_dim
        self.d_model = d_model
        self.nhead = nhead
        self.num_layers = num_layers
        self.embedding_dim = embedding_dim
        self.num_actions = num_actions
        self.dropout = dropout
        self.enable_image_conditioning = enable_image_conditioning
        self.image_encoder_arch = image_encoder_arch
        self.fusion_strategy = fusion_strategy
        self.image_size = image_size
        super().__init__(**others)

    def constructor(self) -> dict[str, Any]:
        """The arguments that build the model."""
        names = (
            "input_dim",
            "output_dim",
            "d_model",
            "nhead",
            "num_layers",
            "embedding_dim",
            "num_actions",
            "dropout",
            "enable_image_conditioning",
            "image_encoder_arch",
            "fusion_strategy",
            "image_size",
        )
        return {name: getattr(self, name) for name in names}
