"""StickFigureTransformer: what it is, what it takes and gives, and how to build it.

The files are `model.py`, the nn.Module; `architecture.py`, which reads the
constructor's arguments off a state dict; `graph.py`, the ONNX graph written directly,
with the help of `onnx_builder.py`. Torch is imported only to build the module, onnx
only to write the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.signature import Array, Dimension, Signature, TensorSpec
from checkpoint_release.models.stick_figure.architecture import (
    check_weights,
    expected_tensors,
    read_architecture,
)
from checkpoint_release.models.stick_figure.huggingface import (
    FRAMES_PER_SECOND,
    KEEP_FLOAT32,
    TRAINING_FRAMES,
    config,
    generation_config,
    huggingface_files,
)

if TYPE_CHECKING:
    import onnx

    from checkpoint_release.models.stick_figure.model import StickFigureTransformer

__all__ = [
    "KEEP_FLOAT32",
    "build",
    "check_weights",
    "config",
    "describe",
    "generation_config",
    "huggingface_files",
    "module_signature",
    "read_architecture",
    "signature",
]

REQUIRED = ("motion", "text_embedding")
# Convolutional encoders halve an image five times. torch.export takes a dynamic side
# only as long as none of the five results is a single pixel; so do the exports, and an
# image that is smaller keeps its own size.
SMALLEST_DYNAMIC_SIDE = 33
EXAMPLE_SIDE = 64
SIDES = {"height", "width"}
SEGMENTS = {
    20: ("torso", "l_leg", "r_leg", "l_arm", "r_arm"),
    48: (
        "head",
        "upper_torso",
        "lower_torso",
        "l_upper_arm",
        "l_forearm",
        "r_upper_arm",
        "r_forearm",
        "l_thigh",
        "l_shin",
        "r_thigh",
        "r_shin",
        "pelvis_width",
    ),
}


def build(**kwargs: Any) -> StickFigureTransformer:
    """The model with random weights, in training mode.

    Raises:
        ValueError, TypeError: arguments that make no model.
    """
    from checkpoint_release.models.stick_figure.model import StickFigureTransformer

    return StickFigureTransformer(**kwargs)


def onnx_graph(
    kwargs: Mapping[str, Any],
    weights: Mapping[str, Array],
    signature: Signature,
    opset: int,
    ir_version: int | None = None,
) -> onnx.ModelProto:
    """The model as an ONNX graph, written directly; see
    `checkpoint_release.models.stick_figure.graph`.

    Raises:
        OpsetError: the graph can't be written in this opset.
    """
    from checkpoint_release.models.stick_figure.graph import onnx_graph

    return onnx_graph(kwargs, weights, signature, opset, ir_version)


def signature(kwargs: Mapping[str, Any], inputs: Sequence[str] | None) -> Signature:
    """What the exports take and give.

    Args:
        kwargs: the constructor's arguments.
        inputs: the inputs that exports take, in any order; each is then required. None:
            all that the model has.

    Raises:
        ParamsError: an input that the model doesn't have, is named twice, can't be left
            out or needs another.
    """
    specs = _inputs(kwargs)
    chosen = list(inputs) if inputs is not None else [spec.name for spec in specs]
    _check_choice(chosen, specs)
    taken = tuple(spec for spec in specs if spec.name in chosen)
    named = {
        size for spec in taken for size in spec.shape or () if isinstance(size, str)
    }
    height, width = kwargs.get("image_size") or (EXAMPLE_SIDE, EXAMPLE_SIDE)
    dimensions = (
        Dimension("sequence", example=FRAMES_PER_SECOND),
        Dimension("batch", example=2),
        Dimension("height", SMALLEST_DYNAMIC_SIDE, example=height),
        Dimension("width", SMALLEST_DYNAMIC_SIDE, example=width),
    )
    return Signature(
        taken, _outputs(kwargs), {d.name: d for d in dimensions if d.name in named}
    )


def module_signature(kwargs: Mapping[str, Any]) -> Signature:
    """What the module itself takes and gives: of no export, so that convolutions take
    an image of any size.
    """
    exported = signature(kwargs, None)
    sides = {
        name: replace(exported.dimensions[name], minimum=1)
        for name in SIDES & exported.dimensions.keys()
    }
    return replace(exported, dimensions=exported.dimensions | sides)


def describe(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a model card says of the architecture.

    Returns:
        name, summary, parameters (how many values training fits), dimensions, segments
        (each x1, y1, x2, y2), notes and limitations.
    """
    shapes = expected_tensors(kwargs)
    fitted = [
        shape
        for name, shape in shapes.items()
        if not name.endswith(
            (".inv_freq", ".running_mean", ".running_var", ".num_batches_tracked")
        )
    ]
    images = bool(kwargs.get("enable_image_conditioning"))
    conditioned = "a text embedding, actions, a camera, a partner's motion"
    if images:
        conditioned += (
            f" and an image ({kwargs['image_encoder_arch']},"
            f" {kwargs['fusion_strategy']} fusion)"
        )
    return {
        "name": "StickFigureTransformer",
        "summary": (
            "A pre-norm transformer (rotary positions, RMSNorm, SwiGLU) over one text"
            " token and the frames of a stick figure's motion, with"
            f" {kwargs['num_layers']} layers of width {kwargs['d_model']} and"
            f" {kwargs['nhead']} heads. It can be conditioned on {conditioned}."
        ),
        "parameters": sum(math.prod(shape) for shape in fitted),
        "dimensions": {
            name: value for name, value in kwargs.items() if name != "dropout"
        },
        "segments": list(SEGMENTS.get(kwargs["input_dim"], ())),
        "notes": [
            (
                "The project that the architecture comes from trains on sequences of"
                f" {TRAINING_FRAMES} frames, {FRAMES_PER_SECOND} a second."
            ),
            f"Text embeddings have {kwargs['embedding_dim']} dimensions"
            + (
                ", as many as those of BAAI/bge-large-en-v1.5."
                if kwargs["embedding_dim"] == 1024
                else "."
            ),
        ],
        "limitations": [
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
        ],
    }


