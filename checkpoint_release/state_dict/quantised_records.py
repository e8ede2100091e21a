"""Quantised tensors that a pickle holds as objects of torch or torchao, as floats.

torch keeps integers, a scale and a zero point for a tensor or each of its channels
(torch/_utils.py, _rebuild_qtensor); a layer that quantize_dynamic made packs its weight
and bias together (torch/ao/nn/quantized/modules/linear.py, LinearPackedParams). torchao
keeps the same for blocks (torchao/quantization/quant_primitives.py,
dequantize_affine).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import BY_TORCH_NAME
from checkpoint_release.pth import Inert
from checkpoint_release.pth.tensor_builders import QUANTIZED
from checkpoint_release.state_dict.quantised_parts import (
    TORCH_AO,
    TORCHAO,
    Array,
    affine,
    require,
    unfit,
)
from checkpoint_release.tensors.blocks import Blocks
from checkpoint_release.tensors.tensor import Tensor

_MAX_DEPTH = 4  # levels of dicts that are searched
_PACKED_PAIR = "._packed_params._packed_params"
_PACKED_DTYPE = "._packed_params.dtype"
_SCALE, _ZERO_POINT = ".scale", ".zero_point"  # of a layer's outputs
_PARAMETER = "torch._utils._rebuild_parameter"
_SUBCLASS = "torch._tensor._rebuild_from_type_v2"
_AFFINE = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor")
"""torchao's classes that keep a number for each element."""
_TENSOR, _CHANNEL = "torch.per_tensor_affine", "torch.per_channel_affine"
_INTEGERS = ("I8", "U8")


def kind_of(value: Any) -> str:
    """The layout whose quantised tensor a value is; "" where it is none.

    Args:
        value: of a state dict.
    """
    if isinstance(value, tuple) and value:
        value = value[0]
    record = _bare(value)
    if not isinstance(record, Inert) or not record.args:
        return ""
    if record.name == QUANTIZED:
        return TORCH_AO
    return TORCHAO if _torchao_class(record) else ""


def with_floats(value: Any, depth: int = 0) -> tuple[Any, str]:
    """What a checkpoint holds, with floats in the place of quantised tensors.

    Args:
        value: a nest of dicts; it isn't changed.
        depth: how many dicts it lies in.

    Returns:
        The nest, and the layout that was found; "" where nothing is quantised.

    Raises:
        CheckpointError: a tensor is quantised in a way that isn't known here.
    """
    if not isinstance(value, dict) or depth > _MAX_DEPTH:
        return value, ""
    result: dict[Any, Any] = dict(value)
    layout = ""
    for name, item in value.items():
        if isinstance(item, dict):
            result[name], found = with_floats(item, depth + 1)
        else:
            found = _replace(result, name, item) if isinstance(name, str) else ""
        layout = found or layout
    return result, layout


def _replace(result: dict[Any, Any], name: str, item: Any) -> str:
    """Put floats in the place of a quantised tensor, or of a layer's packed ones.

    Args:
        result: what they are put into; numbers that describe a layer's outputs go.
        name: of the item.
        item: anything.

    Returns:
        The layout; "" where the item isn't quantised.
    """
    kind = kind_of(item)
    module = name.rpartition(".")[0]
    if name.endswith(_PACKED_PAIR) and isinstance(item, tuple):
        module = name.removesuffix(_PACKED_PAIR)
        del result[name]
        result.pop(module + _PACKED_DTYPE, None)
        weight, bias = (*item, None, None)[:2]
        result[f"{module}.weight"] = _floats(name, weight)
        if bias is not None:
            result[f"{module}.bias"] = _floats(name, bias)
        kind = TORCH_AO
    elif kind:
        result[name] = _floats(name, item)
    if kind == TORCH_AO:
        result.pop(module + _SCALE, None)
        result.pop(module + _ZERO_POINT, None)
    return kind


def _bare(value: Any) -> Any:
    """A tensor's record without the parameter around it."""
    is_parameter = isinstance(value, Inert) and value.name == _PARAMETER
    return value.args[0] if is_parameter and value.args else value


def _floats(name: str, value: Any) -> Any:
    """A tensor as floats, or as it is where it isn't quantised.

    Raises:
        CheckpointError: it is quantised in a way that isn't known here.
    """
    record = _bare(value)
    if isinstance(record, Tensor):
        return record
    compute = _of_torchao if _torchao_class(record) else _of_torch
    try:
        return compute(name, record)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        raise unfit(name, "is garbled") from None


def _of_torch(name: str, record: Inert) -> Blocks:
    """A tensor of torch's own with a scale for all of it or for each channel.

    Raises:
        CheckpointError: it is of another scheme.
        AttributeError, IndexError, TypeError, ValueError: it is garbled.
    """
    if record.name != QUANTIZED or record.args is None:
        raise TypeError
    integers, (scheme, *parameters) = record.args
    require(integers.dtype in _INTEGERS, name, f"is quantised as {integers.dtype}")
    block = list(integers.shape)
    if scheme.name == _TENSOR:
        scale, zero_point = np.array(float(parameters[0])), np.array(int(parameters[1]))
    else:
        require(scheme.name == _CHANNEL, name, f"is quantised as {scheme.name}")
        scale, zero_point = parameters[0].numpy(), parameters[1].numpy()
        block[parameters[2]] = 1
    return affine(name, integers, scale, zero_point, block, "F32")


def _torchao_class(record: Any) -> str:
    """The name of torchao's class that a record is of; "" where it is of none."""
    if not isinstance(record, Inert) or record.name != _SUBCLASS or not record.args:
        return ""
    kind = record.args[1] if len(record.args) == 4 else None
    if isinstance(kind, Inert) and kind.name.startswith("torchao."):
        return kind.name.rpartition(".")[2]
    return ""


def _of_torchao(name: str, record: Inert) -> Blocks:
    """A tensor of torchao that keeps a number for each element.

    Raises:
        CheckpointError: it is of another class, or needs its inputs scaled.
        AttributeError, IndexError, KeyError, TypeError, ValueError: it is garbled.
    """
    kind = _torchao_class(record)
    require(kind in _AFFINE, name, f"is torchao's {kind}, which is packed for a device")
    _, _, made_with, state = record.args or ()
    dtype = BY_TORCH_NAME[made_with[1].name.removeprefix("torch.")].name
    scaled = state.get("act_pre_scale") is not None
    require(not scaled, name, "is computed with inputs that are scaled before")
    zero_point = state.get("zero_point")
    return affine(
        name,
        state["qdata"],
        _numbers(state["scale"]),
        None if zero_point is None else _numbers(zero_point),
        state["block_size"],
        dtype,
    )


def _numbers(tensor: Any) -> Array:
    """A tensor's elements.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(tensor, Tensor):
        raise TypeError
    return tensor.numpy()
