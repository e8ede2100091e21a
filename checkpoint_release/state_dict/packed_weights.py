"""Weights of GPTQ and AWQ, several integers packed into one of 32 bits, as floats.

A layer's weight is (integer - zero point) · scale, of the scale's dtype. Both keep it
with the inputs along the first dimension, and so transposed.

GPTQ packs along the inputs: integer i of a column is bits [i · b, (i + 1) · b) of the
column's words in a row, the lowest first, for 2, 3, 4 and 8 bits alike; zero points
along the outputs. `g_idx` says of each input which group it belongs to. In its first
version ("gptq") a zero point is stored less one, in its second ("gptq_v2") as it is.
https://github.com/ModelCloud/GPTQModel, nn_modules/qlinear/__init__.py.

AWQ ("gemm") packs eight integers of 4 bits along the outputs, in the order below.
https://github.com/casper-hansen/AutoAWQ, awq/utils/packing_utils.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.text import printable
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.quantised_parts import (
    AWQ,
    GPTQ,
    Array,
    Floats,
    require,
    rows_at_a_time,
    stored,
)
from checkpoint_release.tensors.blocks import Blocks
from checkpoint_release.tensors.tensor import Tensor

_WEIGHT, _ZEROS, _SCALES, _GROUPS = ".qweight", ".qzeros", ".scales", ".g_idx"
_WORD = 32  # bits
_GPTQ_BITS = (2, 3, 4, 8)
_AWQ_BITS = 4
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which of a word's integers each of its eight columns is, from the lowest bits."""
_FLOATS = ("F16", "BF16", "F32")
_FORMAT = "checkpoint_format"


@dataclass(frozen=True)
class _Layer:
    """A layer's tensors.

    Attributes:
        name: of the layer.
        words: the packed weight.
        zeros: the packed zero points.
        scales: one for each group and output.
        groups: of each input; None: they follow one another.
    """

    name: str
    words: Tensor
    zeros: Tensor
    scales: Tensor
    groups: Tensor | None

    @property
    def floats(self) -> str:
        """The name of its weight."""
        return f"{self.name}.weight"


def packed_floats(weights: StateDict, config: Mapping[str, Any]) -> Iterator[Floats]:
    """The weights of layers that GPTQ or AWQ quantised.

    Args:
        weights: name → tensor, as they lie in the file.
        config: as of `dequantised`; it says GPTQ's version.

    Raises:
        CheckpointError: something of a layer is missing, or contradicts itself; or
            GPTQ's version can't be known.
    """
    for name in weights:
        if not name.endswith(_WEIGHT):
            continue
        layer = _layer(weights, name.removesuffix(_WEIGHT))
        parts = tuple(layer.name + end for end in (_WEIGHT, _ZEROS, _SCALES, _GROUPS))
        if layer.words.shape[1] == layer.scales.shape[1]:
            yield Floats(layer.floats, _gptq(layer, config), parts, GPTQ)
        else:
            yield Floats(layer.floats, _awq(layer), parts, AWQ)


def _layer(weights: StateDict, name: str) -> _Layer:
    """A layer's tensors, of the dtypes and dimensions that they must have.

    Raises:
        CheckpointError: they aren't there, or others.
    """
    layer = _Layer(
        name,
        stored(weights, name + _WEIGHT),
        stored(weights, name + _ZEROS),
        stored(weights, name + _SCALES),
        stored(weights, name + _GROUPS) if name + _GROUPS in weights else None,
    )
    tables = (layer.words, layer.zeros, layer.scales)
    flat = all(len(each.shape) == 2 and each.size for each in tables)
    require(flat, layer.floats, "isn't packed in tables")
    words = layer.words.dtype == layer.zeros.dtype == "I32"
    require(words, layer.floats, "isn't packed into integers of 32 bits")
    require(layer.scales.dtype in _FLOATS, layer.floats, "has scales of an odd dtype")
    rows = layer.zeros.shape[0] == layer.scales.shape[0]
    require(rows, layer.floats, "has zero points of another number of groups")
    return layer


def _gptq(layer: _Layer, config: Mapping[str, Any]) -> Blocks:
    """A layer's weight as GPTQ packs it.

    Raises:
        CheckpointError: the tables don't fit one another, or the version isn't known.
    """
    groups, outputs = layer.scales.shape
    bits = layer.zeros.shape[1] * _WORD // outputs
    inputs = layer.words.shape[0] * _WORD // max(1, bits)
    fits = (
        bits in _GPTQ_BITS
        and layer.zeros.shape[1] * _WORD == outputs * bits
        and layer.words.shape[0] * _WORD == inputs * bits
    )
    require(fits, layer.floats, "is packed in a way that isn't known")
    of_input = _groups(layer, inputs, groups)
    zeros = _unpacked(layer.zeros.numpy(), bits)
    zeros = zeros + _zeros_lack(layer, zeros, bits, config)

    def compute(start: int, stop: int) -> Array:
        first, last = start // inputs, stop // inputs
        columns = np.ascontiguousarray(layer.words.numpy()[:, first:last].T)
        values = _unpacked(columns, bits)
        return _scaled(layer, values, zeros, of_input, slice(first, last))

    step = rows_at_a_time(inputs)
    sources = (layer.words, layer.scales)
    return Blocks(layer.scales.dtype, (outputs, inputs), step, compute, sources)