def _inputs(kwargs: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """All inputs that this model has, in forward's order."""
    frame = kwargs["input_dim"]
    segments = SEGMENTS.get(frame)
    figure = (
        f"{frame // 4} segments, x1, y1, x2, y2 each"
        if frame % 4 == 0
        else f"{frame} numbers"
    )
    figure += f" ({', '.join(segments)})" if segments else ""
    seconds = f"{FRAMES_PER_SECOND} frames a second"
    embedding, actions = kwargs["embedding_dim"], kwargs["num_actions"]
    words = "sentence embedding" + (
        ", in size as of BAAI/bge-large-en-v1.5" if embedding == 1024 else ""
    )
    by_frame = ("sequence", "batch")
    specs = [
        TensorSpec(
            "motion",
            shape=(*by_frame, frame),
            description=f"frames of motion, {seconds}: {figure}",
        ),
        TensorSpec("text_embedding", shape=("batch", embedding), description=words),
        TensorSpec(
            "action_sequence",
            "int64",
            by_frame,
            0,
            actions,
            f"each frame's action, 0 to {actions - 1}",
        ),
        TensorSpec(
            "camera_data",
            shape=(*by_frame, 3),
            description="each frame's camera: x, y, zoom",
        ),
        TensorSpec(
            "partner_motion",
            shape=(*by_frame, frame),
            description=f"the partner's frames, as motion: {figure}",
        ),
    ]
    if kwargs.get("enable_image_conditioning"):
        size = kwargs["image_size"]
        fixed = kwargs["image_encoder_arch"] == "mini_vit" or (
            size and min(size) < SMALLEST_DYNAMIC_SIDE
        )
        sides = tuple(size) if fixed else ("height", "width")
        specs += [
            TensorSpec(
                "image_tensor",
                shape=("batch", 3, *sides),
                description="RGB image, scaled as in training",
            ),
            TensorSpec(
                "image_camera_pose",
                shape=("batch", 7),
                description=(
                    "the image's camera: position x, y, z, target x, y, z, field of"
                    " view"
                ),
            ),
        ]
    return tuple(specs)


def _outputs(kwargs: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    width = kwargs["output_dim"]
    figure = (
        f"{width // 4} segments, x1, y1, x2, y2 each"
        if width % 4 == 0
        else f"{width} numbers"
    )
    by_frame = ("sequence", "batch")
    return (
        TensorSpec(
            "pose", shape=(*by_frame, width), description=f"each frame's pose: {figure}"
        ),
        TensorSpec(
            "position",
            shape=("batch", 2),
            description="the figure's position over the clip: x, y",
        ),
        TensorSpec(
            "velocity",
            shape=("batch", 2),
            description="the figure's velocity over the clip: x, y",
        ),
        TensorSpec(
            "action_logits",
            shape=(*by_frame, kwargs["num_actions"]),
            description="each frame's actions, before softmax",
        ),
        TensorSpec(
            "physics",
            shape=(*by_frame, 6),
            description="each frame's physical quantities, as trained",
        ),
        TensorSpec(
            "environment",
            shape=("batch", 32),
            description="features of the surroundings over the clip",
        ),
    )


def _check_choice(chosen: Sequence[str], specs: Sequence[TensorSpec]) -> None:
    known = [spec.name for spec in specs]
    if unknown := [name for name in chosen if name not in known]:
        images = [name for name in unknown if name.startswith("image_")]
        reason = (
            f", and {images[0]} needs a model with images"
            if images and "image_tensor" not in known
            else ""
        )
        raise ParamsError(
            f"model.inputs names {unknown}{reason}", f"this model's inputs are {known}"
        )
    if twice := sorted({name for name in chosen if chosen.count(name) > 1}):
        raise ParamsError(
            f"model.inputs names {twice} more than once", "name each input once"
        )
    if missing := [name for name in REQUIRED if name not in chosen]:
        raise ParamsError(
            f"model.inputs leaves out {missing}, without which forward can't run",
            f"add {missing}",
        )
    if "image_camera_pose" in chosen and "image_tensor" not in chosen:
        raise ParamsError(
            "model.inputs names image_camera_pose without image_tensor, and the model"
            " ignores the pose of no image",
            "add image_tensor, or remove image_camera_pose",
        )
