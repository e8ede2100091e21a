"""Every tensor of a StickFigureTransformer's state dict, with its shape, without torch.

A checkpoint is held against this list before anything is built. The order is that of
the module's own state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Shapes = dict[str, tuple[int, ...]]
"""Tensor name → shape."""

INV_FREQ = "transformer_encoder.layers.{}.self_attn.rope.inv_freq"
ACTION_WIDTH = 64  # of action_embedding
CAMERA_POSE = 7  # position xyz, target xyz, field of view
PATCH, VIT_WIDTH, VIT_LAYERS = 16, 384, 4
CNN_CHANNELS = (3, 32, 64, 128, 256, 512)
RESNET_CHANNELS = (64, 128, 256, 512)


def expected_tensors(kwargs: Mapping[str, Any]) -> Shapes:
    """Name → shape of every tensor in the model's state dict, in its order.

    Args:
        kwargs: the constructor's arguments, image_size among them for a mini_vit.
    """
    d, embedding, frame = (
        kwargs["d_model"],
        kwargs["embedding_dim"],
        kwargs["input_dim"],
    )
    shapes: Shapes = {}
    if kwargs.get("enable_image_conditioning"):
        encoder, size = kwargs["image_encoder_arch"], kwargs["image_size"]
        shapes |= _image_encoder(encoder, embedding, size)
        shapes |= FUSIONS[kwargs["fusion_strategy"]](embedding)
    shapes |= {
        **_linear("text_projection.0", embedding, 2 * d),
        **_linear("text_projection.3", 2 * d, d),
        **_norm("text_projection.4", d),
        **_frame_mlp("motion_embedding", frame, d // 2, d),
        "action_embedding.weight": (kwargs["num_actions"], ACTION_WIDTH),
        **_linear("action_projection.0", ACTION_WIDTH, d),
        **_norm("action_projection.1", d),
        **_frame_mlp("camera_projection", 3, d // 4, d),
        **_frame_mlp("partner_projection", frame, d // 2, d),
    }
    for layer in range(kwargs["num_layers"]):
        shapes |= _encoder_block(layer, d, d // kwargs["nhead"])
    shapes |= {
        **_decoder("pose_decoder", d, d // 2, kwargs["output_dim"]),
        **_decoder("position_decoder", d, d // 4, 2),
        **_decoder("velocity_decoder", d, d // 4, 2),
        **_decoder("action_predictor", d, d // 2, kwargs["num_actions"]),
        **_decoder("physics_decoder", d, d // 2, 6),
        **_decoder("environment_decoder", d, d // 2, 32),
    }
    return shapes


# ------------------------------------------------------------------------------
# Layers


def _linear(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _convolution(name: str, channels_in: int, channels: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (channels, channels_in, kernel, kernel)}


def _batch_norm(name: str, width: int) -> Shapes:
    return {
        **_norm(name, width),
        f"{name}.running_mean": (width,),
        f"{name}.running_var": (width,),
        f"{name}.num_batches_tracked": (),
    }


def _frame_mlp(name: str, width: int, hidden: int, d_model: int) -> Shapes:
    return {
        **_linear(f"{name}.0", width, hidden),
        **_linear(f"{name}.2", hidden, d_model),
        **_norm(f"{name}.3", d_model),
    }


def _decoder(name: str, d_model: int, hidden: int, width: int) -> Shapes:
    return _linear(f"{name}.0", d_model, hidden) | _linear(f"{name}.3", hidden, width)


def _encoder_block(layer: int, d: int, head_dim: int) -> Shapes:
    name = f"transformer_encoder.layers.{layer}"
    return {
        **_linear(f"{name}.self_attn.q_proj", d, d),
        **_linear(f"{name}.self_attn.k_proj", d, d),
        **_linear(f"{name}.self_attn.v_proj", d, d),
        **_linear(f"{name}.self_attn.out_proj", d, d),
        INV_FREQ.format(layer): (head_dim // 2,),
        f"{name}.ffn.gate_proj.weight": (4 * d, d),
        f"{name}.ffn.value_proj.weight": (4 * d, d),
        f"{name}.ffn.output_proj.weight": (d, 4 * d),
        f"{name}.norm1.weight": (d,),
        f"{name}.norm2.weight": (d,),
    }


def _packed_attention(name: str, width: int) -> Shapes:
    """An nn.MultiheadAttention's."""
    return {
        f"{name}.in_proj_weight": (3 * width, width),
        f"{name}.in_proj_bias": (3 * width,),
        **_linear(f"{name}.out_proj", width, width),
    }


# ------------------------------------------------------------------------------
# Image encoders


