"""Which StickFigureTransformer a checkpoint holds, read off its tensors' shapes.

Everything but `dropout` (which does nothing in evaluation) and the image size of the
convolutional encoders (which take any) is in the names and shapes; `nhead` is in the
rotary buffer, which has head_dim / 2 entries. What has been read is then held against
every tensor that such a model has, so that a checkpoint of something else, or of half a
model, is refused here and not in the middle of an export. Nothing here needs torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from checkpoint_release.core.architecture import TensorShapes
from checkpoint_release.core.dtypes import HALF
from checkpoint_release.core.errors import ArchitectureError, ParamsError, first_few
from checkpoint_release.core.signature import Array
from checkpoint_release.models.stick_figure.expected_tensors import (
    INV_FREQ,
    PATCH,
    Shapes,
    expected_tensors,
)

if TYPE_CHECKING:
    from checkpoint_release.tensors.tensor import TensorLike

Kwargs = Mapping[str, Any]

DROPOUT = 0.1
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
# Where each number is: tensor, axis.
READ_FROM = {
    "input_dim": ("motion_embedding.0.weight", 1),
    "output_dim": ("pose_decoder.3.weight", 0),
    "d_model": ("motion_embedding.2.weight", 0),
    "embedding_dim": ("text_projection.0.weight", 1),
    "num_actions": ("action_embedding.weight", 0),
}
LAYER = re.compile(r"transformer_encoder\.layers\.(\d+)\.")
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
# dtype, and by how much its rounding and that of the power may change a frequency:
# relative, absolute
ROUNDINGS = (
    (np.float64, 1e-5, 0.0),
    (np.float16, 1e-3, 1e-7),
    (ml_dtypes.bfloat16, 1e-2, 0.0),
)
SHOWN = 5  # names in a message
CORRECT_FACTORY = "set {model.factory} to the model that was trained"


def read_architecture(tensors: TensorShapes, overrides: Kwargs) -> dict[str, Any]:
    """The constructor's keyword arguments for the model with these weights.

    Args:
        tensors: name → (safetensors dtype, shape), of the whole state dict.
        overrides: arguments that the user states; None: nothing. They decide what can't
            be read (`dropout`, and `image_size` for convolutional encoders), and have
            to agree with what can.

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
    _check_names(stated)
    kwargs = _read_dimensions(tensors)
    kwargs["dropout"] = _check_dropout(stated.get("dropout", DROPOUT))
    if _has_images(tensors):
        kwargs |= _read_images(tensors, stated.get("image_size"))
    elif "image_size" in stated:
        raise ParamsError(
            f"{{model.image_size}} is {list(stated['image_size'])}, and the checkpoint"
            " holds a model without images",
            "set {model.image_size} to null",
            options=["model.image_size"],
        )
    for name, value in stated.items():
        _check_agreement(name, value, kwargs)
    _check_tensors(tensors, expected_tensors(kwargs))
    return kwargs


def computed_buffers(kwargs: Kwargs) -> dict[str, Array]:
    """The frequencies of the rotary embeddings: 1 / 10000^(2i / head_dim), float64.

    Args:
        kwargs: what read_architecture returned.

    Returns:
        Name of each layer's inv_freq → its values, of the shape (head_dim / 2).
    """
    head_dim = kwargs["d_model"] // kwargs["nhead"]
    frequencies = 1.0 / 10000.0 ** (np.arange(0, head_dim, 2) / head_dim)
    names = [INV_FREQ.format(layer) for layer in range(kwargs["num_layers"])]
    return dict.fromkeys(names, frequencies)


