"""The ONNX graph of a StickFigureTransformer, written directly.

A general exporter would have to rediscover what is known here. Written by hand, the
graph keeps the state dict's names and bytes, comes out in any opset from 14 to 25 in a
fraction of a second, and reads in a viewer as the model does. It is a second
description of `model.py`; the parity check holds the two together on every release.

The encoder runs on rows, [batch · tokens, d_model], because Gemm takes matrices; shapes
with dynamic sizes are computed from the inputs once and shared by all layers, as are
the rotary cosines and sines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from checkpoint_release.core.errors import OpsetError
from checkpoint_release.core.signature import Array, Signature
from checkpoint_release.models.stick_figure import ONNX_OPSETS
from checkpoint_release.models.stick_figure.expected_tensors import (
    CAMERA_POSE,
    INV_FREQ,
    VIT_LAYERS,
    VIT_WIDTH,
)
from checkpoint_release.models.stick_figure.onnx_builder import (
    FLOAT,
    GraphBuilder,
    Shape,
    Value,
)

RMS_EPSILON = 1e-6
VIT_HEADS = 6
CROSS_ATTENTION_HEADS = 8
# Sizes as a viewer shows them.
TOKENS, ROWS, FRAME_ROWS = "sequence+1", "batch*(sequence+1)", "sequence*batch"

Kwargs = Mapping[str, Any]
Inputs = Mapping[str, Value]


def onnx_graph(
    kwargs: Kwargs, weights: Mapping[str, Array], signature: Signature, opset: int
) -> onnx.ModelProto:
    """The model as an ONNX graph with exactly the signature's inputs and outputs.

    Args:
        kwargs: the constructor's arguments.
        weights: the state dict, mapped: dtypes and shapes are looked at, and the bytes
            of the rotary buffers alone. Half precision stays as it is in the file and
            is widened in the graph.
        signature: of the same model; inputs that it leaves out are left out of the
            computation.
        opset: one of ONNX_OPSETS.

    Returns:
        A model of the lowest IR version that the opset allows, whose initialisers name
        tensors of `weights` and hold no bytes, but for its constants: whoever writes
        the file streams them.

    Raises:
        OpsetError: another opset.
    """
    if opset not in ONNX_OPSETS:
        lowest, highest = ONNX_OPSETS[0], ONNX_OPSETS[-1]
        raise OpsetError(
            f"{{onnx.opset}} is {opset}, and StickFigureTransformer's graph can be"
            f" written in {lowest} to {highest}",
            f"choose an opset from {lowest} to {highest}",
            options=["onnx.opset"],
        )
    g = GraphBuilder(weights, opset)
    inputs = {spec.name: g.input(spec) for spec in signature.inputs}
    shapes = Shapes(g, inputs["motion"], kwargs)
    text = g.mlp(embed_text(g, inputs, kwargs), "text_projection", 3)
    text_token = g.layer_norm(text, "text_projection.4")
    frames = embed_frames(g, inputs)
    rows = g.concat(
        [text_token, frames], 0, ROWS, "transformer_encoder/text_then_frames"
    )
    rows = encode(g, shapes.batch_first(rows), weights, kwargs, shapes)
    decode(g, shapes.frames(rows), shapes)
    doc = description(kwargs, with_image="image_tensor" in inputs)
    return g.model("StickFigureTransformer", doc, signature.outputs)


def description(kwargs: Kwargs, with_image: bool) -> str:
    """What the graph computes, for people who open it in a viewer."""
    image = " and an image" if with_image else ""
    return (
        f"One text token{image} and the frames of a stick figure's motion through"
        f" {kwargs['num_layers']} transformer layers of width {kwargs['d_model']} with"
        f" {kwargs['nhead']} heads. Sequence first; any sequence from 1, any batch."
        " Initialisers are the tensors of the PyTorch state dict under its names."
    )


# ------------------------------------------------------------------------------
# Shapes


class Shapes:
    """Shapes that depend on the inputs, computed once, and ways between the layouts."""

    def __init__(self, g: GraphBuilder, motion: Value, kwargs: Kwargs) -> None:
        self.g = g
        self.d_model: int = kwargs["d_model"]
        self.heads: int = kwargs["nhead"]
        sequence = g.shape_of(motion, 0, 1, "shape/sequence")
        batch = g.shape_of(motion, 1, 2, "shape/batch")
        self.tokens = g.add(
            sequence,
            g.constant([1]),
            "shape/tokens",
            doc="the frames and the text token",
        )
        rest = g.constant([-1])
        self.by_frame = self._join([sequence, batch, rest], "shape/by_frame")
        self.by_token = self._join([self.tokens, batch, rest], "shape/by_token")
        self.by_sample = self._join([batch, self.tokens, rest], "shape/by_sample")
        if g.opset >= 23:
            self.once_per_sample = self._join(
                [batch, g.constant([1, 1])], "shape/once_per_sample"
            )
        else:
            heads = g.constant([self.heads])
            self.by_head = self._join(
                [batch, self.tokens, heads, rest], "shape/by_head"
            )

    def batch_first(self, rows: Value) -> Value:
        """Rows ordered by token, then sample → by sample, then token."""
        g, d = self.g, self.d_model
        tokens = g.reshape(
            rows, self.by_token, (TOKENS, "batch", d), "transformer_encoder/by_token"
        )
        samples = g.transpose(tokens, (1, 0, 2), "transformer_encoder/by_sample")
        return g.reshape(samples, [-1, d], (ROWS, d), "transformer_encoder/rows")

    def frames(self, rows: Value) -> Value:
        """Rows by sample, then token → the frames, [sequence, batch, d_model]."""
        g, d = self.g, self.d_model
        samples = g.reshape(
            rows, self.by_sample, ("batch", TOKENS, d), "decoders/by_sample"
        )
        tokens = g.transpose(samples, (1, 0, 2), "decoders/by_token")
        return g.slice(
            tokens,
            1,
            2**63 - 1,
            0,
            ("sequence", "batch", d),
            "decoders/frames",
            doc="drops the text token",
        )

    def _join(self, sizes: Sequence[Value], name: str) -> Value:
        count = sum(int(size.shape[0]) for size in sizes)
        return self.g.concat(sizes, 0, count, name)


# ------------------------------------------------------------------------------
# Into the encoder


def embed_text(g: GraphBuilder, inputs: Inputs, kwargs: Kwargs) -> Value:
    """The text embedding, fused with the image where there is one: [batch, E]."""
    text = inputs["text_embedding"]
    if "image_tensor" not in inputs:
        return text
    image = image_features(g, kwargs["image_encoder_arch"], inputs["image_tensor"])
    fuse = FUSIONS[kwargs["fusion_strategy"]]
    return fuse(g, text, image, inputs.get("image_camera_pose"))


def embed_frames(g: GraphBuilder, inputs: Inputs) -> Value:
    """Motion and what conditions it, frame by frame: [sequence · batch, d_model]."""
    frames = frame_mlp(g, inputs["motion"], "motion_embedding")
    if "action_sequence" in inputs:
        actions = g.reshape(
            inputs["action_sequence"], [-1], (FRAME_ROWS,), "action_embedding/rows"
        )
        embeddings = g.weight("action_embedding.weight")
        embedded = g.op(
            "Gather",
            [embeddings, actions],
            (FRAME_ROWS, embeddings.shape[1]),
            "action_embedding/lookup",
            axis=0,
        )
        projected = g.linear(embedded, "action_projection.0")
        normed = g.layer_norm(projected, "action_projection.1")
        frames = g.add(frames, normed, "frames/with_action")
    if "camera_data" in inputs:
        camera = frame_mlp(g, inputs["camera_data"], "camera_projection")
        frames = g.add(frames, camera, "frames/with_camera")
    if "partner_motion" in inputs:
        partner = frame_mlp(g, inputs["partner_motion"], "partner_projection")
        frames = g.add(frames, partner, "frames/with_partner")
    return frames


def frame_mlp(g: GraphBuilder, x: Value, name: str) -> Value:
    """[sequence, batch, width] → [sequence · batch, d_model]."""
    width = x.shape[-1]
    rows = g.reshape(x, [-1, int(width)], (FRAME_ROWS, width), f"{name}/rows")
    return g.layer_norm(g.mlp(rows, name, 2), f"{name}.3")


# ------------------------------------------------------------------------------
# The encoder


def encode(
    g: GraphBuilder,
    rows: Value,
    weights: Mapping[str, Array],
    kwargs: Kwargs,
    shapes: Shapes,
) -> Value:
    """All blocks, on rows by sample, then token."""
    rotary = Rotary(g, weights, kwargs, shapes)
    for layer in range(kwargs["num_layers"]):
        name = f"transformer_encoder.layers.{layer}"
        rows = encoder_block(g, rows, name, shapes, rotary.at(layer))
    return rows


@dataclass(frozen=True)
class Angles:
    """Cosines and sines by which a layer turns its queries and its keys."""

    queries: tuple[Value, Value]
    keys: tuple[Value, Value]


class Rotary:
    """Cosines and sines for the layers, computed from `inv_freq` for any length.

    Layers whose buffers are the same bytes, which is all of them in a model that was
    trained as it should be, share them.
    """

    def __init__(
        self,
        g: GraphBuilder,
        weights: Mapping[str, Array],
        kwargs: Kwargs,
        shapes: Shapes,
    ) -> None:
        self.g, self.weights, self.shapes = g, weights, shapes
        self.half = kwargs["d_model"] // kwargs["nhead"] // 2
        self.scale = (2 * self.half) ** -0.5
        self._shared: dict[bytes, Angles] = {}
        last = g.op("Squeeze", [shapes.tokens], (), "rotary/length")
        limits = [g.constant(0), last, g.constant(1)]
        count = g.op("Range", limits, (TOKENS,), "rotary/count")
        positions = g.op(
            "Cast", [count], (TOKENS,), "rotary/positions", FLOAT, to=FLOAT
        )
        self.positions = g.op(
            "Unsqueeze", [positions, g.constant([1])], (TOKENS, 1), "rotary/column"
        )

    def at(self, layer: int) -> Angles:
        """The layer's cosines and sines, in the form that the opset takes."""
        name = INV_FREQ.format(layer)
        key = self.weights[name].tobytes()
        if key not in self._shared:
            self._shared[key] = self._compute(name)
        return self._shared[key]

    def _compute(self, name: str) -> Angles:
        g = self.g
        scope = name.removesuffix(".inv_freq")
        shape: Shape = (TOKENS, self.half)
        angles = g.op(
            "Mul",
            [self.positions, g.weight(name)],
            shape,
            f"{scope}/angles",
            doc="position · inv_freq",
        )
        cos = g.op("Cos", [angles], shape, f"{scope}/cos")
        sin = g.op("Sin", [angles], shape, f"{scope}/sin")
        if g.opset >= 23:
            pair = self._by_sample(cos), self._by_sample(sin)
            return Angles(pair, pair)
        keys = self._whole(cos), self._whole(sin)
        queries = self._scaled(keys[0]), self._scaled(keys[1])
        return Angles(queries, keys)

    def _by_sample(self, x: Value) -> Value:
        shape = ("batch", *x.shape)
        expansion = [x, self.shapes.once_per_sample]
        return self.g.op("Expand", expansion, shape, f"{x.name}/by_sample")

    def _whole(self, x: Value) -> Value:
        """For both halves of a head."""
        return self.g.concat([x, x], 1, 2 * self.half, f"{x.name}/whole")

    def _scaled(self, x: Value) -> Value:
        return self.g.mul(
            x,
            self.g.constant(self.scale),
            f"{x.name}/scaled",
            "for queries: 1/√head_dim is taken in",
        )


