"""The table of dtypes: what safetensors, torch and numpy call each, and what it is.

Tensors name their dtype as safetensors does ("F32"), signatures and options as torch
and numpy do ("float32"). Nothing else in the project lists dtypes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes  # noqa: F401  makes bfloat16 and float8 known to numpy
import numpy as np

Kind = Literal["boolean", "integer", "minifloat", "half", "float", "complex"]
"""Floats have 8 bits or fewer (minifloat), 16 (half), or 32 and more (float)."""


@dataclass(frozen=True)
class DType:
    """The type of a tensor's elements.

    Attributes:
        name: in a safetensors header; types that safetensors lacks are named in the
            same manner.
        torch_name: torch's name without "torch."; numpy's too, where numpy has the
            type. None: torch has no such type.
        bits: size of one element.
        kind: what sort of number it is.
        numpy: the numpy type that holds it, or None where there is none.
        in_safetensors: whether safetensors 0.8 can hold it.
    """

    name: str
    torch_name: str | None
    bits: int
    kind: Kind
    numpy: np.dtype[Any] | None
    in_safetensors: bool

    @property
    def is_integral(self) -> bool:
        """Whether elements are integers or booleans, which are always finite."""
        return self.kind in ("boolean", "integer")

    def nbytes(self, count: int) -> int:
        """The size of that many elements laid out without gaps, in bytes, rounded up.

        Args:
            count: of elements; an odd number of 4-bit ones leaves half a byte unused.
        """
        return (count * self.bits + 7) // 8


def _dtype(name: str, torch_name: str, bits: int, kind: Kind) -> DType:
    """A type that numpy and safetensors have, numpy under torch's name.

    Args:
        name, torch_name, bits, kind: see DType.
    """
    return DType(name, torch_name, bits, kind, np.dtype(torch_name), True)


# In the order of the `Dtype` enumeration of safetensors 0.8, which is the order of its
# files read backwards.
_ROWS = (
    _dtype("BOOL", "bool", 8, "boolean"),
    # two elements to a byte; torch has only the pair, float4_e2m1fn_x2
    DType("F4", None, 4, "minifloat", None, in_safetensors=True),
    _dtype("U8", "uint8", 8, "integer"),
    _dtype("I8", "int8", 8, "integer"),
    _dtype("F8_E5M2", "float8_e5m2", 8, "minifloat"),
    _dtype("F8_E4M3", "float8_e4m3fn", 8, "minifloat"),
    _dtype("F8_E8M0", "float8_e8m0fnu", 8, "minifloat"),
    _dtype("F8_E4M3FNUZ", "float8_e4m3fnuz", 8, "minifloat"),
    _dtype("F8_E5M2FNUZ", "float8_e5m2fnuz", 8, "minifloat"),
    _dtype("I16", "int16", 16, "integer"),
    _dtype("U16", "uint16", 16, "integer"),
    _dtype("F16", "float16", 16, "half"),
    _dtype("BF16", "bfloat16", 16, "half"),
    _dtype("I32", "int32", 32, "integer"),
    _dtype("U32", "uint32", 32, "integer"),
    _dtype("F32", "float32", 32, "float"),
    _dtype("C64", "complex64", 64, "complex"),
    _dtype("F64", "float64", 64, "float"),
    _dtype("I64", "int64", 64, "integer"),
    _dtype("U64", "uint64", 64, "integer"),
    DType("C32", "complex32", 32, "complex", None, in_safetensors=False),
    DType(
        "C128",
        "complex128",
        128,
        "complex",
        np.dtype(np.complex128),
        in_safetensors=False,
    ),
)

DTYPES: dict[str, DType] = {dtype.name: dtype for dtype in _ROWS}
"""safetensors' name → dtype, in safetensors' own order, the narrowest first."""

BY_TORCH_NAME: dict[str, DType] = {
    dtype.torch_name: dtype for dtype in _ROWS if dtype.torch_name
}
"""torch's name, such as "float32" → dtype."""

_BY_NUMPY = {dtype.numpy: dtype for dtype in _ROWS if dtype.numpy}


def _names(*kinds: Kind) -> tuple[str, ...]:
    """safetensors' names of all dtypes of these kinds, the widest first."""
    return tuple(dtype.name for dtype in reversed(_ROWS) if dtype.kind in kinds)


HALF: tuple[str, ...] = _names("half")
"""safetensors' names of float16 and bfloat16."""

FLOATS: tuple[str, ...] = _names("half", "float")
"""safetensors' names of the floats of 16 to 64 bits, the widest first."""

SIGNATURE_DTYPES: tuple[str, ...] = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int32",
    "int8",
    "uint8",
    "bool",
)
"""What a model's inputs and outputs can hold, by numpy's names."""


def of_numpy(dtype: np.dtype[Any]) -> DType:
    """The dtype that a little-endian numpy type holds.

    Args:
        dtype: numpy's; complex32 and F4 have none.

    Raises:
        TypeError: there is none.
    """
    try:
        return _BY_NUMPY[dtype]
    except KeyError:
        raise TypeError(f"no tensor holds numpy's {dtype}") from None
