"""A clip that means something: a figure that walks, with noise and a gap, for the model
to restore.

Lengths are in metres for a figure of 1.6 m, x to the right, y up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoint_release.core.signature import (
    Array,
    Arrays,
    Signature,
    TensorSpec,
    resolve_shape,
)
from checkpoint_release.models.stick_figure.huggingface import FRAMES_PER_SECOND

FRAMES = 50
GAP = slice(20, 30)
"""The frames that the model isn't shown."""
WALK = 1
"""The action's index, of models that have several."""
GROUND = -0.85
_NOISE = 0.05  # standard deviation of every coordinate
_STEPS = 0.9  # cycles of both legs a second
_SPEED = 1.2
_SEED = 7
_WIDTH = 48


def example(kwargs: Mapping[str, Any], signature: Signature) -> Arrays | None:
    """Inputs of one clip, as training shows them to the model.

    Args:
        kwargs: the constructor's arguments.
        signature: what the exports take.

    Returns:
        None for models of other figures, and of clips shorter than FRAMES.
    """
    if not _takes_clip(kwargs, signature):
        return None
    sizes = {name: each.example for name, each in signature.dimensions.items()}
    sizes |= {"sequence": FRAMES, "batch": 1}
    return {spec.name: _values(spec, sizes) for spec in signature.inputs}


def _takes_clip(kwargs: Mapping[str, Any], signature: Signature) -> bool:
    """Whether the model is of figures like this one, and takes FRAMES of one."""
    if kwargs["input_dim"] != _WIDTH or kwargs["output_dim"] != _WIDTH:
        return False
    sequence = signature.dimensions.get("sequence")
    if sequence is None or not sequence.allows(FRAMES):
        return False
    batch = signature.dimensions.get("batch")
    return batch is None or batch.allows(1)


def _values(spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    """One input: the clip, its action, a camera that doesn't zoom; zeros of others."""
    values = np.zeros(resolve_shape(spec, sizes))
    if spec.name == "motion":
        values[:, 0] = seen(walk())
    elif spec.name == "action_sequence":
        values[:] = min(WALK, (spec.high or 1) - 1)
    elif spec.name == "camera_data":
        values[..., 2] = 1  # no zoom
    return values.astype(spec.dtype)


def seen(clip: Array) -> Array:
    """The clip with noise, and without the frames of the gap."""
    random = np.random.Generator(np.random.PCG64(_SEED))
    noisy: Array = clip + _NOISE * random.standard_normal(clip.shape)
    noisy[GAP] = 0
    return noisy


def walk() -> Array:
    """A figure that walks to the right: [FRAMES, 48], (x1, y1, x2, y2) by segment."""
    seconds = np.arange(FRAMES) / FRAMES_PER_SECOND
    phase = 2 * np.pi * _STEPS * seconds
    swing = np.sin(phase)
    pelvis = np.zeros((FRAMES, 2))
    waist = pelvis + _hanging(np.full(FRAMES, np.pi - 0.05), 0.26)
    neck = waist + _hanging(np.full(FRAMES, np.pi - 0.06), 0.28)
    head = neck + _hanging(np.full(FRAMES, np.pi - 0.065), 0.24)
    half_pelvis = np.array([0.08, 0])
    segments = [(neck, head), (waist, neck), (pelvis, waist)]
    for side in (-1, 1):
        upper = side * 0.4 * swing - 0.05
        elbow = neck + _hanging(upper, 0.28)
        segments += [(neck, elbow), (elbow, elbow + _hanging(upper + 0.3, 0.26))]
    for side in (-1, 1):
        thigh = 0.1 - side * 0.45 * swing
        bend = 0.1 + 0.6 * np.clip(-side * np.cos(phase), 0, None)
        hip = pelvis + side * half_pelvis
        knee = hip + _hanging(thigh, 0.42)
        segments += [(hip, knee), (knee, knee + _hanging(thigh - bend, 0.42))]
    segments.append((pelvis - half_pelvis, pelvis + half_pelvis))
    figure = np.stack([np.stack(ends, axis=1) for ends in segments], axis=1)
    figure[..., 0] += (_SPEED * (seconds - seconds.mean()))[:, None, None]
    lowest = figure[..., 1].min(axis=(1, 2))
    figure[..., 1] += (GROUND - lowest)[:, None, None]
    return figure.reshape(FRAMES, _WIDTH)


def _hanging(angle: Array, length: float) -> Array:
    """From a joint to the end of a limb that is swung forward from hanging down.

    Args:
        angle: [frames] in radians.
        length: in metres.

    Returns:
        [frames, 2].
    """
    return length * np.stack([np.sin(angle), -np.cos(angle)], axis=-1)