def encoder_block(
    g: GraphBuilder, x: Value, name: str, shapes: Shapes, angles: Angles
) -> Value:
    """X + attention(norm1(x)), then x + ffn(norm2(x)), on rows."""
    normed = g.rms_norm(x, f"{name}.norm1", RMS_EPSILON)
    attention = fused_attention if g.opset >= 23 else rotary_attention
    mixed = attention(g, normed, f"{name}.self_attn", shapes, angles)
    projected = g.linear(mixed, f"{name}.self_attn.out_proj")
    x = g.add(x, projected, f"{name}/after_attention")

    normed = g.rms_norm(x, f"{name}.norm2", RMS_EPSILON)
    gate = g.linear(normed, f"{name}.ffn.gate_proj", bias=False)
    value = g.linear(normed, f"{name}.ffn.value_proj", bias=False)
    silu = g.mul(gate, g.sigmoid(gate, f"{name}.ffn/sigmoid"), f"{name}.ffn/silu")
    gated = g.mul(silu, value, f"{name}.ffn/gated")
    projected = g.linear(gated, f"{name}.ffn.output_proj", bias=False)
    return g.add(x, projected, f"{name}/after_ffn")


def project_qkv(g: GraphBuilder, x: Value, name: str) -> tuple[Value, Value, Value]:
    """Queries, keys and values, as rows."""
    return (
        g.linear(x, f"{name}.q_proj"),
        g.linear(x, f"{name}.k_proj"),
        g.linear(x, f"{name}.v_proj"),
    )


