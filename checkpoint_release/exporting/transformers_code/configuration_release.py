"""The configuration of this release's model, for transformers."""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class ReleaseConfig(PretrainedConfig):
    """What config.json says.

    Attributes:
        kwargs: the arguments that build the model.
        signature: its inputs and outputs.
    """

    def __init__(
        self,
        kwargs: dict[str, Any] | None = None,
        signature: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        self.kwargs = kwargs or {}
        self.signature = signature or {"outputs": []}
        super().__init__(**others)
