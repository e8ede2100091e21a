"""Weights that bitsandbytes quantised, in 8 and in 4 bits, as floats.

Each number becomes the one that the library computes with, rounded once to the dtype
that the library gives.
https://github.com/bitsandbytes-foundation/bitsandbytes, functional.py: QuantState,
int8_vectorwise_dequant, dequantize_4bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from checkpoint_release.core.dtypes import BY_TORCH_NAME
from checkpoint_release.core.json_text import JsonError, parse_json
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.quantised_parts import (
    BITSANDBYTES_4,
    BITSANDBYTES_8,
    STEP,
    Array,
    Floats,
    require,
    stored,
)
from checkpoint_release.tensors.blocks import Blocks
from checkpoint_release.tensors.tensor import Tensor

_MAX_STATE = 1 << 16  # bytes of a quantisation's description
_BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)  # each divides STEP
_DTYPES = ("float16", "bfloat16", "float32")
_INT8_SCALE = 7.874015718698502e-3  # 1/127, as the library writes it
_STATE = ".quant_state.bitsandbytes__"
_TYPES = ("nf4", "fp4")
_ABSMAX, _MAP = ".absmax", ".quant_map"
_NESTED_ABSMAX, _NESTED_MAP = ".nested_absmax", ".nested_quant_map"
_SCB, _FORMAT = ".SCB", ".weight_format"
_WEIGHT = ".weight"

T = TypeVar("T")


def bitsandbytes_floats(weights: StateDict) -> Iterator[Floats]:
    """The weights that bitsandbytes quantised.

    Args:
        weights: name → tensor, as they lie in the file.

    Raises:
        CheckpointError: something of a quantised weight is missing, or contradicts
            itself.
    """
    for name in weights:
        base, marker, kind = name.rpartition(_STATE)
        if marker and kind in _TYPES:
            four = _four_bits(weights, base, name)
            yield Floats(base, four, _parts_of(base, name), BITSANDBYTES_4)
        elif name.endswith(_SCB):
            module = name.removesuffix(_SCB)
            eight = _eight_bits(weights, module)
            parts = (name, module + _FORMAT)
            yield Floats(module + _WEIGHT, eight, parts, BITSANDBYTES_8)


def _parts_of(base: str, state: str) -> tuple[str, ...]:
    """The names of all that describes a weight of 4 bits."""
    ends = (_ABSMAX, _MAP, _NESTED_ABSMAX, _NESTED_MAP)
    return (state, *(base + end for end in ends))


def _eight_bits(weights: StateDict, module: str) -> Blocks:
    """A weight of int8 with one scale a row: w · scale / 127, in float32.

    Args:
        weights: all of them.
        module: whose weight it is.

    Raises:
        CheckpointError: it isn't laid out so.
    """
    name = module + _WEIGHT
    weight, scales = stored(weights, name), stored(weights, module + _SCB)
    require(weight.dtype == "I8" and len(weight.shape) == 2, name, "isn't int8 rows")
    rows, columns = weight.shape
    fits = scales.dtype == "F32" and scales.size == rows and columns > 0
    require(fits, module + _SCB, f"isn't one float32 for each of {rows} rows")
    if (format := weights.get(module + _FORMAT)) is not None:
        require(not format.numpy().any(), name, "is laid out in tiles for a GPU")
    values, scale = weight.numpy().reshape(-1), scales.numpy().reshape(-1)

    def compute(start: int, stop: int) -> Array:
        of_row = scale[np.arange(start, stop) // columns]
        product = values[start:stop].astype(np.float32) * of_row
        floats: Array = product * np.float32(_INT8_SCALE)
        return floats

    return Blocks("F32", weight.shape, STEP, compute, (weight, scales))


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
    state = _read_state(stored(weights, state_name), base)
    packed = stored(weights, base)
    size = math.prod(state.shape)
    halves = -(-size // 2)
    require(
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

    return Blocks(dtype.name, state.shape, STEP, compute, (packed,))


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
    absmax = stored(weights, base + _ABSMAX)
    require(absmax.size == blocks, base + _ABSMAX, f"isn't one for each of {blocks}")
    if state.nested_block is None:
        require(absmax.dtype == "F32", base + _ABSMAX, "isn't float32")
        return absmax.numpy().reshape(-1)
    require(absmax.dtype == "U8", base + _ABSMAX, "isn't uint8")
    code = _table(weights, base + _NESTED_MAP, 256)
    outer = -(-blocks // state.nested_block)
    scales = _table(weights, base + _NESTED_ABSMAX, outer)
    of_block = scales[np.arange(blocks) // state.nested_block]
    magnitudes: Array = code[absmax.numpy().reshape(-1)] * of_block
    return magnitudes + np.float32(state.nested_offset)


def _read_state(tensor: Tensor, base: str) -> _State:
    """Read the description of a weight.

    Raises:
        CheckpointError: it isn't one.
    """
    require(tensor.dtype == "U8" and tensor.size <= _MAX_STATE, base, _UNREADABLE)
    try:
        stated = parse_json(tensor.numpy().tobytes())
    except JsonError:
        stated = None
    require(isinstance(stated, Mapping), base, _UNREADABLE)
    block = _one_of(stated.get("blocksize"), _BLOCKS, base)
    nested = stated.get("nested_blocksize")
    shape: Any = stated.get("shape")
    sizes: list[Any] = shape if isinstance(shape, list) else [None]
    require(all(type(n) is int and 0 < n < 2**31 for n in sizes), base, _UNREADABLE)
    offset = stated.get("nested_offset", 0.0)
    require(isinstance(offset, int | float), base, _UNREADABLE)
    return _State(
        block=block,
        dtype=_one_of(stated.get("dtype"), _DTYPES, base),
        shape=tuple(sizes),
        nested_block=None if nested is None else _one_of(nested, _BLOCKS, base),
        nested_offset=float(offset),
    )


_UNREADABLE = "has a description of its quantisation that can't be read"


def _one_of(value: Any, allowed: tuple[T, ...], base: str) -> T:
    require(value in allowed, base, f"is quantised with {value!r}, which is unknown")
    found: T = value
    return found


def _table(weights: StateDict, name: str, size: int) -> Array:
    """A small float32 table.

    Raises:
        CheckpointError: it is missing, or something else.
    """
    tensor = stored(weights, name)
    fits = tensor.dtype == "F32" and tensor.size == size
    require(fits, name, f"isn't {size} numbers in float32")
    return tensor.numpy().reshape(-1)