def check_weights(kwargs: Kwargs, weights: Mapping[str, TensorLike]) -> None:
    """Check what names and shapes don't show: the frequencies in the rotary buffers.

    A checkpoint whose buffers were left out once and filled with whatever was in memory
    loads without complaint and computes nonsense.

    Args:
        kwargs: what read_architecture returned.
        weights: state-dict name → tensor; inv_freq has the shape (head_dim / 2).

    Raises:
        ArchitectureError: a layer's inv_freq isn't 1 / 10000^(2i / head_dim), within
            the rounding of the dtype that holds it or held it: half precision may have
            been widened.
    """
    head_dim = kwargs["d_model"] // kwargs["nhead"]
    for name, expected in computed_buffers(kwargs).items():
        found = weights[name].numpy().astype(np.float64)
        wrong = np.flatnonzero(~_is_rounding(found, expected))
        if wrong.size:
            i = int(wrong[0])
            raise ArchitectureError(
                f"{name}[{i}] is {found[i]:.6g}, and rotary embeddings of head_dim"
                f" {head_dim} have 1 / 10000^({2 * i}/{head_dim}) = {expected[i]:.6g}"
                f" there ({wrong.size} of {found.size} differ)",
                "release the checkpoint as training saved it: a tool that converted it"
                " has lost the buffer",
            )


def _is_rounding(found: Array, expected: Array) -> Array:
    """Which values are the expected ones, rounded to one of the dtypes of ROUNDINGS.

    Args:
        found: float64, as the checkpoint holds them, widened.
        expected: float64, unrounded, of the same shape.

    Returns:
        A bool for each value; False for NaN.
    """
    right = np.zeros(found.shape, bool)
    with np.errstate(over="ignore"):
        for dtype, relative, absolute in ROUNDINGS:
            held = found.astype(dtype).astype(np.float64) == found
            right |= held & np.isclose(found, expected, rtol=relative, atol=absolute)
    return right


# ------------------------------------------------------------------------------
# Reading


def _read_dimensions(tensors: TensorShapes) -> dict[str, Any]:
    """The dimensions that every model has.

    Args:
        tensors: name → (dtype, shape).

    Returns:
        The seven sizes of a model without images, by the constructor's names and in its
        order; `dropout` leaves no trace in a tensor.

    Raises:
        ArchitectureError: a tensor that shows one isn't there, or has too few axes, or
            the sizes contradict each other.
    """
    _check_sources(tensors)
    read = {}
    for name, (tensor, axis) in READ_FROM.items():
        read[name] = tensors[tensor][1][axis]
    half_head_dim = tensors[INV_FREQ.format(0)][1][0]
    read["nhead"] = _read_nhead(read["d_model"], half_head_dim)
    read["num_layers"] = _count_layers(tensors)
    return {name: read[name] for name in KWARGS if name in read}


def _check_sources(tensors: TensorShapes) -> None:
    """Check that the tensors from which dimensions are read are there.

    Args:
        tensors: name → (dtype, shape).

    Raises:
        ArchitectureError: one is missing, or lacks the axis that is read.
    """
    missing, flat = [], []
    for name, axis in (*READ_FROM.values(), (INV_FREQ.format(0), 0)):
        if name not in tensors:
            missing.append(name)
        elif len(tensors[name][1]) <= axis:
            flat.append(f"{name} {list(tensors[name][1])}")
    if missing or flat:
        raise ArchitectureError(
            f"these {len(tensors)} tensors aren't those of a StickFigureTransformer:"
            f" its dimensions are in tensors that are missing ({missing}) or have too"
            f" few axes ({flat}); the first names found are {sorted(tensors)[:SHOWN]}",
            f"{CORRECT_FACTORY}, or {{checkpoint.state_dict}} to the key of its"
            " weights",
            options=["model.factory", "checkpoint.state_dict"],
        )


def _count_layers(tensors: Iterable[str]) -> int:
    """The number of encoder blocks.

    Counted, not the highest number plus one: a name may claim any number, and the list
    of expected tensors has to stay finite.
    """
    layers = set()
    for name in tensors:
        if match := LAYER.match(name):
            layers.add(match[1])
    return len(layers)


