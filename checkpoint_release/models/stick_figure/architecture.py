"""Which StickFigureTransformer a checkpoint holds, read off its tensors' names and
shapes.

Everything but `dropout` (which does nothing in evaluation) and the image size of the
convolutional encoders (which take any) is in the names and shapes; `nhead` is in the
rotary buffer, which has head_dim / 2 entries. What has been read is then held against a
table of every tensor that such a model has, so that a checkpoint of something else, or
of half a model, is refused here and not in the middle of an export. Nothing here needs
torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from checkpoint_release.core.architecture import TensorShapes
from checkpoint_release.core.errors import ArchitectureError, ParamsError

if TYPE_CHECKING:
    from checkpoint_release.tensors.tensor import TensorLike

ACTION_WIDTH = 64  # of action_embedding
CAMERA_POSE = 7  # position xyz, target xyz, field of view
PATCH, VIT_WIDTH, VIT_LAYERS = 16, 384, 4
CNN_CHANNELS = (3, 32, 64, 128, 256, 512)
DROPOUT = 0.1

Shapes = dict[str, tuple[int, ...]]
Kwargs = Mapping[str, Any]

# One name of each kind that no other kind has.
ENCODERS = {
    "lightweight_cnn": "image_encoder.encoder.0.conv.weight",
    "resnet": "image_encoder.stem.0.weight",
    "mini_vit": "image_encoder.patch_embed.projection.weight",
}
FUSIONS = {
    "gated": "fusion_module.text_gate.0.weight",
    "concat": "fusion_module.projection.0.weight",
    "film": "fusion_module.image_gamma.weight",
    "cross_attention": "fusion_module.cross_attn.in_proj_weight",
}
# Where each number stands: tensor, axis.
READ_FROM = {
    "input_dim": ("motion_embedding.0.weight", 1),
    "output_dim": ("pose_decoder.3.weight", 0),
    "d_model": ("motion_embedding.2.weight", 0),
    "embedding_dim": ("text_projection.0.weight", 1),
    "num_actions": ("action_embedding.weight", 0),
}
INV_FREQ = "transformer_encoder.layers.{}.self_attn.rope.inv_freq"
POS_EMBED = "image_encoder.pos_embed"
KWARGS = (
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
FLOATS = ("F32", "F16", "BF16")
# dtype, and by how much its rounding and that of the power may change a frequency:
# relative, absolute
ROUNDINGS = (
    (np.float64, 1e-5, 0.0),
    (np.float16, 1e-3, 1e-7),
    (ml_dtypes.bfloat16, 1e-2, 0.0),
)
SHOWN = 5


def read_architecture(tensors: TensorShapes, overrides: Kwargs) -> dict[str, Any]:
    """The constructor's keyword arguments for the model that these tensors are the
    weights of.

    Args:
        tensors: name → (safetensors dtype, shape), of the whole state dict.
        overrides: what params.yaml states (null: nothing). It decides what can't be
            read (`dropout`, and `image_size` for convolutional encoders), and has to
            agree with what can.

    Returns:
        The eight dimensions; for a model with images also `enable_image_conditioning`,
        `image_encoder_arch`, `fusion_strategy` and `image_size`, which is None where
        the encoder takes any size and none was stated.

    Raises:
        ArchitectureError: tensors are missing, left over, of another shape or dtype, or
            contradict the overrides.
        ParamsError: an override isn't one of the constructor's arguments, or
            impossible.
    """
    stated = {name: value for name, value in overrides.items() if value is not None}
    if unknown := [name for name in stated if name not in KWARGS]:
        raise ParamsError(
            f"model.kwargs names {unknown}, which StickFigureTransformer doesn't take",
            f"choose among {list(KWARGS)}",
        )
    kwargs = _dimensions(tensors)
    kwargs["dropout"] = _dropout(stated.get("dropout", DROPOUT))
    if any(name.startswith(("image_encoder.", "fusion_module.")) for name in tensors):
        kwargs |= _images(tensors, stated.get("image_size"))
    elif stated.get("image_size") is not None:
        raise ParamsError(
            f"model.image_size is {list(stated['image_size'])}, and the checkpoint"
            " holds a model without images",
            "set model.image_size to null",
        )
    _agree(kwargs, stated)
    _hold_against_table(tensors, expected_tensors(kwargs))
    return kwargs


def check_weights(kwargs: Kwargs, weights: Mapping[str, TensorLike]) -> None:
    """Check the one thing that names and shapes don't show: that the rotary buffers
    hold the frequencies.

    A checkpoint whose buffers were left out once and filled with whatever was in memory
    loads without complaint and computes nonsense.

    Raises:
        ArchitectureError: a layer's inv_freq isn't 1 / 10000^(2i / head_dim), within
            the rounding of the dtype that holds it or held it: half precision may have
            been widened.
    """
    head_dim = kwargs["d_model"] // kwargs["nhead"]
    expected = 1.0 / 10000.0 ** (np.arange(0, head_dim, 2) / head_dim)
    for layer in range(kwargs["num_layers"]):
        name = INV_FREQ.format(layer)
        found = weights[name].numpy().astype(np.float64)
        right = np.zeros(found.shape, bool)
        with np.errstate(over="ignore"):
            for dtype, relative, absolute in ROUNDINGS:
                held = found.astype(dtype).astype(np.float64) == found
                right |= held & np.isclose(
                    found, expected, rtol=relative, atol=absolute
                )
        wrong = ~right  # NaN among them
        if wrong.any():
            i = int(np.flatnonzero(wrong)[0])
            raise ArchitectureError(
                f"{name}[{i}] is {found[i]:.6g}, and rotary embeddings of head_dim"
                f" {head_dim} have 1 / 10000^({2 * i}/{head_dim}) = {expected[i]:.6g}"
                f" there ({int(wrong.sum())} of {found.size} differ)",
                "release the checkpoint as training saved it: a tool that converted it"
                " has lost the buffer",
            )


def expected_tensors(kwargs: Kwargs) -> Shapes:
    """Name → shape of every tensor in the model's state dict, in its order."""
    d, embedding = kwargs["d_model"], kwargs["embedding_dim"]
    shapes: Shapes = {}
    if kwargs.get("enable_image_conditioning"):
        shapes |= _encoder(
            kwargs["image_encoder_arch"], embedding, kwargs["image_size"]
        )
        shapes |= _fusion(kwargs["fusion_strategy"], embedding)
    shapes |= _linear("text_projection.0", embedding, 2 * d)
    shapes |= _linear("text_projection.3", 2 * d, d) | _norm("text_projection.4", d)
    shapes |= _frame_mlp("motion_embedding", kwargs["input_dim"], d // 2, d)
    shapes |= {"action_embedding.weight": (kwargs["num_actions"], ACTION_WIDTH)}
    shapes |= _linear("action_projection.0", ACTION_WIDTH, d) | _norm(
        "action_projection.1", d
    )
    shapes |= _frame_mlp("camera_projection", 3, d // 4, d)
    shapes |= _frame_mlp("partner_projection", kwargs["input_dim"], d // 2, d)
    for layer in range(kwargs["num_layers"]):
        prefix = f"transformer_encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{prefix}.self_attn.{name}", d, d)
        shapes[INV_FREQ.format(layer)] = (d // kwargs["nhead"] // 2,)
        shapes[f"{prefix}.ffn.gate_proj.weight"] = (4 * d, d)
        shapes[f"{prefix}.ffn.value_proj.weight"] = (4 * d, d)
        shapes[f"{prefix}.ffn.output_proj.weight"] = (d, 4 * d)
        shapes |= {f"{prefix}.norm1.weight": (d,), f"{prefix}.norm2.weight": (d,)}
    shapes |= _decoder("pose_decoder", d, d // 2, kwargs["output_dim"])
    shapes |= _decoder("position_decoder", d, d // 4, 2)
    shapes |= _decoder("velocity_decoder", d, d // 4, 2)
    shapes |= _decoder("action_predictor", d, d // 2, kwargs["num_actions"])
    shapes |= _decoder("physics_decoder", d, d // 2, 6)
    shapes |= _decoder("environment_decoder", d, d // 2, 32)
    return shapes


# ------------------------------------------------------------------------------
# Reading


def _dimensions(tensors: TensorShapes) -> dict[str, Any]:
    """The dimensions that every model has."""
    needed = {**READ_FROM, "nhead": (INV_FREQ.format(0), 0)}
    missing = [name for name, _ in needed.values() if name not in tensors]
    flat = [
        f"{name} {list(tensors[name][1])}"
        for name, axis in needed.values()
        if name in tensors and len(tensors[name][1]) <= axis
    ]
    if missing or flat:
        found = sorted(tensors)[:SHOWN]
        raise ArchitectureError(
            f"these {len(tensors)} tensors aren't those of a StickFigureTransformer:"
            f" its dimensions stand in tensors that are missing ({missing}) or too flat"
            f" ({flat}); the first names found are {found}",
            "set model.factory to the model that was trained, or checkpoint.state_dict"
            " to the key of its weights",
        )
    kwargs = {
        name: tensors[tensor][1][axis] for name, (tensor, axis) in READ_FROM.items()
    }
    # Counted, not the highest number plus one: a name may claim any number, and the
    # table has to stay finite.
    numbered = (
        re.match(r"transformer_encoder\.layers\.(\d+)\.", name) for name in tensors
    )
    kwargs["num_layers"] = len({match[1] for match in numbered if match})
    half_head = tensors[INV_FREQ.format(0)][1][0]
    d_model = kwargs["d_model"]
    if half_head < 1 or d_model % (2 * half_head) or d_model % 4:
        raise ArchitectureError(
            f"d_model is {d_model} ({READ_FROM['d_model'][0]}) and head_dim"
            f" {2 * half_head} ({INV_FREQ.format(0)}), and the one must be a multiple"
            " of the other and of 4",
            "set model.factory to the model that was trained",
        )
    kwargs["nhead"] = d_model // (2 * half_head)
    return {name: kwargs[name] for name in KWARGS if name in kwargs}


def _images(tensors: TensorShapes, image_size: Any) -> dict[str, Any]:
    """What a model with images has beside its dimensions."""
    size = _image_size(image_size)
    arch = _kind(tensors, "image encoder", ENCODERS)
    if arch == "mini_vit":
        shape = tensors[POS_EMBED][1] if POS_EMBED in tensors else ()
        patches = math.isqrt(max(shape[1] - 1, 0)) if len(shape) == 3 else 0
        if patches < 1 or patches**2 + 1 != shape[1]:
            raise ArchitectureError(
                f"{POS_EMBED} is {list(shape) or 'missing'}, and a square image of n ×"
                " n patches has n² + 1 positions",
                "set model.factory to the model that was trained",
            )
        read = [PATCH * patches] * 2
        if size not in (None, read):
            raise ArchitectureError(
                f"model.image_size is {size}, and {POS_EMBED} is made for {read}",
                "set model.image_size to null",
            )
        size = read
    return {
        "enable_image_conditioning": True,
        "image_encoder_arch": arch,
        "fusion_strategy": _kind(tensors, "fusion", FUSIONS),
        "image_size": size,
    }


def _kind(tensors: TensorShapes, what: str, kinds: Mapping[str, str]) -> str:
    found = [kind for kind, name in kinds.items() if name in tensors]
    if len(found) != 1:
        prefix = next(iter(kinds.values())).partition(".")[0]
        names = sorted(name for name in tensors if name.startswith(prefix))
        raise ArchitectureError(
            (
                f"the {what} could be any of {found}: one name of each is there"
                if found
                else (
                    f"no known {what}: none of {sorted(kinds.values())} is there, and"
                    f" the first names of {prefix} are {names[:SHOWN]}"
                )
            ),
            f"known are {', '.join(kinds)}; set model.factory to the model that was"
            " trained",
        )
    return found[0]


def _image_size(value: Any) -> list[int] | None:
    if value is None:
        return None
    if (
        not isinstance(value, Sequence)
        or len(value) != 2
        or not all(type(side) is int and side > 0 for side in value)
    ):
        raise ParamsError(
            f"model.image_size is {value!r}", "give [height, width] in pixels, or null"
        )
    return list(value)


def _dropout(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < 1
    ):
        raise ParamsError(
            f"model.kwargs.dropout is {value!r}",
            "give a probability, at least 0 and below 1",
        )
    return float(value)


def _agree(kwargs: Kwargs, stated: Kwargs) -> None:
    """Refuse stated arguments that the tensors contradict."""
    for name, value in stated.items():
        read = kwargs.get(name, False if name == "enable_image_conditioning" else None)
        if name not in ("dropout", "image_size") and (
            type(value) is not type(read) or value != read
        ):
            where = f" ({READ_FROM[name][0]})" if name in READ_FROM else ""
            raise ArchitectureError(
                f"model.kwargs.{name} is {value!r}, and the checkpoint's tensors say"
                f" {read!r}{where}",
                f"remove model.kwargs.{name}, or name the checkpoint that you mean in"
                " checkpoint.path",
            )


def _hold_against_table(tensors: TensorShapes, expected: Shapes) -> None:
    missing = [name for name in expected if name not in tensors]
    left_over = [name for name in tensors if name not in expected]
    shared = [
        (name, *tensors[name], shape)
        for name, shape in expected.items()
        if name in tensors
    ]
    reshaped = [
        f"{name} {list(found)} for {list(shape)}"
        for name, _, found, shape in shared
        if found != shape
    ]
    recast = [
        f"{name} {dtype}"
        for name, dtype, _, _ in shared
        if dtype not in (("I64",) if name.endswith("num_batches_tracked") else FLOATS)
    ]
    problems = {
        "missing": missing,
        "left over": left_over,
        "of another shape than the rest implies": reshaped,
        "of a dtype that isn't computed with": recast,
    }
    if any(problems.values()):
        told = "; ".join(
            f"{len(names)} {what}: {_few(names)}"
            for what, names in problems.items()
            if names
        )
        raise ArchitectureError(
            "the checkpoint's tensors don't make a whole StickFigureTransformer:"
            f" {told}",
            "name the weights of the whole model in checkpoint.state_dict (in float32,"
            " float16 or bfloat16), or set model.factory to the model that was trained",
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


# ------------------------------------------------------------------------------
# The table


def _linear(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _batch_norm(name: str, width: int) -> Shapes:
    statistics: Shapes = {
        f"{name}.running_mean": (width,),
        f"{name}.running_var": (width,),
    }
    return _norm(name, width) | statistics | {f"{name}.num_batches_tracked": ()}


def _frame_mlp(name: str, width: int, hidden: int, d_model: int) -> Shapes:
    return (
        _linear(f"{name}.0", width, hidden)
        | _linear(f"{name}.2", hidden, d_model)
        | _norm(f"{name}.3", d_model)
    )


def _decoder(name: str, d_model: int, hidden: int, width: int) -> Shapes:
    return _linear(f"{name}.0", d_model, hidden) | _linear(f"{name}.3", hidden, width)


def _attention(name: str, width: int) -> Shapes:
    packed: Shapes = {
        f"{name}.in_proj_weight": (3 * width, width),
        f"{name}.in_proj_bias": (3 * width,),
    }
    return packed | _linear(f"{name}.out_proj", width, width)


def _encoder(arch: str, embedding: int, image_size: Sequence[int] | None) -> Shapes:
    prefix = "image_encoder"
    if arch == "mini_vit":
        if image_size is None:
            raise ValueError("a mini_vit's table of tensors needs image_size")
        return _vit(prefix, embedding, (image_size[0] // PATCH) ** 2 + 1)
    shapes = _cnn(prefix) if arch == "lightweight_cnn" else _resnet(prefix)
    return (
        shapes
        | _linear(f"{prefix}.projection.1", 512, embedding)
        | _norm(f"{prefix}.projection.2", embedding)
    )


def _cnn(prefix: str) -> Shapes:
    shapes: Shapes = {}
    for i, (channels_in, channels) in enumerate(pairwise(CNN_CHANNELS)):
        kernel = 3 if i else 7
        shapes[f"{prefix}.encoder.{i}.conv.weight"] = (
            channels,
            channels_in,
            kernel,
            kernel,
        )
        shapes |= _batch_norm(f"{prefix}.encoder.{i}.bn", channels)
    return shapes


def _resnet(prefix: str) -> Shapes:
    shapes: Shapes = {f"{prefix}.stem.0.weight": (64, 3, 7, 7)} | _batch_norm(
        f"{prefix}.stem.1", 64
    )
    before = 64
    for stage, channels in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            name = f"{prefix}.stage{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (channels, before, 3, 3)
            shapes |= _batch_norm(f"{name}.bn1", channels)
            shapes[f"{name}.conv2.weight"] = (channels, channels, 3, 3)
            shapes |= _batch_norm(f"{name}.bn2", channels)
            if before != channels:
                shapes[f"{name}.shortcut.0.weight"] = (channels, before, 1, 1)
                shapes |= _batch_norm(f"{name}.shortcut.1", channels)
            before = channels
    return shapes


def _vit(prefix: str, embedding: int, positions: int) -> Shapes:
    width = VIT_WIDTH
    shapes: Shapes = {
        f"{prefix}.cls_token": (1, 1, width),
        f"{prefix}.pos_embed": (1, positions, width),
    }
    shapes[f"{prefix}.patch_embed.projection.weight"] = (width, 3, PATCH, PATCH)
    shapes[f"{prefix}.patch_embed.projection.bias"] = (width,)
    for layer in range(VIT_LAYERS):
        name = f"{prefix}.transformer.layers.{layer}"
        shapes |= _attention(f"{name}.self_attn", width)
        shapes |= _linear(f"{name}.linear1", width, 4 * width) | _linear(
            f"{name}.linear2", 4 * width, width
        )
        shapes |= _norm(f"{name}.norm1", width) | _norm(f"{name}.norm2", width)
    return (
        shapes
        | _norm(f"{prefix}.norm", width)
        | _linear(f"{prefix}.projection", width, embedding)
    )


def _fusion(strategy: str, e: int) -> Shapes:
    prefix = "fusion_module"

    def camera_mlp(name: str, hidden: int) -> Shapes:
        return _linear(f"{prefix}.{name}.0", CAMERA_POSE, hidden) | _linear(
            f"{prefix}.{name}.2", hidden, e
        )

    def gated() -> Shapes:
        shapes = _linear(f"{prefix}.text_proj", e, e) | _linear(
            f"{prefix}.image_proj", e, e
        )
        shapes |= camera_mlp("camera_proj", e // 4)
        shapes |= _linear(f"{prefix}.text_gate.0", e, 1) | _linear(
            f"{prefix}.image_gate.0", e, 1
        )
        return (
            shapes
            | _linear(f"{prefix}.camera_gate.0", CAMERA_POSE, 1)
            | _norm(f"{prefix}.norm", e)
        )

    def concat() -> Shapes:
        shapes: Shapes = {f"{prefix}.text_weight": (1,), f"{prefix}.image_weight": (1,)}
        shapes |= _linear(f"{prefix}.projection.0", 2 * e + CAMERA_POSE, 2 * e)
        return (
            shapes
            | _linear(f"{prefix}.projection.3", 2 * e, e)
            | _norm(f"{prefix}.projection.4", e)
        )

    def film() -> Shapes:
        shapes = _linear(f"{prefix}.text_proj", e, e)
        shapes |= _linear(f"{prefix}.image_gamma", e, e) | _linear(
            f"{prefix}.image_beta", e, e
        )
        shapes |= camera_mlp("camera_gamma", e // 2) | camera_mlp("camera_beta", e // 2)
        return shapes | _norm(f"{prefix}.norm", e)

    def cross_attention() -> Shapes:
        shapes = _linear(f"{prefix}.text_proj", e, e) | _linear(
            f"{prefix}.image_proj", e, e
        )
        shapes |= camera_mlp("camera_proj", e // 4) | _attention(
            f"{prefix}.cross_attn", e
        )
        shapes |= _norm(f"{prefix}.norm1", e) | _norm(f"{prefix}.norm2", e)
        return (
            shapes
            | _linear(f"{prefix}.ffn.0", e, 4 * e)
            | _linear(f"{prefix}.ffn.3", 4 * e, e)
        )

    kinds: dict[str, Callable[[], Shapes]] = {
        "gated": gated,
        "concat": concat,
        "film": film,
        "cross_attention": cross_attention,
    }
    return kinds[strategy]()
