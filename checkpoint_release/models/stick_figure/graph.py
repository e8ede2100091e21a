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
from typing import Any

import onnx

from checkpoint_release.core.errors import OpsetError
from checkpoint_release.core.signature import Array, Signature
from checkpoint_release.models.stick_figure.architecture import (
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

OPSETS = range(14, 26)
RMS_EPSILON = 1e-6
VIT_HEADS = 6
CROSS_ATTENTION_HEADS = 8
# Sizes as a viewer shows them.
TOKENS, ROWS, FRAME_ROWS = "sequence+1", "batch*(sequence+1)", "sequence*batch"

Kwargs = Mapping[str, Any]
Inputs = Mapping[str, Value]


def onnx_graph(
    kwargs: Kwargs,
    weights: Mapping[str, Array],
    signature: Signature,
    opset: int,
    ir_version: int | None = None,
) -> onnx.ModelProto:
    """The model as an ONNX graph that takes the signature's inputs, all of them, and
    gives its outputs.

    Args:
        kwargs: the constructor's arguments.
        weights: the state dict, mapped: dtypes and shapes are looked at, and the bytes
            of the rotary buffers alone. Half precision stays as it is in the file and
            is widened in the graph.
        signature: of the same model; inputs that it leaves out are left out of the
            computation.
        opset: 14 to 25.
        ir_version: None: the lowest that the opset allows.

    Returns:
        A model whose initialisers name tensors of `weights` and hold no bytes: whoever
            writes the file streams them.

    Raises:
        OpsetError: another opset.
    """
    if opset not in OPSETS:
        raise OpsetError(
            f"onnx.opset is {opset}, and StickFigureTransformer's graph can be written"
            f" in {OPSETS[0]} to {OPSETS[-1]}",
            f"choose an opset from {OPSETS[0]} to {OPSETS[-1]}",
        )
    g = GraphBuilder(weights, opset)
    inputs = {spec.name: g.input(spec) for spec in signature.inputs}
    shapes = Shapes(g, inputs["motion"], kwargs)

    text = inputs["text_embedding"]
    if "image_tensor" in inputs:
        image = image_features(g, kwargs["image_encoder_arch"], inputs["image_tensor"])
        text = FUSIONS[kwargs["fusion_strategy"]](
            g, text, image, inputs.get("image_camera_pose")
        )
    text = g.linear(
        g.gelu(g.linear(text, "text_projection.0"), "text_projection.1"),
        "text_projection.3",
    )
    text_token = g.layer_norm(text, "text_projection.4")

    frames = embed_frames(g, inputs)
    rows = g.concat(
        [text_token, frames], 0, ROWS, "transformer_encoder/text_then_frames"
    )
    rows = shapes.batch_first(rows)
    rotary = Rotary(g, weights, kwargs, shapes)
    for layer in range(kwargs["num_layers"]):
        rows = encoder_block(
            g,
            rows,
            f"transformer_encoder.layers.{layer}",
            kwargs["nhead"],
            shapes,
            rotary.at(layer),
        )
    sequence = shapes.frames(rows)

    decode(g, sequence, shapes)
    images = " and an image" if "image_tensor" in inputs else ""
    doc = (
        f"One text token{images} and the frames of a stick figure's motion through"
        f" {kwargs['num_layers']} transformer layers of width {kwargs['d_model']} with"
        f" {kwargs['nhead']} heads. Sequence first; any sequence from 1, any batch."
        " Initialisers are the tensors of the PyTorch state dict under its names."
    )
    return g.model("StickFigureTransformer", doc, signature.outputs, ir_version)


# ------------------------------------------------------------------------------
# Shapes


class Shapes:
    """Shapes that depend on the inputs, computed once, and the ways between the
    layouts.
    """

    def __init__(self, g: GraphBuilder, motion: Value, kwargs: Kwargs) -> None:
        self.g = g
        self.d_model: int = kwargs["d_model"]
        self.heads: int = kwargs["nhead"]
        self.sequence = g.shape_of(motion, 0, 1, "shape/sequence")
        self.batch = g.shape_of(motion, 1, 2, "shape/batch")
        self.tokens = g.add(
            self.sequence,
            g.constant([1]),
            "shape/tokens",
            doc="the frames and the text token",
        )
        rest = g.constant([-1])
        self.by_frame = self._vector(
            [self.sequence, self.batch, rest], "shape/by_frame"
        )
        self.by_token = self._vector([self.tokens, self.batch, rest], "shape/by_token")
        self.by_sample = self._vector(
            [self.batch, self.tokens, rest], "shape/by_sample"
        )
        if g.opset >= 23:
            self.once_per_sample = self._vector(
                [self.batch, g.constant([1, 1])], "shape/once_per_sample"
            )
        else:
            head = [self.batch, self.tokens, g.constant([self.heads]), rest]
            self.by_head = self._vector(head, "shape/by_head")

    def batch_first(self, rows: Value) -> Value:
        """Rows ordered by token, then sample → by sample, then token."""
        g, d = self.g, self.d_model
        tokens = g.reshape(
            rows, self.by_token, (TOKENS, "batch", d), "transformer_encoder/by_token"
        )
        samples = g.transpose(tokens, (1, 0, 2), "transformer_encoder/by_sample")
        return g.reshape(samples, [-1, d], (ROWS, d), "transformer_encoder/rows")

    def frames(self, rows: Value) -> Value:
        """Rows by sample, then token → [sequence, batch, d_model] without the text
        token.
        """
        g, d = self.g, self.d_model
        samples = g.reshape(
            rows, self.by_sample, ("batch", TOKENS, d), "decoders/by_sample"
        )
        tokens = g.transpose(samples, (1, 0, 2), "decoders/by_token")
        ends = [g.constant([1]), g.constant([2**63 - 1]), g.constant([0])]
        return g.op(
            "Slice",
            [tokens, *ends],
            ("sequence", "batch", d),
            "decoders/frames",
            doc="drops the text token",
        )

    def _vector(self, sizes: Sequence[Value], name: str) -> Value:
        return self.g.concat(sizes, 0, sum(int(size.shape[0]) for size in sizes), name)


# ------------------------------------------------------------------------------
# Into the encoder


def embed_frames(g: GraphBuilder, inputs: Inputs) -> Value:
    """Motion and what conditions it, frame by frame: [sequence · batch, d_model]."""
    frames = frame_mlp(g, inputs["motion"], "motion_embedding")
    if "action_sequence" in inputs:
        actions = g.reshape(
            inputs["action_sequence"], [-1], (FRAME_ROWS,), "action_embedding/rows"
        )
        table = g.weight("action_embedding.weight")
        looked_up = g.op(
            "Gather",
            [table, actions],
            (FRAME_ROWS, table.shape[1]),
            "action_embedding/lookup",
            axis=0,
        )
        projected = g.layer_norm(
            g.linear(looked_up, "action_projection.0"), "action_projection.1"
        )
        frames = g.add(frames, projected, "frames/with_action")
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
    hidden = g.gelu(g.linear(rows, f"{name}.0"), f"{name}.1")
    return g.layer_norm(g.linear(hidden, f"{name}.2"), f"{name}.3")


# ------------------------------------------------------------------------------
# The encoder


class Rotary:
    """Cosines and sines for the layers, computed from `inv_freq`: no table, no longest
    sequence.

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
        self._shared: dict[bytes, tuple[Value, ...]] = {}
        last = g.op("Squeeze", [shapes.tokens], (), "rotary/length")
        count = g.op(
            "Range", [g.constant(0), last, g.constant(1)], (TOKENS,), "rotary/count"
        )
        positions = g.op(
            "Cast", [count], (TOKENS,), "rotary/positions", dtype=FLOAT, to=FLOAT
        )
        self.positions = g.op(
            "Unsqueeze", [positions, g.constant([1])], (TOKENS, 1), "rotary/column"
        )

    def at(self, layer: int) -> tuple[Value, ...]:
        """The layer's cosines and sines, in the form that the opset's attention takes."""
        name = INV_FREQ.format(layer)
        key = self.weights[name].tobytes()
        if key not in self._shared:
            self._shared[key] = self._compute(name)
        return self._shared[key]

    def _compute(self, name: str) -> tuple[Value, ...]:
        g, half = self.g, self.half
        scope = name.removesuffix(".inv_freq")
        shape: Shape = (TOKENS, half)
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
            return tuple(
                g.op(
                    "Expand",
                    [value, self.shapes.once_per_sample],
                    ("batch", *shape),
                    f"{value.name}/by_sample",
                )
                for value in (cos, sin)
            )
        whole = [
            g.concat([value, value], 1, 2 * half, f"{value.name}/whole")
            for value in (cos, sin)
        ]
        scaled = [
            g.mul(
                value,
                g.constant(self.scale),
                f"{value.name}/scaled",
                "for queries: 1/√head_dim is taken in",
            )
            for value in whole
        ]
        return (*whole, *scaled)


def encoder_block(
    g: GraphBuilder,
    x: Value,
    name: str,
    heads: int,
    shapes: Shapes,
    rotary: tuple[Value, ...],
) -> Value:
    """X + attention(norm1(x)), then x + ffn(norm2(x)), on rows."""
    normed = g.rms_norm(x, f"{name}.norm1", RMS_EPSILON)
    projections = [
        g.linear(normed, f"{name}.self_attn.{which}")
        for which in ("q_proj", "k_proj", "v_proj")
    ]
    attention = fused_attention if g.opset >= 23 else rotary_attention
    mixed = attention(g, projections, f"{name}.self_attn", heads, shapes, rotary)
    x = g.add(
        x, g.linear(mixed, f"{name}.self_attn.out_proj"), f"{name}/after_attention"
    )

    normed = g.rms_norm(x, f"{name}.norm2", RMS_EPSILON)
    gate = g.linear(normed, f"{name}.ffn.gate_proj", bias=False)
    value = g.linear(normed, f"{name}.ffn.value_proj", bias=False)
    silu = g.mul(gate, g.sigmoid(gate, f"{name}.ffn/sigmoid"), f"{name}.ffn/silu")
    gated = g.mul(silu, value, f"{name}.ffn/gated")
    return g.add(
        x, g.linear(gated, f"{name}.ffn.output_proj", bias=False), f"{name}/after_ffn"
    )


def rotary_attention(
    g: GraphBuilder,
    qkv: Sequence[Value],
    name: str,
    heads: int,
    shapes: Shapes,
    rotary: tuple[Value, ...],
) -> Value:
    """Attention spelt out, for opsets before 23."""
    d = int(qkv[0].shape[1])
    size = d // heads
    cos, sin, scaled_cos, scaled_sin = rotary

    def by_head(x: Value, what: str) -> Value:
        split = g.reshape(
            x, shapes.by_head, ("batch", TOKENS, heads, size), f"{name}/{what}/split"
        )
        return g.transpose(split, (0, 2, 1, 3), f"{name}/{what}")

    def rotate(x: Value, cos: Value, sin: Value) -> Value:
        first, second = g.split(
            x,
            [size // 2] * 2,
            [f"{x.name}/first", f"{x.name}/second"],
            f"{x.name}/halves",
        )
        minus = g.op("Neg", [second], second.shape, f"{x.name}/minus_second")
        turned = g.concat([minus, first], 3, size, f"{x.name}/rotate_half")
        return g.add(
            g.mul(x, cos, f"{x.name}/by_cos"),
            g.mul(turned, sin, f"{x.name}/by_sin"),
            f"{x.name}/rotated",
        )

    q = rotate(by_head(qkv[0], "queries"), scaled_cos, scaled_sin)
    k = rotate(by_head(qkv[1], "keys"), cos, sin)
    return mix(g, q, k, by_head(qkv[2], "values"), name, ROWS)


def fused_attention(
    g: GraphBuilder,
    qkv: Sequence[Value],
    name: str,
    heads: int,
    shapes: Shapes,
    rotary: tuple[Value, ...],
) -> Value:
    """Attention as opset 23 has it: RotaryEmbedding and Attention."""
    d = int(qkv[0].shape[1])
    shape: Shape = ("batch", TOKENS, d)
    q, k, v = (
        g.reshape(x, shapes.by_sample, shape, f"{name}/{what}")
        for x, what in zip(qkv, ("queries", "keys", "values"), strict=True)
    )
    q, k = (
        g.op(
            "RotaryEmbedding",
            [x, *rotary],
            shape,
            f"{x.name}/rotated",
            interleaved=0,
            num_heads=heads,
        )
        for x in (q, k)
    )
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
    """softmax(q · kᵀ) · v for [batch, heads, length, size] with q scaled already →
    [batch · length, heads · size].
    """
    batch, heads, length, size = q.shape
    d = int(heads) * int(size)
    keys = g.transpose(k, (0, 1, 3, 2), f"{name}/keys_transposed")
    scores = g.op(
        "MatMul", [q, keys], (batch, heads, length, k.shape[2]), f"{name}/scores"
    )
    attention = g.op("Softmax", [scores], scores.shape, f"{name}/softmax", axis=-1)
    mixed = g.op("MatMul", [attention, v], q.shape, f"{name}/mixed")
    joined = g.transpose(mixed, (0, 2, 1, 3), f"{name}/by_token")
    return g.reshape(joined, [-1, d], (rows, d), f"{name}/rows")


# ------------------------------------------------------------------------------
# Out of the encoder


def decode(g: GraphBuilder, sequence: Value, shapes: Shapes) -> None:
    """The six outputs, from [sequence, batch, d_model]."""
    d = shapes.d_model
    rows = g.reshape(sequence, [-1, d], (FRAME_ROWS, d), "decoders/rows")
    for output, name in (
        ("pose", "pose_decoder"),
        ("action_logits", "action_predictor"),
        ("physics", "physics_decoder"),
    ):
        decoded = decoder(g, rows, name, "")
        g.reshape(
            decoded, shapes.by_frame, ("sequence", "batch", decoded.shape[1]), output
        )
    pooled = g.mean(sequence, 0, False, "decoders/pooled")
    for output in ("position", "velocity", "environment"):
        decoder(g, pooled, f"{output}_decoder", output)


def decoder(g: GraphBuilder, x: Value, name: str, output: str) -> Value:
    """Linear, GELU, linear on rows."""
    return g.linear(
        g.gelu(g.linear(x, f"{name}.0"), f"{name}.1"), f"{name}.3", output=output
    )


# ------------------------------------------------------------------------------
# Image encoders: [batch, 3, height, width] → [batch, embedding_dim]


def image_features(g: GraphBuilder, arch: str, image: Value) -> Value:
    """The image's features by the encoder of that name."""
    if arch == "mini_vit":
        return vit_features(g, image)
    x = (
        cnn_features(g, image)
        if arch == "lightweight_cnn"
        else resnet_features(g, image)
    )
    channels = x.shape[1]
    pooled = g.op(
        "GlobalAveragePool", [x], ("batch", channels, 1, 1), "image_encoder.pool/mean"
    )
    flat = g.op(
        "Flatten",
        [pooled],
        ("batch", channels),
        "image_encoder.projection.0/flatten",
        axis=1,
    )
    return g.layer_norm(
        g.linear(flat, "image_encoder.projection.1"), "image_encoder.projection.2"
    )


def convolution(
    g: GraphBuilder, x: Value, conv: str, norm: str, stride: int, where: str
) -> Value:
    """Convolution without bias and batch norm with its saved statistics; height and
    width are named by `where`.
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
    statistics = [
        g.weight(f"{norm}.{part}")
        for part in ("weight", "bias", "running_mean", "running_var")
    ]
    return g.op(
        "BatchNormalization",
        [filtered, *statistics],
        shape,
        f"{norm}/batch_norm",
        epsilon=1e-5,
    )


def cnn_features(g: GraphBuilder, image: Value) -> Value:
    """lightweight_cnn up to its pooling."""
    x = image
    for block in range(5):
        name = f"image_encoder.encoder.{block}"
        x = g.gelu(
            convolution(g, x, f"{name}.conv", f"{name}.bn", 2, f"encoder.{block}"), name
        )
    return x


def resnet_features(g: GraphBuilder, image: Value) -> Value:
    """Resnet up to its pooling."""
    stem = "image_encoder.stem"
    x = g.gelu(convolution(g, image, f"{stem}.0", f"{stem}.1", 2, "stem"), f"{stem}.2")
    sizes: Shape = ("batch", 64, "height_stage1", "width_stage1")
    x = g.op(
        "MaxPool", [x], sizes, f"{stem}.3/max_pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]
    )  # fmt: skip
    for stage in range(1, 5):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            x = residual_block(
                g, x, f"image_encoder.stage{stage}.{block}", stride, f"stage{stage}"
            )
    return x


def residual_block(
    g: GraphBuilder, x: Value, name: str, stride: int, where: str
) -> Value:
    """Two convolutions beside the shortcut, which is a convolution where the shape
    changes.
    """
    y = g.gelu(
        convolution(g, x, f"{name}.conv1", f"{name}.bn1", stride, where), f"{name}.act1"
    )
    y = convolution(g, y, f"{name}.conv2", f"{name}.bn2", 1, where)
    shortcut = x
    if stride != 1:
        shortcut = convolution(
            g, x, f"{name}.shortcut.0", f"{name}.shortcut.1", stride, where
        )
    return g.gelu(g.add(y, shortcut, f"{name}/sum"), f"{name}.act2")


def vit_features(g: GraphBuilder, image: Value) -> Value:
    """mini_vit: patches and a class token through post-norm layers; the class token is
    projected.
    """
    prefix = "image_encoder"
    positions = int(g.weight(f"{prefix}.pos_embed").shape[1])
    patches = patch_rows(g, image, positions - 1)
    batch = g.shape_of(image, 0, 1, f"{prefix}/batch")
    one = g.op(
        "Concat",
        [batch, g.constant([1, VIT_WIDTH])],
        (3,),
        f"{prefix}.cls_token/shape",
        axis=0,
    )
    class_token = g.weight(f"{prefix}.cls_token")
    token = g.op(
        "Expand",
        [class_token, one],
        ("batch", 1, VIT_WIDTH),
        f"{prefix}.cls_token/by_sample",
    )
    x = g.concat([token, patches], 1, positions, f"{prefix}/class_then_patches")
    x = g.add(x, g.weight(f"{prefix}.pos_embed"), f"{prefix}/with_positions")
    rows: str = f"batch*{positions}"
    x = g.reshape(x, [-1, VIT_WIDTH], (rows, VIT_WIDTH), f"{prefix}/rows")
    for layer in range(VIT_LAYERS):
        name = f"{prefix}.transformer.layers.{layer}"
        q, k, v = packed_heads(g, x, f"{name}.self_attn", VIT_HEADS, positions)
        mixed = g.linear(
            mix(g, q, k, v, f"{name}.self_attn", rows), f"{name}.self_attn.out_proj"
        )
        x = g.layer_norm(g.add(x, mixed, f"{name}/after_attention"), f"{name}.norm1")
        hidden = g.gelu(g.linear(x, f"{name}.linear1"), f"{name}.activation")
        x = g.layer_norm(
            g.add(x, g.linear(hidden, f"{name}.linear2"), f"{name}/after_ffn"),
            f"{name}.norm2",
        )
    tokens = g.reshape(
        x,
        [-1, positions, VIT_WIDTH],
        ("batch", positions, VIT_WIDTH),
        f"{prefix}/encoded",
    )
    first = g.op("Slice", [tokens, g.constant([0]), g.constant([1]), g.constant([1])],
                 ("batch", 1, VIT_WIDTH), f"{prefix}/class_token")  # fmt: skip
    flat = g.reshape(
        first, [-1, VIT_WIDTH], ("batch", VIT_WIDTH), f"{prefix}/class_row"
    )
    return g.linear(g.layer_norm(flat, f"{prefix}.norm"), f"{prefix}.projection")


def patch_rows(g: GraphBuilder, image: Value, patches: int) -> Value:
    """[batch, 3, side, side] → [batch, patches, width]."""
    name = "image_encoder.patch_embed.projection"
    kernel, bias = g.weight(f"{name}.weight"), g.weight(f"{name}.bias")
    patch = int(kernel.shape[2])
    sides = tuple(int(side) // patch for side in image.shape[2:])
    grid = g.op(
        "Conv", [image, kernel, bias], ("batch", VIT_WIDTH, *sides), f"{name}/convolution",
        kernel_shape=[patch] * 2, strides=[patch] * 2,
    )  # fmt: skip
    flat = g.reshape(grid, [0, 0, -1], ("batch", VIT_WIDTH, patches), f"{name}/flat")
    return g.transpose(flat, (0, 2, 1), f"{name}/by_patch")


def packed_heads(
    g: GraphBuilder, rows: Value, name: str, heads: int, length: int
) -> list[Value]:
    """Scaled queries, keys and values of an nn.MultiheadAttention, each [batch, heads,
    length, size].
    """
    d = int(rows.shape[1])
    size = d // heads
    packed = g.linear(
        rows, name, weight=f"{name}.in_proj_weight", output=f"{name}/in_proj"
    )
    whats = ("queries", "keys", "values")
    pieces = g.split(
        packed, [d] * 3, [f"{name}/{what}/rows" for what in whats], f"{name}/unpack"
    )
    by_head = []
    for piece, what in zip(pieces, whats, strict=True):
        shape: Shape = ("batch", length, heads, size)
        split = g.reshape(
            piece, [-1, length, heads, size], shape, f"{name}/{what}/split"
        )
        by_head.append(g.transpose(split, (0, 2, 1, 3), f"{name}/{what}"))
    q, k, v = by_head
    return [g.mul(q, g.constant(size**-0.5), f"{name}/queries/scaled"), k, v]


# ------------------------------------------------------------------------------
# Fusions of text, image [batch, embedding_dim] and perhaps camera pose [batch, 7]

SCOPE = "fusion_module"


def camera_mlp(g: GraphBuilder, pose: Value, name: str) -> Value:
    """[batch, 7] → [batch, embedding_dim]."""
    return g.linear(
        g.gelu(g.linear(pose, f"{SCOPE}.{name}.0"), f"{SCOPE}.{name}.1"),
        f"{SCOPE}.{name}.2",
    )


def gated(g: GraphBuilder, text: Value, image: Value, pose: Value | None) -> Value:
    """The sum of projections, each weighed by its gate, normed."""

    def weigh(x: Value, projected: Value, what: str) -> Value:
        gate = g.sigmoid(
            g.linear(x, f"{SCOPE}.{what}_gate.0"), f"{SCOPE}.{what}_gate.1/sigmoid"
        )
        return g.mul(projected, gate, f"{SCOPE}/{what}")

    x = weigh(text, g.linear(text, f"{SCOPE}.text_proj"), "text")
    x = g.add(
        x,
        weigh(image, g.linear(image, f"{SCOPE}.image_proj"), "image"),
        f"{SCOPE}/with_image",
    )
    if pose is not None:
        x = g.add(
            x,
            weigh(pose, camera_mlp(g, pose, "camera_proj"), "camera"),
            f"{SCOPE}/with_camera",
        )
    return g.layer_norm(x, f"{SCOPE}.norm")


def concat(g: GraphBuilder, text: Value, image: Value, pose: Value | None) -> Value:
    """All three side by side; a camera pose that is left out is seven zeros."""
    width = int(g.weight(f"{SCOPE}.projection.0.weight").shape[1])
    sources = [text, image, *([pose] if pose is not None else [])]
    x = g.concat(
        sources, 1, width if pose is not None else width - 7, f"{SCOPE}/sources"
    )
    if pose is None:
        x = g.op(
            "Pad",
            [x, g.constant([0, 0, 0, 7])],
            ("batch", width),
            f"{SCOPE}/no_camera",
            doc="no pose is zeros",
        )
    hidden = g.gelu(g.linear(x, f"{SCOPE}.projection.0"), f"{SCOPE}.projection.1")
    return g.layer_norm(
        g.linear(hidden, f"{SCOPE}.projection.3"), f"{SCOPE}.projection.4"
    )


def film(g: GraphBuilder, text: Value, image: Value, pose: Value | None) -> Value:
    """The text scaled and shifted by the image, then by the camera."""
    x = g.linear(text, f"{SCOPE}.text_proj")
    x = g.mul(g.linear(image, f"{SCOPE}.image_gamma"), x, f"{SCOPE}/scaled_by_image")
    x = g.add(x, g.linear(image, f"{SCOPE}.image_beta"), f"{SCOPE}/with_image")
    if pose is not None:
        x = g.mul(camera_mlp(g, pose, "camera_gamma"), x, f"{SCOPE}/scaled_by_camera")
        x = g.add(x, camera_mlp(g, pose, "camera_beta"), f"{SCOPE}/with_camera")
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
        tokens.append(camera_mlp(g, pose, "camera_proj"))
    e, count = int(tokens[0].shape[1]), len(tokens)
    columns = [
        g.op("Unsqueeze", [x, g.constant([1])], ("batch", 1, e), f"{x.name}/token")
        for x in tokens
    ]
    source = g.concat(columns, 1, count, f"{SCOPE}/text_then_others")
    rows = g.reshape(source, [-1, e], (f"batch*{count}", e), f"{SCOPE}/rows")
    q, k, v = packed_heads(g, rows, f"{SCOPE}.cross_attn", CROSS_ATTENTION_HEADS, count)
    query = g.op(
        "Slice",
        [q, g.constant([0]), g.constant([1]), g.constant([2])],
        (*q.shape[:2], 1, q.shape[3]),
        f"{SCOPE}.cross_attn/text_query",
    )
    mixed = g.linear(
        mix(g, query, k, v, f"{SCOPE}.cross_attn", "batch"),
        f"{SCOPE}.cross_attn.out_proj",
    )
    x = g.layer_norm(
        g.add(mixed, tokens[0], f"{SCOPE}/after_attention"), f"{SCOPE}.norm1"
    )
    hidden = g.gelu(g.linear(x, f"{SCOPE}.ffn.0"), f"{SCOPE}.ffn.1")
    return g.layer_norm(
        g.add(x, g.linear(hidden, f"{SCOPE}.ffn.3"), f"{SCOPE}/after_ffn"),
        f"{SCOPE}.norm2",
    )


FUSIONS: dict[str, Callable[[GraphBuilder, Value, Value, Value | None], Value]] = {
    "gated": gated,
    "concat": concat,
    "film": film,
    "cross_attention": cross_attention,
}
