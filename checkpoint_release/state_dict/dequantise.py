"""Quantised weights as the floats that they stand for.

Only layouts that say all that it takes: those of bitsandbytes, in 8 and in 4 bits. Each
number becomes the one that the library computes with, rounded once to the dtype that
the library gives.
https://github.com/bitsandbytes-foundation/bitsandbytes, functional.py: QuantState,
int8_vectorwise_dequant, dequantize_4bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from checkpoint_release.core.dtypes import BY_TORCH_NAME
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.core.text import printable
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.tensors.blocks import Blocks
from checkpoint_release.tensors.tensor import Tensor, TensorLike

_STEP = 1 << 16  # elements that are computed at a time; a multiple of every block
_MAX_STATE = 1 << 16  # bytes of a quantisation's description
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
_DTYPES = ("float16", "bfloat16", "float32")
_INT8_SCALE = 7.874015718698502e-3  # 1/127, as the library writes it
_STATE = ".quant_state.bitsandbytes__"
_TYPES = ("nf4", "fp4")
_ABSMAX, _MAP = ".absmax", ".quant_map"
_NESTED_ABSMAX, _NESTED_MAP = ".nested_absmax", ".nested_quant_map"
_SCB, _FORMAT = ".SCB", ".weight_format"
_WEIGHT = ".weight"

Array = np.ndarray[Any, Any]
T = TypeVar("T")


def dequantised(weights: StateDict) -> tuple[StateDict, str]:
    """The weights with floats in the place of those that are quantised.

    Args:
        weights: name → tensor, as they lie in the file.

    Returns:
        The weights, computed when they are written, and the layout that was found,
        such as "bitsandbytes in 4 bits"; "" where nothing is quantised.

    Raises:
        CheckpointError: something of a quantised weight is missing, or contradicts
            itself.
    """
    result: StateDict = dict(weights)
    layout = ""
    for name in weights:
        base, marker, kind = name.rpartition(_STATE)
        if marker and kind in _TYPES:
            _replace(
                result, base, _four_bits(weights, base, name), _parts_of(base, name)
            )
            layout = "bitsandbytes in 4 bits"
        elif name.endswith(_SCB):
            module = name.removesuffix(_SCB)
            parts = (name, module + _FORMAT)
            weight = module + _WEIGHT
            _replace(result, weight, _eight_bits(weights, module), parts)
            layout = layout or "bitsandbytes in 8 bits"
    return result, layout


def _parts_of(base: str, state: str) -> tuple[str, ...]:
    """The names of all that describes a weight of 4 bits."""
    ends = (_ABSMAX, _MAP, _NESTED_ABSMAX, _NESTED_MAP)
    return (state, *(base + end for end in ends))


def _replace(
    weights: StateDict, name: str, tensor: TensorLike, parts: tuple[str, ...]
) -> None:
    """Put the floats in a weight's place, and take out what described it."""
    weights[name] = tensor
    for part in parts:
        weights.pop(part, None)


