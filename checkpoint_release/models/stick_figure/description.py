"""What a model card says of a StickFigureTransformer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from checkpoint_release.models.stick_figure.expected_tensors import expected_tensors
from checkpoint_release.models.stick_figure.huggingface import (
    FRAMES_PER_SECOND,
    TRAINING_FRAMES,
)
from checkpoint_release.models.stick_figure.interface import SEGMENTS

LIMITATIONS = (
    (
        "A conditioning input that is left out is not the same as one of zeros:"
        " an export takes exactly the inputs that it was made for."
    ),
    (
        "Nothing caps the length, but beyond that of the sequences of training"
        " quality is unknown, and time and memory of attention grow with the"
        " square of the length."
    ),
    (
        "There is no mask: every frame attends to every other, so padding"
        " changes the result."
    ),
)
BUFFERS = (".inv_freq", ".running_mean", ".running_var", ".num_batches_tracked")


def describe(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a model card says of the architecture.

    Returns:
        name, summary, parameters (how many values training fits), dimensions, segments
        (each x1, y1, x2, y2), notes and limitations.
    """
    width = kwargs["embedding_dim"]
    like_bge = ", as many as those of BAAI/bge-large-en-v1.5" if width == 1024 else ""
    return {
        "name": "StickFigureTransformer",
        "summary": _summary(kwargs),
        "parameters": _count_parameters(kwargs),
        "dimensions": {
            name: value for name, value in kwargs.items() if name != "dropout"
        },
        "segments": list(SEGMENTS.get(kwargs["input_dim"], ())),
        "notes": [
            "The project that the architecture comes from trains on sequences of"
            f" {TRAINING_FRAMES} frames, {FRAMES_PER_SECOND} a second.",
            f"Text embeddings have {width} dimensions{like_bge}.",
        ],
        "limitations": list(LIMITATIONS),
    }


def _summary(kwargs: Mapping[str, Any]) -> str:
    image = ""
    if kwargs.get("enable_image_conditioning"):
        encoder, fusion = kwargs["image_encoder_arch"], kwargs["fusion_strategy"]
        image = f" and an image ({encoder}, {fusion} fusion)"
    return (
        "A pre-norm transformer (rotary positions, RMSNorm, SwiGLU) over one text token"
        f" and the frames of a stick figure's motion, with {kwargs['num_layers']}"
        f" layers of width {kwargs['d_model']} and {kwargs['nhead']} heads. It can be"
        " conditioned on a text embedding, actions, a camera, a partner's motion"
        f"{image}."
    )


def _count_parameters(kwargs: Mapping[str, Any]) -> int:
    """How many values training fits."""
    count = 0
    for name, shape in expected_tensors(kwargs).items():
        if not name.endswith(BUFFERS):
            count += math.prod(shape)
    return count
