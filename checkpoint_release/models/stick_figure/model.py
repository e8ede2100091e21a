"""StickFigureTransformer: from text, motion and more to pose, trajectory and physics.

The file needs nothing but torch, so that a release can carry it as it is. It is written
to be exported:

- Attention is written out with `scaled_dot_product_attention`. `nn.MultiheadAttention`
  and `nn.TransformerEncoderLayer` would switch to a fused path that tracing neither
  checks nor generalises; only their parameter names are kept, because checkpoints
  hold them.
- The rotary embedding's cosines and sines are computed from `inv_freq` on every call,
  in float64 for a float64 model. A table kept between calls would end up in an exported
  graph, and cap the sequence at its length.

Dropout layers have no parameters and do nothing in evaluation; they stay because they
number the layers after them.
"""

# Calling a submodule gives Any, as torch declares it.
# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention, silu

RMS_EPSILON = 1e-6
ROTARY_BASE = 10000.0
ACTION_WIDTH = 64
CAMERA_POSE = 7  # position xyz, target xyz, field of view


class StickFigureOutput(NamedTuple):
    """What the model predicts; all of the motion's dtype.

    Attributes:
        pose: [sequence, batch, output_dim], the segments' end points, frame by frame.
        position: [batch, 2], of the figure as a whole.
        velocity: [batch, 2], of the figure as a whole.
        action_logits: [sequence, batch, num_actions], before softmax.
        physics: [sequence, batch, 6].
        environment: [batch, 32], of the clip as a whole.
    """

    pose: Tensor
    position: Tensor
    velocity: Tensor
    action_logits: Tensor
    physics: Tensor
    environment: Tensor


# --------------------------------------------------------------------------------
# The encoder's block


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + 1e-6) · weight over the last axis.

    Zhang and Sennrich 2019, arXiv:1910.07467.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        return (
            x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + RMS_EPSILON) * self.weight
        )