def _eight_bits(weights: StateDict, module: str) -> Blocks:
    """A weight of int8 with one scale a row: w · scale / 127, in float32.

    Args:
        weights: all of them.
        module: whose weight it is.

    Raises:
        CheckpointError: it isn't laid out so.
    """
    name = module + _WEIGHT
    weight, scales = _stored(weights, name), _stored(weights, module + _SCB)
    _require(weight.dtype == "I8" and len(weight.shape) == 2, name, "isn't int8 rows")
    rows, columns = weight.shape
    fits = scales.dtype == "F32" and scales.size == rows and columns > 0
    _require(fits, module + _SCB, f"isn't one float32 for each of {rows} rows")
    if (format := weights.get(module + _FORMAT)) is not None:
        _require(not format.numpy().any(), name, "is laid out in tiles for a GPU")
    values, scale = weight.numpy().reshape(-1), scales.numpy().reshape(-1)

    def compute(start: int, stop: int) -> Array:
        of_row = scale[np.arange(start, stop) // columns]
        product = values[start:stop].astype(np.float32) * of_row
        floats: Array = product * np.float32(_INT8_SCALE)
        return floats

    return Blocks("F32", weight.shape, _STEP, compute, (weight, scales))


@dataclass(frozen=True)
class _State:
    """What the description of a weight of 4 bits says."""

    block: int
    dtype: str
    shape: tuple[int, ...]
    nested_block: int | None
    nested_offset: float


def _four_bits(weights: StateDict, base: str, state_name: str) -> Blocks:
    """A weight of 4 bits: its code's number times the largest magnitude of its block.

    The magnitudes may themselves be quantised in 8 bits, less their mean.

    Args:
        weights: all of them.
        base: name of the weight.
        state_name: name of the tensor that holds the description, as JSON.

    Raises:
        CheckpointError: something is missing, or contradicts itself.
    """
    state = _read_state(_stored(weights, state_name), base)
    packed = _stored(weights, base)
    size = math.prod(state.shape)
    halves = -(-size // 2)
    _require(
        packed.dtype == "U8" and packed.size == halves,
        base,
        f"isn't {halves} bytes for the {list(state.shape)} that it stands for",
    )
    code = _table(weights, base + _MAP, 16)
    largest = _magnitudes(weights, base, state, -(-size // state.block))
    bytes_of = packed.numpy().reshape(-1)
    dtype = BY_TORCH_NAME[state.dtype]

    def compute(start: int, stop: int) -> Array:
        pairs = bytes_of[start // 2 : -(-stop // 2)]
        indices = np.empty(2 * pairs.size, np.uint8)
        indices[0::2], indices[1::2] = pairs >> 4, pairs & 15
        of_block = largest[np.arange(start, stop) // state.block]
        floats = code[indices[: stop - start]] * of_block
        rounded: Array = floats.astype(dtype.numpy)
        return rounded

    return Blocks(dtype.name, state.shape, _STEP, compute, (packed,))


def _magnitudes(weights: StateDict, base: str, state: _State, blocks: int) -> Array:
    """The largest magnitude of each block, in float32.

    Args:
        weights: all of them.
        base: name of the weight.
        state: its description.
        blocks: how many it has.

    Raises:
        CheckpointError: they aren't all there.
    """
    stored = _stored(weights, base + _ABSMAX)
    _require(stored.size == blocks, base + _ABSMAX, f"isn't one for each of {blocks}")
    if state.nested_block is None:
        _require(stored.dtype == "F32", base + _ABSMAX, "isn't float32")
        return stored.numpy().reshape(-1)
    _require(stored.dtype == "U8", base + _ABSMAX, "isn't uint8")
    code = _table(weights, base + _NESTED_MAP, 256)
    outer = -(-blocks // state.nested_block)
    scales = _table(weights, base + _NESTED_ABSMAX, outer)
    of_block = scales[np.arange(blocks) // state.nested_block]
    magnitudes: Array = code[stored.numpy().reshape(-1)] * of_block
    return magnitudes + np.float32(state.nested_offset)


def _read_state(tensor: Tensor, base: str) -> _State:
    """Read the description of a weight.

    Raises:
        CheckpointError: it isn't one.
    """
    _require(tensor.dtype == "U8" and tensor.size <= _MAX_STATE, base, _UNREADABLE)
    try:
        stated = parse_json(tensor.numpy().tobytes())
    except JsonError:
        stated = None
    _require(isinstance(stated, Mapping), base, _UNREADABLE)
    block = _one_of(stated.get("blocksize"), _BLOCKS, base)
    nested = stated.get("nested_blocksize")
    shape: Any = stated.get("shape")
    sizes: list[Any] = shape if isinstance(shape, list) else [None]
    _require(all(type(n) is int and 0 < n < 2**31 for n in sizes), base, _UNREADABLE)
    offset = stated.get("nested_offset", 0.0)
    _require(isinstance(offset, int | float), base, _UNREADABLE)
    return _State(
        block=block,
        dtype=_one_of(stated.get("dtype"), _DTYPES, base),
        shape=tuple(sizes),
        nested_block=None if nested is None else _one_of(nested, _BLOCKS, base),
        nested_offset=float(offset),
    )


_UNREADABLE = "has a description of its quantisation that can't be read"


def _one_of(value: Any, allowed: tuple[T, ...], base: str) -> T:
    _require(value in allowed, base, f"is quantised with {value!r}, which is unknown")
    found: T = value
    return found


def _table(weights: StateDict, name: str, size: int) -> Array:
    """A small float32 table.

    Raises:
        CheckpointError: it is missing, or something else.
    """
    tensor = _stored(weights, name)
    fits = tensor.dtype == "F32" and tensor.size == size
    _require(fits, name, f"isn't {size} numbers in float32")
    return tensor.numpy().reshape(-1)


def _stored(weights: StateDict, name: str) -> Tensor:
    """A tensor that lies in a file as it is.

    Raises:
        CheckpointError: there is none of that name.
    """
    tensor = weights.get(name)
    if not isinstance(tensor, Tensor):
        raise CheckpointError(
            f"the quantised weights are incomplete: {printable(name)} is missing",
            "save the model again; or release the weights from before they were"
            " quantised",
        )
    return tensor


def _require(fits: bool, name: str, how: str) -> None:
    """Require something of a quantised weight.

    Raises:
        CheckpointError: it doesn't hold.
    """
    if not fits:
        raise CheckpointError(
            f"the quantised weight {printable(name)} {how}",
            "release the weights from before they were quantised; or turn them into"
            " floats where they were, and save that",
        )
