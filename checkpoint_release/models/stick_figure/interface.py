"""What a StickFigureTransformer takes and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.signature import Dimension, Signature, TensorSpec
from checkpoint_release.models.stick_figure.huggingface import FRAMES_PER_SECOND

REQUIRED = ("motion", "text_embedding")
# Convolutional encoders halve an image five times. torch.export takes a dynamic side
# only as long as none of the five results is a single pixel; so do the exports, and an
# image that is smaller keeps its own size.
SMALLEST_DYNAMIC_SIDE = 33
EXAMPLE_SIDE = 64
SIDES = ("height", "width")
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
    known = [spec.name for spec in specs]
    chosen = known if inputs is None else inputs
    _check_choice(chosen, known)
    return Signature(specs, _outputs(kwargs), _dimensions(kwargs)).taking(chosen)


def module_signature(kwargs: Mapping[str, Any]) -> Signature:
    """What the module itself takes and gives: convolutions take images of any size."""
    exported = signature(kwargs, None)
    dimensions = dict(exported.dimensions)
    for name in SIDES:
        if name in dimensions:
            dimensions[name] = replace(dimensions[name], minimum=1)
    return replace(exported, dimensions=dimensions)


def _check_choice(chosen: Sequence[str], known: Collection[str]) -> None:
    """Refuse a choice of inputs that no forward could take."""
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise _choice_error(
            f"names {unknown}{_reason_unknown(unknown)}",
            f"this model's inputs are {known}",
        )
    repeated = [name for name, count in Counter(chosen).items() if count > 1]
    if repeated:
        raise _choice_error(f"names {repeated} more than once", "name each input once")
    _check_completeness(chosen)


def _check_completeness(chosen: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in chosen]
    if missing:
        raise _choice_error(
            f"leaves out {missing}, without which forward can't run", f"add {missing}"
        )
    if "image_camera_pose" in chosen and "image_tensor" not in chosen:
        raise _choice_error(
            "names image_camera_pose without image_tensor, and the model ignores the"
            " pose of no image",
            "add image_tensor, or remove image_camera_pose",
        )


def _choice_error(problem: str, remedy: str) -> ParamsError:
    return ParamsError(f"{{model.inputs}} {problem}", remedy, options=["model.inputs"])


def _reason_unknown(unknown: Sequence[str]) -> str:
    """Why the model hasn't the inputs: with images it has both inputs of an image."""
    for name in unknown:
        if name in ("image_tensor", "image_camera_pose"):
            return f", and {name} needs a model with images"
    return ""


def _dimensions(kwargs: Mapping[str, Any]) -> dict[str, Dimension]:
    height, width = kwargs.get("image_size") or (EXAMPLE_SIDE, EXAMPLE_SIDE)
    return {
        "sequence": Dimension("sequence", example=FRAMES_PER_SECOND),
        "batch": Dimension("batch", example=2),
        "height": Dimension("height", SMALLEST_DYNAMIC_SIDE, example=height),
        "width": Dimension("width", SMALLEST_DYNAMIC_SIDE, example=width),
    }


def _inputs(kwargs: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """All inputs that this model has, in forward's order."""
    frame, actions = kwargs["input_dim"], kwargs["num_actions"]
    embedding = kwargs["embedding_dim"]
    figure = _figure(frame)
    if frame in SEGMENTS:
        figure += f" ({', '.join(SEGMENTS[frame])})"
    text = "sentence embedding"
    if embedding == 1024:
        text += ", in size as of BAAI/bge-large-en-v1.5"
    by_frame = ("sequence", "batch")
    specs: tuple[TensorSpec, ...] = (
        TensorSpec(
            "motion",
            shape=(*by_frame, frame),
            description=(
                f"frames of motion, {FRAMES_PER_SECOND} frames a second: {figure}"
            ),
        ),
        TensorSpec("text_embedding", shape=("batch", embedding), description=text),
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
    )
    if kwargs.get("enable_image_conditioning"):
        specs += _image_inputs(kwargs)
    return specs


def _image_inputs(kwargs: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    size = kwargs["image_size"]
    small = size is not None and min(size) < SMALLEST_DYNAMIC_SIDE
    fixed = small or kwargs["image_encoder_arch"] == "mini_vit"
    sides = tuple(size) if fixed else SIDES
    return (
        TensorSpec(
            "image_tensor",
            shape=("batch", 3, *sides),
            description="RGB image, scaled as in training",
        ),
        TensorSpec(
            "image_camera_pose",
            shape=("batch", 7),
            description=(
                "the image's camera: position x, y, z, target x, y, z, field of view"
            ),
        ),
    )


def _outputs(kwargs: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    width = kwargs["output_dim"]
    by_frame = ("sequence", "batch")
    return (
        TensorSpec(
            "pose",
            shape=(*by_frame, width),
            description=f"each frame's pose: {_figure(width)}",
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


def _figure(width: int) -> str:
    """What the numbers of a frame are."""
    if width % 4:
        return f"{width} numbers"
    return f"{width // 4} segments, x1, y1, x2, y2 each"