def _zeros_lack(
    layer: _Layer, zeros: Array, bits: int, config: Mapping[str, Any]
) -> int:
    """What stored zero points are short of: one in GPTQ's first version, else nothing.

    Where nobody states the version, symmetric weights show it: their zero point is the
    middle of the range.

    Args:
        layer: for messages.
        zeros: as they are stored.
        bits: of each.
        config: as of `dequantised`.

    Raises:
        CheckpointError: the version isn't known; or a zero point would be beyond the
            range, where programs that read it differ.
    """
    middle, last = 1 << (bits - 1), (1 << bits) - 1
    stated = config.get(_FORMAT, "gptq" if config else None)
    if stated == "gptq_v2" or (stated is None and (zeros == middle).all()):
        return 0
    if stated is None and not (zeros == middle - 1).all():
        raise CheckpointError(
            f"which version of GPTQ packed {printable(layer.floats)} isn't stated, and"
            " its zero points don't show it",
            "give the folder with its config.json, whose quantization_config states"
            f" {_FORMAT}: gptq or gptq_v2",
        )
    require(stated in (None, "gptq"), layer.floats, f"is in the format {stated!r}")
    wraps = "has a zero point beyond its range, which programs read differently"
    require(not (zeros == last).any(), layer.floats, wraps)
    return 1


def _awq(layer: _Layer) -> Blocks:
    """A layer's weight as AWQ's "gemm" packs it.

    Raises:
        CheckpointError: the tables don't fit one another.
    """
    inputs, words = layer.words.shape
    groups, outputs = layer.scales.shape
    a_word = _WORD // _AWQ_BITS
    fits = words * a_word == outputs and layer.zeros.shape[1] == words
    require(fits, layer.floats, "is packed in a way that isn't known")
    require(layer.groups is None, layer.floats, "is AWQ's and has g_idx")
    of_input = _groups(layer, inputs, groups)
    zeros = _in_awq_order(layer.zeros.numpy())

    def compute(start: int, stop: int) -> Array:
        first, last = start // inputs, stop // inputs
        first_word, last_word = first // a_word, -(-last // a_word)
        columns = layer.words.numpy()[:, first_word:last_word]
        skipped = first_word * a_word
        values = _in_awq_order(columns).T[first - skipped : last - skipped]
        return _scaled(layer, values, zeros, of_input, slice(first, last))

    step = rows_at_a_time(inputs)
    sources = (layer.words, layer.scales)
    return Blocks(layer.scales.dtype, (outputs, inputs), step, compute, sources)


def _groups(layer: _Layer, inputs: int, groups: int) -> Array:
    """The group of each input.

    Raises:
        CheckpointError: they aren't known, or one is out of range.
    """
    if layer.groups is None:
        require(inputs % groups == 0, layer.floats, "has groups of unequal sizes")
        return np.arange(inputs) // (inputs // groups)
    fits = layer.groups.dtype in ("I32", "I64") and layer.groups.size == inputs
    require(fits, layer.name + _GROUPS, f"isn't one group for each of {inputs} inputs")
    of_input = layer.groups.numpy().reshape(-1)
    within = bool((of_input >= 0).all() and (of_input < groups).all())
    require(within, layer.name + _GROUPS, f"names a group that isn't of {groups}")
    return of_input


def _scaled(
    layer: _Layer, values: Array, zeros: Array, of_input: Array, rows: slice
) -> Array:
    """Some rows of the weight, one for each output.

    The product is exact in float32 before it is rounded to half precision.

    Args:
        layer: whose weight it is.
        values: integers, of shape (rows, inputs).
        zeros: integers, of shape (groups, outputs).
        of_input: the group of each input.
        rows: which outputs they are.
    """
    scales = layer.scales.numpy()[:, rows].astype(np.float32)
    less = values.astype(np.float32) - zeros[:, rows].T[:, of_input]
    floats: Array = less * scales.T[:, of_input]
    return floats.astype(DTYPES[layer.scales.dtype].numpy).reshape(-1)


def _unpacked(words: Array, bits: int) -> Array:
    """The integers of each row of words, the lowest bits first.

    Args:
        words: of shape (rows, words).
        bits: of each integer.

    Returns:
        int16, of shape (rows, integers).
    """
    as_bytes = np.ascontiguousarray(words, "<i4").view(np.uint8)
    single = np.unpackbits(as_bytes, axis=1, bitorder="little")
    grouped = single.reshape(len(words), -1, bits)
    weight = 1 << np.arange(bits, dtype=np.int16)
    integers: Array = grouped @ weight
    return integers


def _in_awq_order(words: Array) -> Array:
    """The integers of each row of AWQ's words, in the order of the outputs."""
    integers = _unpacked(words, _AWQ_BITS)
    in_words = integers.reshape(len(words), -1, len(_AWQ_ORDER))
    return in_words[..., _AWQ_ORDER].reshape(len(words), -1)