class RotaryEmbedding(nn.Module):
    """Rotary position embedding in its half-split form.

    Su et al. 2021, arXiv:2104.09864.
    """

    inv_freq: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_dim, 2).float() / head_dim
        self.register_buffer("inv_freq", 1.0 / ROTARY_BASE**exponents)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of position · inv_freq, positions counted from 0.

        Args:
            x: [batch, length, …].

        Returns:
            Two of [length, head_dim / 2], of x's dtype. Half precision couldn't count
            past 256, so that the angles of such a model are computed in float32.
        """
        wide = torch.promote_types(self.inv_freq.dtype, torch.float32)
        # Counted from the data (a number equals itself): a trace of torch.arange would
        # name this machine's device.
        one = x[0, :, 0]
        positions = cast(one == one, wide).cumsum(0) - 1
        angles = positions[:, None] * cast(self.inv_freq, wide)
        return cast(angles.cos(), x.dtype), cast(angles.sin(), x.dtype)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`, except for a cast to the same dtype, which graphs would keep."""
    return x if x.dtype == dtype else x.to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + head_dim/2]) by its position's angle.

    x is [..., length, head_dim].
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class RotaryAttention(nn.Module):
    """Self-attention without a mask, queries and keys turned by their positions."""

    def __init__(self, d_model: int, nhead: int) -> None:
        super().__init__()
        self.nhead = nhead
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rope = RotaryEmbedding(d_model // nhead)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, d_model] → [batch, length, d_model]."""
        q, k, v = (
            split_heads(project(x), self.nhead)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        cos, sin = self.rope(x)
        mixed = scaled_dot_product_attention(
            rotate(q, cos, sin), rotate(k, cos, sin), v
        )
        return self.out_proj(join_heads(mixed))


class SwiGLU(nn.Module):
    """Gated feed-forward without biases (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, width, bias=False)
        self.value_proj = nn.Linear(d_model, width, bias=False)
        self.output_proj = nn.Linear(width, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_model] → [..., d_model]."""
        return self.output_proj(silu(self.gate_proj(x)) * self.value_proj(x))


class EncoderBlock(nn.Module):
    """Attention, then feed-forward, each on the normed stream and added back to it."""

    def __init__(self, d_model: int, nhead: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = RotaryAttention(d_model, nhead)
        self.ffn = SwiGLU(d_model, 4 * d_model)
        self.norm1 = RMSNorm(d_model)
        self.norm2 = RMSNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, d_model] → [batch, length, d_model]."""
        x = x + self.dropout(self.self_attn(self.norm1(x)))
        return x + self.dropout(self.ffn(self.norm2(x)))


class Encoder(nn.Module):
    """The stack of blocks."""

    def __init__(
        self, d_model: int, nhead: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderBlock(d_model, nhead, dropout) for _ in range(num_layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, d_model] → [batch, length, d_model]."""
        for layer in self.layers:
            x = layer(x)
        return x


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, length, heads · head_dim] → [batch, heads, length, head_dim]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[batch, heads, length, head_dim] → [batch, length, heads · head_dim]."""
    return x.transpose(1, 2).flatten(2)


# --------------------------------------------------------------------------------
# Image encoders: [batch, 3, height, width] → [batch, embedding_dim]


class ConvBlock(nn.Module):
    """Convolution that halves height and width, batch norm, GELU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels_out, kernel, stride=2, padding=kernel // 2, bias=False
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, ⌈h/2⌉, ⌈w/2⌉]."""
        return gelu(self.bn(self.conv(x)))


class LightweightCNN(nn.Module):
    """Five convolution blocks, averaged over the image and projected."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        channels = (3, 32, 64, 128, 256, 512)
        kernels = (7, 3, 3, 3, 3)
        self.encoder = nn.Sequential(
            *(
                ConvBlock(i, o, k)
                for i, o, k in zip(channels, channels[1:], kernels, strict=False)
            )
        )
        self.projection = pooled_projection(embedding_dim)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, height, width] → [batch, embedding_dim]."""
        return self.projection(self.encoder(image).mean((2, 3), keepdim=True))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, with GELU.

    He et al. 2015, arXiv:1512.03385.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            channels_in, channels_out, 3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Sequential()
            if same
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels_in, h, w] → [batch, channels_out, ⌈h/stride⌉, …]."""
        y = gelu(self.bn1(self.conv1(x)))
        return gelu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Eighteen layers in four stages, averaged over the image and projected."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.GELU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stage1 = nn.Sequential(ResidualBlock(64, 64, 1), ResidualBlock(64, 64, 1))
        self.stage2 = nn.Sequential(
            ResidualBlock(64, 128, 2), ResidualBlock(128, 128, 1)
        )
        self.stage3 = nn.Sequential(
            ResidualBlock(128, 256, 2), ResidualBlock(256, 256, 1)
        )
        self.stage4 = nn.Sequential(
            ResidualBlock(256, 512, 2), ResidualBlock(512, 512, 1)
        )
        self.projection = pooled_projection(embedding_dim)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, height, width] → [batch, embedding_dim]."""
        x = self.stem(image)
        for stage in (self.stage1, self.stage2, self.stage3, self.stage4):
            x = stage(x)
        return self.projection(x.mean((2, 3), keepdim=True))


def pooled_projection(embedding_dim: int) -> nn.Sequential:
    """[batch, 512, 1, 1] → [batch, embedding_dim]."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(512, embedding_dim), nn.LayerNorm(embedding_dim)
    )


class MiniViT(nn.Module):
    """A small vision transformer for square images of one size.

    Dosovitskiy et al. 2020, arXiv:2010.11929.
    """

    patch, width, heads, depth = 16, 384, 6, 4

    def __init__(self, embedding_dim: int, image_size: Sequence[int]) -> None:
        super().__init__()
        height, width = image_size
        if height != width or height < self.patch or height % self.patch:
            raise ValueError(
                "mini_vit takes square images of a side divisible by 16, got"
                f" {height}×{width}"
            )
        positions = (height // self.patch) ** 2 + 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, self.width))
        self.patch_embed = PatchEmbedding(self.patch, self.width)
        self.transformer = PostNormEncoder(
            self.width, self.heads, 4 * self.width, self.depth
        )
        self.norm = nn.LayerNorm(self.width)
        self.projection = nn.Linear(self.width, embedding_dim)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, side, side] → [batch, embedding_dim]."""
        patches = self.patch_embed(image)
        x = (
            torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
            + self.pos_embed
        )
        return self.projection(self.norm(self.transformer(x)[:, 0]))


class PatchEmbedding(nn.Module):
    """Cut the image into patches and project each."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """[batch, 3, height, width] → [batch, patches, width], row by row."""
        return self.projection(image).flatten(2).transpose(1, 2)


class PostNormEncoder(nn.Module):
    """The computation and parameter names of a post-norm `nn.TransformerEncoder`."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            PostNormBlock(width, heads, hidden) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] → [batch, length, width]."""
        for layer in self.layers:
            x = layer(x)
        return x