def _read_nhead(d_model: int, half_head_dim: int) -> int:
    """The number of attention heads, each of which takes head_dim of d_model's entries.

    Args:
        d_model: the width of the transformer; the model's MLPs halve and quarter it.
        half_head_dim: the entries of a rotary buffer, one for each pair of a head's.

    Raises:
        ArchitectureError: d_model can't be divided into such heads, or by 4.
    """
    head_dim = 2 * half_head_dim
    if head_dim < 2 or d_model % head_dim or d_model % 4:
        raise ArchitectureError(
            f"d_model is {d_model} ({READ_FROM['d_model'][0]}) and head_dim"
            f" {head_dim} ({INV_FREQ.format(0)}), and the one must be a multiple of"
            " the other and of 4",
            CORRECT_FACTORY,
            options=["model.factory"],
        )
    return int(d_model // head_dim)


def _has_images(tensors: Iterable[str]) -> bool:
    """Whether the model was built with image conditioning.

    One tensor of either module is enough: half of the two is refused with a message
    about what is missing, and not taken for a model without images.
    """
    parts = ("image_encoder.", "fusion_module.")
    return any(name.startswith(parts) for name in tensors)


def _read_images(tensors: TensorShapes, stated_size: Any) -> dict[str, Any]:
    """What a model with images has beside its dimensions.

    Args:
        tensors: name → (dtype, shape).
        stated_size: the user's `image_size`, not checked yet; None: not stated.

    Returns:
        The constructor's four arguments about images. `image_size` is [height, width]
        in pixels; None where the encoder takes any size and none was stated.

    Raises:
        ArchitectureError: the encoder or the fusion is unknown, or a mini_vit's
            positions are for another size than the stated one.
        ParamsError: the stated size isn't a height and a width.
    """
    size = None if stated_size is None else _check_image_size(stated_size)
    arch = _kind(tensors, "image encoder", ENCODERS)
    if arch == "mini_vit":
        side = _read_side(tensors)
        if size not in (None, [side, side]):
            raise ArchitectureError(
                f"{{model.image_size}} is {size}, and {POS_EMBED} is for"
                f" {[side, side]}",
                "set {model.image_size} to null",
                options=["model.image_size"],
            )
        size = [side, side]
    return {
        "enable_image_conditioning": True,
        "image_encoder_arch": arch,
        "fusion_strategy": _kind(tensors, "fusion", FUSIONS),
        "image_size": size,
    }


def _read_side(tensors: TensorShapes) -> int:
    """The height and width of a mini_vit's images, in pixels.

    Its positional embedding has the shape (1, positions, width): a position for each
    patch of PATCH × PATCH pixels, and one for the class token. The images that the
    model is built for are square.

    Raises:
        ArchitectureError: the embedding is missing, or its positions don't make a
            square.
    """
    shape = tensors[POS_EMBED][1] if POS_EMBED in tensors else ()
    positions = shape[1] if len(shape) == 3 else 0
    patches = math.isqrt(max(positions - 1, 0))  # along one side
    if patches < 1 or patches**2 + 1 != positions:
        raise ArchitectureError(
            f"{POS_EMBED} is {list(shape) or 'missing'}, and a square image of n × n"
            " patches has n² + 1 positions",
            CORRECT_FACTORY,
            options=["model.factory"],
        )
    return PATCH * patches


def _kind(tensors: TensorShapes, what: str, kinds: Mapping[str, str]) -> str:
    """The one kind whose own tensor is there.

    Args:
        tensors: name → (dtype, shape).
        what: what there are kinds of, for the message.
        kinds: kind → a tensor that no other kind has.

    Raises:
        ArchitectureError: the checkpoint has the tensor of none, or of several.
    """
    found = [kind for kind, name in kinds.items() if name in tensors]
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"the {what} could be any of {found}: one name of each is there"
    else:
        names = sorted(kinds.values())
        prefix = names[0].partition(".")[0]
        similar = [name for name in sorted(tensors) if name.startswith(prefix)]
        problem = (
            f"no known {what}: none of {names} is there, and the first names of"
            f" {prefix} are {similar[:SHOWN]}"
        )
    raise ArchitectureError(
        problem,
        f"known are {', '.join(kinds)}; {CORRECT_FACTORY}",
        options=["model.factory"],
    )


# ------------------------------------------------------------------------------
# Checking what the user states


def _check_names(stated: Kwargs) -> None:
    """Refuse arguments that the constructor doesn't take.

    Raises:
        ParamsError: there are some.
    """
    unknown = [name for name in stated if name not in KWARGS]
    if unknown:
        raise ParamsError(
            f"{{model.kwargs}} names {unknown}, which StickFigureTransformer doesn't"
            " take",
            f"choose among {list(KWARGS)}",
            options=["model.kwargs"],
        )


def _check_image_size(value: Any) -> list[int]:
    """The stated height and width, in pixels.

    Raises:
        ParamsError: the value isn't a sequence of two whole numbers above 0 (True isn't
            a number of pixels).
    """
    sides = list(value) if isinstance(value, Sequence) else []
    types = [type(side) for side in sides]
    if types != [int, int] or min(sides) < 1:
        raise ParamsError(
            f"{{model.image_size}} is {value!r}",
            "give [height, width] in pixels, or null",
            options=["model.image_size"],
        )
    return sides


def _check_dropout(value: Any) -> float:
    """The stated probability of dropout in training.

    Raises:
        ParamsError: the value isn't a number in [0, 1).
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ParamsError(
            f"{{model.kwargs.dropout}} is {value!r}",
            "give a probability, at least 0 and below 1",
            options=["model.kwargs.dropout"],
        )
    return float(value)


def _check_agreement(name: str, value: Any, read: Kwargs) -> None:
    """Refuse a stated argument that the tensors contradict.

    Args:
        name: of the argument.
        value: what the user states; True doesn't agree with 1.
        read: the arguments that were read off the tensors. A model without images has
            none about them, and agrees with `enable_image_conditioning: false`.

    Raises:
        ArchitectureError: the tensors say something else.
    """
    if name in ("dropout", "image_size"):
        return
    default = False if name == "enable_image_conditioning" else None
    found = read.get(name, default)
    if type(value) is type(found) and value == found:
        return
    source = f" ({READ_FROM[name][0]})" if name in READ_FROM else ""
    option = f"model.kwargs.{name}"
    raise ArchitectureError(
        f"{{{option}}} is {value!r}, and the checkpoint's tensors say {found!r}"
        f"{source}",
        f"remove {{{option}}}, or name the checkpoint that you mean in"
        " {checkpoint.path}",
        options=[option, "checkpoint.path"],
    )


# ------------------------------------------------------------------------------
# Checking all tensors


def _check_tensors(tensors: TensorShapes, expected: Shapes) -> None:
    """Refuse tensors that aren't exactly the expected ones.

    Args:
        tensors: name → (dtype, shape), of the checkpoint.
        expected: name → shape, of the model.

    Raises:
        ArchitectureError: they differ; the message counts each kind of difference.
    """
    problems = []
    for kind, names in _differences(tensors, expected).items():
        if names:
            problems.append(f"{len(names)} {kind}: {first_few(names, SHOWN)}")
    if problems:
        raise ArchitectureError(
            "the checkpoint's tensors don't make a whole StickFigureTransformer:"
            f" {'; '.join(problems)}",
            "name the weights of the whole model in {checkpoint.state_dict} (in"
            f" float32, float16 or bfloat16), or {CORRECT_FACTORY}",
            options=["checkpoint.state_dict", "model.factory"],
        )


def _differences(tensors: TensorShapes, expected: Shapes) -> dict[str, list[str]]:
    """How the checkpoint's tensors differ from the model's.

    Floats may be in half precision, which is widened. The counters of BatchNorm are
    int64 (torch/nn/modules/batchnorm.py).

    Args:
        tensors: name → (dtype, shape), of the checkpoint.
        expected: name → shape, of the model.

    Returns:
        Kind of difference, for the message → tensors that have it; may be empty.
    """
    missing, reshaped, recast = [], [], []
    for name, shape in expected.items():
        if name not in tensors:
            missing.append(name)
            continue
        dtype, found = tensors[name]
        if found != shape:
            reshaped.append(f"{name} {list(found)} for {list(shape)}")
        is_counter = name.endswith("num_batches_tracked")
        allowed = ("I64",) if is_counter else ("F32", *HALF)
        if dtype not in allowed:
            recast.append(f"{name} {dtype}")
    return {
        "missing": missing,
        "left over": [name for name in tensors if name not in expected],
        "of another shape than the rest implies": reshaped,
        "of a dtype that isn't computed with": recast,
    }