def _image_encoder(
    arch: str, embedding: int, image_size: Sequence[int] | None
) -> Shapes:
    if arch == "mini_vit":
        if image_size is None:
            raise ValueError("the tensors of a mini_vit depend on image_size")
        return _vit(embedding, (image_size[0] // PATCH) ** 2 + 1)
    shapes = _cnn() if arch == "lightweight_cnn" else _resnet()
    return {
        **shapes,
        **_linear("image_encoder.projection.1", CNN_CHANNELS[-1], embedding),
        **_norm("image_encoder.projection.2", embedding),
    }


def _cnn() -> Shapes:
    shapes: Shapes = {}
    kernel = 7
    for block, (channels_in, channels) in enumerate(pairwise(CNN_CHANNELS)):
        name = f"image_encoder.encoder.{block}"
        shapes |= _convolution(f"{name}.conv", channels_in, channels, kernel)
        shapes |= _batch_norm(f"{name}.bn", channels)
        kernel = 3
    return shapes


def _resnet() -> Shapes:
    channels_in = RESNET_CHANNELS[0]
    shapes = {
        **_convolution("image_encoder.stem.0", 3, channels_in, 7),
        **_batch_norm("image_encoder.stem.1", channels_in),
    }
    for stage, channels in enumerate(RESNET_CHANNELS, 1):
        for block in range(2):
            name = f"image_encoder.stage{stage}.{block}"
            shapes |= _residual_block(name, channels_in, channels)
            channels_in = channels
    return shapes


def _residual_block(name: str, channels_in: int, channels: int) -> Shapes:
    shapes = {
        **_convolution(f"{name}.conv1", channels_in, channels, 3),
        **_batch_norm(f"{name}.bn1", channels),
        **_convolution(f"{name}.conv2", channels, channels, 3),
        **_batch_norm(f"{name}.bn2", channels),
    }
    if channels_in != channels:
        shapes |= _convolution(f"{name}.shortcut.0", channels_in, channels, 1)
        shapes |= _batch_norm(f"{name}.shortcut.1", channels)
    return shapes


def _vit(embedding: int, positions: int) -> Shapes:
    width = VIT_WIDTH
    shapes: Shapes = {
        "image_encoder.cls_token": (1, 1, width),
        "image_encoder.pos_embed": (1, positions, width),
        **_convolution("image_encoder.patch_embed.projection", 3, width, PATCH),
        "image_encoder.patch_embed.projection.bias": (width,),
    }
    for layer in range(VIT_LAYERS):
        name = f"image_encoder.transformer.layers.{layer}"
        shapes |= {
            **_packed_attention(f"{name}.self_attn", width),
            **_linear(f"{name}.linear1", width, 4 * width),
            **_linear(f"{name}.linear2", 4 * width, width),
            **_norm(f"{name}.norm1", width),
            **_norm(f"{name}.norm2", width),
        }
    return {
        **shapes,
        **_norm("image_encoder.norm", width),
        **_linear("image_encoder.projection", width, embedding),
    }


# ------------------------------------------------------------------------------
# Fusions; e is embedding_dim


def _camera_mlp(name: str, hidden: int, e: int) -> Shapes:
    name = f"fusion_module.{name}"
    return _linear(f"{name}.0", CAMERA_POSE, hidden) | _linear(f"{name}.2", hidden, e)


def _gated(e: int) -> Shapes:
    return {
        **_linear("fusion_module.text_proj", e, e),
        **_linear("fusion_module.image_proj", e, e),
        **_camera_mlp("camera_proj", e // 4, e),
        **_linear("fusion_module.text_gate.0", e, 1),
        **_linear("fusion_module.image_gate.0", e, 1),
        **_linear("fusion_module.camera_gate.0", CAMERA_POSE, 1),
        **_norm("fusion_module.norm", e),
    }


def _concat(e: int) -> Shapes:
    return {
        "fusion_module.text_weight": (1,),
        "fusion_module.image_weight": (1,),
        **_linear("fusion_module.projection.0", 2 * e + CAMERA_POSE, 2 * e),
        **_linear("fusion_module.projection.3", 2 * e, e),
        **_norm("fusion_module.projection.4", e),
    }


def _film(e: int) -> Shapes:
    return {
        **_linear("fusion_module.text_proj", e, e),
        **_linear("fusion_module.image_gamma", e, e),
        **_linear("fusion_module.image_beta", e, e),
        **_camera_mlp("camera_gamma", e // 2, e),
        **_camera_mlp("camera_beta", e // 2, e),
        **_norm("fusion_module.norm", e),
    }


def _cross_attention(e: int) -> Shapes:
    return {
        **_linear("fusion_module.text_proj", e, e),
        **_linear("fusion_module.image_proj", e, e),
        **_camera_mlp("camera_proj", e // 4, e),
        **_packed_attention("fusion_module.cross_attn", e),
        **_norm("fusion_module.norm1", e),
        **_norm("fusion_module.norm2", e),
        **_linear("fusion_module.ffn.0", e, 4 * e),
        **_linear("fusion_module.ffn.3", 4 * e, e),
    }


FUSIONS: dict[str, Callable[[int], Shapes]] = {
    "gated": _gated,
    "concat": _concat,
    "film": _film,
    "cross_attention": _cross_attention,
}