class PostNormBlock(nn.Module):
    """The computation and parameter names of an `nn.TransformerEncoderLayer`.

    It is post-norm and batch first, with GELU.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = PackedAttention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, length, width] → [batch, length, width]."""
        x = self.norm1(x + self.self_attn(x, x))
        return self.norm2(x + self.linear2(gelu(self.linear1(x))))


class PackedAttention(nn.Module):
    """The computation and parameter names of a batch-first `nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        """[batch, length, width], [batch, source length, width] → the query's shape."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            split_heads(linear(x, weight, bias), self.heads)
            for x, weight, bias in zip(
                (query, source, source), weights, biases, strict=True
            )
        )
        return self.out_proj(join_heads(scaled_dot_product_attention(q, k, v)))


# --------------------------------------------------------------------------------
# Fusions of text [batch, E], image [batch, E] and perhaps a camera pose [batch, 7] →
# [batch, E]


class GatedFusion(nn.Module):
    """Each source projected and weighed by a gate of its own, summed and normed."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.text_proj = nn.Linear(embedding_dim, embedding_dim)
        self.image_proj = nn.Linear(embedding_dim, embedding_dim)
        self.camera_proj = camera_mlp(embedding_dim // 4, embedding_dim)
        self.text_gate = nn.Sequential(nn.Linear(embedding_dim, 1), nn.Sigmoid())
        self.image_gate = nn.Sequential(nn.Linear(embedding_dim, 1), nn.Sigmoid())
        self.camera_gate = nn.Sequential(nn.Linear(CAMERA_POSE, 1), nn.Sigmoid())
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(
        self, text: Tensor, image: Tensor, camera_pose: Tensor | None = None
    ) -> Tensor:
        """[batch, E], [batch, E], [batch, 7] or nothing → [batch, E]."""
        fused = self.text_proj(text) * self.text_gate(text) + self.image_proj(
            image
        ) * self.image_gate(image)
        if camera_pose is not None:
            fused = fused + self.camera_proj(camera_pose) * self.camera_gate(
                camera_pose
            )
        return self.norm(fused)


class ConcatFusion(nn.Module):
    """All sources side by side through one projection.

    A camera pose that is left out is seven zeros.
    """

    def __init__(self, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        # Checkpoints hold these two, and nothing uses them.
        self.text_weight = nn.Parameter(torch.ones(1))
        self.image_weight = nn.Parameter(torch.ones(1))
        self.projection = nn.Sequential(
            nn.Linear(2 * embedding_dim + CAMERA_POSE, 2 * embedding_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * embedding_dim, embedding_dim),
            nn.LayerNorm(embedding_dim),
        )

    def forward(
        self, text: Tensor, image: Tensor, camera_pose: Tensor | None = None
    ) -> Tensor:
        """[batch, E], [batch, E], [batch, 7] or nothing → [batch, E]."""
        if camera_pose is None:
            camera_pose = text.new_zeros(text.shape[0], CAMERA_POSE)
        return self.projection(torch.cat((text, image, camera_pose), dim=-1))


class FiLMFusion(nn.Module):
    """The text scaled and shifted by the image, then by the camera.

    Perez et al. 2017, arXiv:1709.07871.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.text_proj = nn.Linear(embedding_dim, embedding_dim)
        self.image_gamma = nn.Linear(embedding_dim, embedding_dim)
        self.image_beta = nn.Linear(embedding_dim, embedding_dim)
        self.camera_gamma = camera_mlp(embedding_dim // 2, embedding_dim)
        self.camera_beta = camera_mlp(embedding_dim // 2, embedding_dim)
        self.norm = nn.LayerNorm(embedding_dim)

    def forward(
        self, text: Tensor, image: Tensor, camera_pose: Tensor | None = None
    ) -> Tensor:
        """[batch, E], [batch, E], [batch, 7] or nothing → [batch, E]."""
        x = self.image_gamma(image) * self.text_proj(text) + self.image_beta(image)
        if camera_pose is not None:
            x = self.camera_gamma(camera_pose) * x + self.camera_beta(camera_pose)
        return self.norm(x)


class CrossAttentionFusion(nn.Module):
    """The text, as one token, attends to itself, the image and the camera."""

    heads = 8

    def __init__(self, embedding_dim: int, dropout: float) -> None:
        super().__init__()
        self.text_proj = nn.Linear(embedding_dim, embedding_dim)
        self.image_proj = nn.Linear(embedding_dim, embedding_dim)
        self.camera_proj = camera_mlp(embedding_dim // 4, embedding_dim)
        self.cross_attn = PackedAttention(embedding_dim, self.heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.ffn = nn.Sequential(
            nn.Linear(embedding_dim, 4 * embedding_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * embedding_dim, embedding_dim),
        )

    def forward(
        self, text: Tensor, image: Tensor, camera_pose: Tensor | None = None
    ) -> Tensor:
        """[batch, E], [batch, E], [batch, 7] or nothing → [batch, E]."""
        tokens = [self.text_proj(text), self.image_proj(image)]
        if camera_pose is not None:
            tokens.append(self.camera_proj(camera_pose))
        source = torch.stack(tokens, dim=1)
        query = source[:, :1]
        x = self.norm1(query + self.cross_attn(query, source))
        return self.norm2(x + self.ffn(x)).squeeze(1)


def camera_mlp(hidden: int, embedding_dim: int) -> nn.Sequential:
    """[batch, 7] → [batch, embedding_dim]."""
    return nn.Sequential(
        nn.Linear(CAMERA_POSE, hidden), nn.GELU(), nn.Linear(hidden, embedding_dim)
    )


# --------------------------------------------------------------------------------
# The model


class StickFigureTransformer(nn.Module):
    """A pre-norm transformer over one text token and the frames of a motion.

    Args:
        input_dim: numbers in a frame of motion (20: five segments, 48: twelve; x1, y1,
            x2, y2 each).
        output_dim: numbers in a frame of pose.
        d_model: width of the encoder; even, a multiple of 4 and of 2 · nhead.
        nhead: attention heads.
        num_layers: encoder blocks.
        embedding_dim: width of the text embedding.
        num_actions: actions that a frame can be conditioned on.
        dropout: probability in training; nothing in evaluation.
        enable_image_conditioning: whether the model takes images.
        image_encoder_arch: lightweight_cnn, resnet or mini_vit.
        fusion_strategy: gated, concat, film or cross_attention.
        image_size: height and width in pixels; needed by mini_vit alone, the others
            take any size.

    Raises:
        ValueError: dimensions that don't divide, or a kind that doesn't exist.
    """

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
    ) -> None:
        super().__init__()
        if d_model % 4 or d_model % (2 * nhead):
            raise ValueError(
                f"d_model has to be a multiple of 4 and of 2 · nhead, got {d_model}"
                f" with nhead {nhead}"
            )
        if enable_image_conditioning:
            self.image_encoder = image_encoder(
                image_encoder_arch, embedding_dim, image_size
            )
            self.fusion_module = fusion(fusion_strategy, embedding_dim, dropout)
        self.text_projection = nn.Sequential(
            nn.Linear(embedding_dim, 2 * d_model),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * d_model, d_model),
            nn.LayerNorm(d_model),
        )
        self.motion_embedding = frame_mlp(input_dim, d_model // 2, d_model)
        self.action_embedding = nn.Embedding(num_actions, ACTION_WIDTH)
        self.action_projection = nn.Sequential(
            nn.Linear(ACTION_WIDTH, d_model), nn.LayerNorm(d_model)
        )
        self.camera_projection = frame_mlp(3, d_model // 4, d_model)
        self.partner_projection = frame_mlp(input_dim, d_model // 2, d_model)
        self.transformer_encoder = Encoder(d_model, nhead, num_layers, dropout)
        self.pose_decoder = decoder(d_model, d_model // 2, output_dim, dropout)
        self.position_decoder = decoder(d_model, d_model // 4, 2, dropout)
        self.velocity_decoder = decoder(d_model, d_model // 4, 2, dropout)
        self.action_predictor = decoder(d_model, d_model // 2, num_actions, dropout)
        self.physics_decoder = decoder(d_model, d_model // 2, 6, dropout)
        self.environment_decoder = decoder(d_model, d_model // 2, 32, dropout)

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
        """Predict from a motion, a text and what else is given.

        An input that is left out is not added, which is not the same as zeros.

        Args:
            motion: [sequence, batch, input_dim], sequence at least 1.
            text_embedding: [batch, embedding_dim].
            action_sequence: [sequence, batch], integers in [0, num_actions).
            camera_data: [sequence, batch, 3]: x, y, zoom.
            partner_motion: [sequence, batch, input_dim].
            image_tensor: [batch, 3, height, width].
            image_camera_pose: [batch, 7]: position xyz, target xyz, field of view;
                ignored without an image.

        Raises:
            ValueError: an image for a model without an image encoder.
        """
        if image_tensor is not None:
            if not hasattr(self, "image_encoder"):
                raise ValueError(
                    "this model takes no images (enable_image_conditioning is false)"
                )
            text_embedding = self.fusion_module(
                text_embedding, self.image_encoder(image_tensor), image_camera_pose
            )
        text_token = self.text_projection(text_embedding)

        frames = self.motion_embedding(motion)
        if action_sequence is not None:
            frames = frames + self.action_projection(
                self.action_embedding(action_sequence)
            )
        if camera_data is not None:
            frames = frames + self.camera_projection(camera_data)
        if partner_motion is not None:
            frames = frames + self.partner_projection(partner_motion)

        tokens = torch.cat((text_token.unsqueeze(0), frames), dim=0)
        frames = self.transformer_encoder(tokens.transpose(0, 1)).transpose(0, 1)[1:]

        pooled = frames.mean(dim=0)
        return StickFigureOutput(
            pose=self.pose_decoder(frames),
            position=self.position_decoder(pooled),
            velocity=self.velocity_decoder(pooled),
            action_logits=self.action_predictor(frames),
            physics=self.physics_decoder(frames),
            environment=self.environment_decoder(pooled),
        )


def image_encoder(
    arch: str, embedding_dim: int, image_size: Sequence[int] | None
) -> nn.Module:
    """The image encoder of that name.

    Raises:
        ValueError: no such encoder, or mini_vit without the size of its images.
    """
    if arch == "lightweight_cnn":
        return LightweightCNN(embedding_dim)
    if arch == "resnet":
        return ResNet(embedding_dim)
    if arch == "mini_vit":
        if image_size is None:
            raise ValueError("mini_vit needs image_size")
        return MiniViT(embedding_dim, image_size)
    raise ValueError(
        "image_encoder_arch has to be lightweight_cnn, resnet or mini_vit, got"
        f" {arch!r}"
    )


def fusion(strategy: str, embedding_dim: int, dropout: float) -> nn.Module:
    """The fusion of that name.

    Raises:
        ValueError: no such fusion, or attention heads that don't divide the embedding.
    """
    if strategy == "gated":
        return GatedFusion(embedding_dim)
    if strategy == "concat":
        return ConcatFusion(embedding_dim, dropout)
    if strategy == "film":
        return FiLMFusion(embedding_dim)
    if strategy == "cross_attention":
        if embedding_dim % CrossAttentionFusion.heads:
            raise ValueError(
                "cross_attention needs an embedding_dim divisible by 8, got"
                f" {embedding_dim}"
            )
        return CrossAttentionFusion(embedding_dim, dropout)
    raise ValueError(
        "fusion_strategy has to be gated, concat, film or cross_attention, got"
        f" {strategy!r}"
    )


def frame_mlp(width: int, hidden: int, d_model: int) -> nn.Sequential:
    """[..., width] → [..., d_model]."""
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.GELU(),
        nn.Linear(hidden, d_model),
        nn.LayerNorm(d_model),
    )


def decoder(d_model: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    """[..., d_model] → [..., width]."""
    return nn.Sequential(
        nn.Linear(d_model, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, width),
    )