def rotary_attention(
    g: GraphBuilder, x: Value, name: str, shapes: Shapes, angles: Angles
) -> Value:
    """Attention spelt out, for opsets before 23; on rows."""
    q, k, v = project_qkv(g, x, name)
    size = shapes.d_model // shapes.heads

    def by_head(x: Value, what: str) -> Value:
        shape: Shape = ("batch", TOKENS, shapes.heads, size)
        heads = g.reshape(x, shapes.by_head, shape, f"{name}/{what}/split")
        return g.transpose(heads, (0, 2, 1, 3), f"{name}/{what}")

    q = rotate(g, by_head(q, "queries"), *angles.queries)
    k = rotate(g, by_head(k, "keys"), *angles.keys)
    return mix(g, q, k, by_head(v, "values"), name, ROWS)


def rotate(g: GraphBuilder, x: Value, cos: Value, sin: Value) -> Value:
    """X · cos + rotate_half(x) · sin, rotate_half([a, b]) = [-b, a]."""
    size = int(x.shape[-1])
    names = [f"{x.name}/first", f"{x.name}/second"]
    first, second = g.split(x, [size // 2] * 2, names, f"{x.name}/halves")
    minus = g.op("Neg", [second], second.shape, f"{x.name}/minus_second")
    turned = g.concat([minus, first], 3, size, f"{x.name}/rotate_half")
    by_cos = g.mul(x, cos, f"{x.name}/by_cos")
    return g.add(by_cos, g.mul(turned, sin, f"{x.name}/by_sin"), f"{x.name}/rotated")


def fused_attention(
    g: GraphBuilder, x: Value, name: str, shapes: Shapes, angles: Angles
) -> Value:
    """Attention as opset 23 has it: RotaryEmbedding and Attention; on rows."""
    d, heads = shapes.d_model, shapes.heads
    shape: Shape = ("batch", TOKENS, d)

    def by_sample(x: Value, what: str) -> Value:
        return g.reshape(x, shapes.by_sample, shape, f"{name}/{what}")

    def rotated(x: Value, cos: Value, sin: Value) -> Value:
        return g.op(
            "RotaryEmbedding",
            [x, cos, sin],
            shape,
            f"{x.name}/rotated",
            interleaved=0,
            num_heads=heads,
        )

    q, k, v = project_qkv(g, x, name)
    q, k, v = by_sample(q, "queries"), by_sample(k, "keys"), by_sample(v, "values")
    q, k = rotated(q, *angles.queries), rotated(k, *angles.keys)
    mixed = g.op(
        "Attention",
        [q, k, v],
        shape,
        f"{name}/attention",
        q_num_heads=heads,
        kv_num_heads=heads,
    )
    return g.reshape(mixed, [-1, d], (ROWS, d), f"{name}/rows")


def mix(
    g: GraphBuilder, q: Value, k: Value, v: Value, name: str, rows: int | str
) -> Value:
    """softmax(q · kᵀ) · v, for q scaled already.

    q, k and v are [batch, heads, length, size]; the result is [batch · length, heads ·
    size].
    """
    batch, heads, length, size = q.shape
    d = int(heads) * int(size)
    keys = g.transpose(k, (0, 1, 3, 2), f"{name}/keys_transposed")
    shape: Shape = (batch, heads, length, k.shape[2])
    scores = g.op("MatMul", [q, keys], shape, f"{name}/scores")
    attention = g.op("Softmax", [scores], scores.shape, f"{name}/softmax", axis=-1)
    mixed = g.op("MatMul", [attention, v], q.shape, f"{name}/mixed")
    joined = g.transpose(mixed, (0, 2, 1, 3), f"{name}/by_token")
    return g.reshape(joined, [-1, d], (rows, d), f"{name}/rows")


# ------------------------------------------------------------------------------
# Out of the encoder


DECODERS_BY_FRAME = {
    "pose": "pose_decoder",
    "action_logits": "action_predictor",
    "physics": "physics_decoder",
}


def decode(g: GraphBuilder, sequence: Value, shapes: Shapes) -> None:
    """The six outputs, from [sequence, batch, d_model]."""
    d = shapes.d_model
    rows = g.reshape(sequence, [-1, d], (FRAME_ROWS, d), "decoders/rows")
    for output, name in DECODERS_BY_FRAME.items():
        decoded = g.mlp(rows, name, 3)
        shape: Shape = ("sequence", "batch", decoded.shape[1])
        g.reshape(decoded, shapes.by_frame, shape, output)
    pooled = g.mean(sequence, 0, False, "decoders/pooled")
    for output in ("position", "velocity", "environment"):
        g.mlp(pooled, f"{output}_decoder", 3, output)


# ------------------------------------------------------------------------------
# Image encoders: [batch, 3, height, width] → [batch, embedding_dim]


def image_features(g: GraphBuilder, arch: str, image: Value) -> Value:
    """The image's features by the encoder of that name."""
    if arch == "mini_vit":
        return vit_features(g, image)
    pooled_features = cnn_features if arch == "lightweight_cnn" else resnet_features
    x = pooled_features(g, image)
    shape = ("batch", x.shape[1])
    pooled = g.op("GlobalAveragePool", [x], (*shape, 1, 1), "image_encoder.pool/mean")
    flat = g.op(
        "Flatten", [pooled], shape, "image_encoder.projection.0/flatten", axis=1
    )
    projected = g.linear(flat, "image_encoder.projection.1")
    return g.layer_norm(projected, "image_encoder.projection.2")


def convolution(
    g: GraphBuilder, x: Value, conv: str, norm: str, stride: int, where: str
) -> Value:
    """Convolution without bias, and batch norm with its saved statistics.

    Height and width are named by `where`.
    """
    kernel = g.weight(f"{conv}.weight")
    side = int(kernel.shape[2])
    sizes = x.shape[2:] if stride == 1 else (f"height_{where}", f"width_{where}")
    shape = (x.shape[0], kernel.shape[0], *sizes)
    filtered = g.op(
        "Conv",
        [x, kernel],
        shape,
        f"{conv}/convolution",
        kernel_shape=[side, side],
        pads=[side // 2] * 4,
        strides=[stride] * 2,
    )
    terms = [filtered]
    for part in ("weight", "bias", "running_mean", "running_var"):
        terms.append(g.weight(f"{norm}.{part}"))
    return g.op("BatchNormalization", terms, shape, f"{norm}/batch_norm", epsilon=1e-5)


def cnn_features(g: GraphBuilder, image: Value) -> Value:
    """lightweight_cnn up to its pooling."""
    x = image
    for block in range(5):
        name = f"image_encoder.encoder.{block}"
        x = convolution(g, x, f"{name}.conv", f"{name}.bn", 2, f"encoder.{block}")
        x = g.gelu(x, name)
    return x


def resnet_features(g: GraphBuilder, image: Value) -> Value:
    """Resnet up to its pooling."""
    stem = "image_encoder.stem"
    x = convolution(g, image, f"{stem}.0", f"{stem}.1", 2, "stem")
    x = g.op(
        "MaxPool",
        [g.gelu(x, f"{stem}.2")],
        ("batch", 64, "height_stage1", "width_stage1"),
        f"{stem}.3/max_pool",
        kernel_shape=[3, 3],
        pads=[1] * 4,
        strides=[2, 2],
    )
    for stage in range(1, 5):
        name = f"image_encoder.stage{stage}"
        stride = 1 if stage == 1 else 2
        x = residual_block(g, x, f"{name}.0", stride, f"stage{stage}")
        x = residual_block(g, x, f"{name}.1", 1, f"stage{stage}")
    return x


def residual_block(
    g: GraphBuilder, x: Value, name: str, stride: int, where: str
) -> Value:
    """Two convolutions beside the shortcut, itself one where the shape changes."""
    y = convolution(g, x, f"{name}.conv1", f"{name}.bn1", stride, where)
    y = g.gelu(y, f"{name}.act1")
    y = convolution(g, y, f"{name}.conv2", f"{name}.bn2", 1, where)
    if stride != 1:
        short = f"{name}.shortcut"
        x = convolution(g, x, f"{short}.0", f"{short}.1", stride, where)
    return g.gelu(g.add(y, x, f"{name}/sum"), f"{name}.act2")


def vit_features(g: GraphBuilder, image: Value) -> Value:
    """mini_vit: the class token after post-norm layers over it and the patches."""
    prefix, width = "image_encoder", VIT_WIDTH
    positions = int(g.weight(f"{prefix}.pos_embed").shape[1])
    patches = patch_rows(g, image, positions - 1)
    x = g.concat(
        [class_token(g, image), patches], 1, positions, f"{prefix}/class_then_patches"
    )
    x = g.add(x, g.weight(f"{prefix}.pos_embed"), f"{prefix}/with_positions")
    shape: Shape = (f"batch*{positions}", width)
    x = g.reshape(x, [-1, width], shape, f"{prefix}/rows")
    for layer in range(VIT_LAYERS):
        x = vit_block(g, x, f"{prefix}.transformer.layers.{layer}", positions)
    shape = ("batch", positions, width)
    tokens = g.reshape(x, [-1, positions, width], shape, f"{prefix}/encoded")
    first = g.slice(tokens, 0, 1, 1, ("batch", 1, width), f"{prefix}/class_token")
    flat = g.reshape(first, [-1, width], ("batch", width), f"{prefix}/class_row")
    return g.linear(g.layer_norm(flat, f"{prefix}.norm"), f"{prefix}.projection")


def class_token(g: GraphBuilder, image: Value) -> Value:
    """The class token of each sample: [batch, 1, width]."""
    batch = g.shape_of(image, 0, 1, "image_encoder/batch")
    name = "image_encoder.cls_token"
    shape = g.concat([batch, g.constant([1, VIT_WIDTH])], 0, 3, f"{name}/shape")
    return g.op(
        "Expand", [g.weight(name), shape], ("batch", 1, VIT_WIDTH), f"{name}/by_sample"
    )


def vit_block(g: GraphBuilder, x: Value, name: str, positions: int) -> Value:
    """A post-norm layer, on rows."""
    attention = f"{name}.self_attn"
    q, k, v = packed_heads(g, x, attention, VIT_HEADS, positions)
    mixed = mix(g, q, k, v, attention, x.shape[0])
    projected = g.linear(mixed, f"{attention}.out_proj")
    x = g.layer_norm(g.add(x, projected, f"{name}/after_attention"), f"{name}.norm1")
    hidden = g.gelu(g.linear(x, f"{name}.linear1"), f"{name}.activation")
    projected = g.linear(hidden, f"{name}.linear2")
    return g.layer_norm(g.add(x, projected, f"{name}/after_ffn"), f"{name}.norm2")


def patch_rows(g: GraphBuilder, image: Value, patches: int) -> Value:
    """[batch, 3, side, side] → [batch, patches, width]."""
    name = "image_encoder.patch_embed.projection"
    kernel, bias = g.weight(f"{name}.weight"), g.weight(f"{name}.bias")
    patch = int(kernel.shape[2])
    sides = tuple(int(side) // patch for side in image.shape[2:])
    grid = g.op(
        "Conv",
        [image, kernel, bias],
        ("batch", VIT_WIDTH, *sides),
        f"{name}/convolution",
        kernel_shape=[patch] * 2,
        strides=[patch] * 2,
    )
    flat = g.reshape(grid, [0, 0, -1], ("batch", VIT_WIDTH, patches), f"{name}/flat")
    return g.transpose(flat, (0, 2, 1), f"{name}/by_patch")


def packed_heads(
    g: GraphBuilder, rows: Value, name: str, heads: int, length: int
) -> tuple[Value, Value, Value]:
    """Scaled queries, keys and values of an nn.MultiheadAttention.

    Each is [batch, heads, length, size].
    """
    d = int(rows.shape[1])
    size = d // heads
    weight = f"{name}.in_proj_weight"
    packed = g.linear(rows, name, weight=weight, output=f"{name}/in_proj")
    whats = [f"{name}/{what}" for what in ("queries", "keys", "values")]
    pieces = g.split(
        packed, [d] * 3, [f"{what}/rows" for what in whats], f"{name}/unpack"
    )
    by_head = []
    for piece, what in zip(pieces, whats, strict=True):
        target = [-1, length, heads, size]
        split = g.reshape(
            piece, target, ("batch", length, heads, size), f"{what}/split"
        )
        by_head.append(g.transpose(split, (0, 2, 1, 3), what))
    q, k, v = by_head
    return g.mul(q, g.constant(size**-0.5), f"{q.name}/scaled"), k, v


# ------------------------------------------------------------------------------
# Fusions of text, image [batch, embedding_dim] and perhaps camera pose [batch, 7]

SCOPE = "fusion_module"


def gated(g: GraphBuilder, text: Value, image: Value, pose: Value | None) -> Value:
    """The sum of projections, each weighed by its gate, normed."""

    def weigh(x: Value, projected: Value, what: str) -> Value:
        gate = g.linear(x, f"{SCOPE}.{what}_gate.0")
        gate = g.sigmoid(gate, f"{SCOPE}.{what}_gate.1/sigmoid")
        return g.mul(projected, gate, f"{SCOPE}/{what}")

    x = weigh(text, g.linear(text, f"{SCOPE}.text_proj"), "text")
    weighed = weigh(image, g.linear(image, f"{SCOPE}.image_proj"), "image")
    x = g.add(x, weighed, f"{SCOPE}/with_image")
    if pose is not None:
        weighed = weigh(pose, g.mlp(pose, f"{SCOPE}.camera_proj", 2), "camera")
        x = g.add(x, weighed, f"{SCOPE}/with_camera")
    return g.layer_norm(x, f"{SCOPE}.norm")


def concat(g: GraphBuilder, text: Value, image: Value, pose: Value | None) -> Value:
    """All three side by side; a camera pose that is left out is zeros."""
    width = int(g.weight(f"{SCOPE}.projection.0.weight").shape[1])
    if pose is not None:
        x = g.concat([text, image, pose], 1, width, f"{SCOPE}/sources")
    else:
        x = g.concat([text, image], 1, width - CAMERA_POSE, f"{SCOPE}/sources")
        pads = g.constant([0, 0, 0, CAMERA_POSE])
        x = g.op(
            "Pad",
            [x, pads],
            ("batch", width),
            f"{SCOPE}/no_camera",
            doc="no pose is zeros",
        )
    x = g.mlp(x, f"{SCOPE}.projection", 3)
    return g.layer_norm(x, f"{SCOPE}.projection.4")


def film(g: GraphBuilder, text: Value, image: Value, pose: Value | None) -> Value:
    """The text scaled and shifted by the image, then by the camera."""
    x = g.linear(text, f"{SCOPE}.text_proj")
    x = g.mul(g.linear(image, f"{SCOPE}.image_gamma"), x, f"{SCOPE}/scaled_by_image")
    x = g.add(x, g.linear(image, f"{SCOPE}.image_beta"), f"{SCOPE}/with_image")
    if pose is not None:
        gamma = g.mlp(pose, f"{SCOPE}.camera_gamma", 2)
        x = g.mul(gamma, x, f"{SCOPE}/scaled_by_camera")
        beta = g.mlp(pose, f"{SCOPE}.camera_beta", 2)
        x = g.add(x, beta, f"{SCOPE}/with_camera")
    return g.layer_norm(x, f"{SCOPE}.norm")


def cross_attention(
    g: GraphBuilder, text: Value, image: Value, pose: Value | None
) -> Value:
    """The text as one token attends to itself, the image and the camera."""
    tokens = [
        g.linear(text, f"{SCOPE}.text_proj"),
        g.linear(image, f"{SCOPE}.image_proj"),
    ]
    if pose is not None:
        tokens.append(g.mlp(pose, f"{SCOPE}.camera_proj", 2))
    e, count = int(tokens[0].shape[1]), len(tokens)
    columns = []
    for x in tokens:
        axes = g.constant([1])
        columns.append(g.op("Unsqueeze", [x, axes], ("batch", 1, e), f"{x.name}/token"))
    source = g.concat(columns, 1, count, f"{SCOPE}/text_then_others")
    rows = g.reshape(source, [-1, e], (f"batch*{count}", e), f"{SCOPE}/rows")
    attention = f"{SCOPE}.cross_attn"
    q, k, v = packed_heads(g, rows, attention, CROSS_ATTENTION_HEADS, count)
    shape = (*q.shape[:2], 1, q.shape[3])
    query = g.slice(q, 0, 1, 2, shape, f"{attention}/text_query")
    mixed = mix(g, query, k, v, attention, "batch")
    mixed = g.linear(mixed, f"{attention}.out_proj")
    x = g.add(mixed, tokens[0], f"{SCOPE}/after_attention")
    x = g.layer_norm(x, f"{SCOPE}.norm1")
    x = g.add(x, g.mlp(x, f"{SCOPE}.ffn", 3), f"{SCOPE}/after_ffn")
    return g.layer_norm(x, f"{SCOPE}.norm2")


FUSIONS: dict[str, Callable[[GraphBuilder, Value, Value, Value | None], Value]] = {
    "gated": gated,
    "concat": concat,
    "film": film,
    "cross_attention": cross_attention,
}
