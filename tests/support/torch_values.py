"""What torch.load gives is the oracle for what the reader gives."""

from __future__ import annotations

import collections
import datetime
import pathlib
from typing import Any

import numpy as np
import torch

from checkpoint_release.pth import Tensor

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
    torch.uint64: "U64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.complex128: "C128",
    torch.complex32: "C32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
}


def raw(value: torch.Tensor) -> bytes:
    """The bytes of a tensor's elements, row-major."""
    value = value.detach().resolve_conj().resolve_neg()
    # a size of 1 may have any stride until then
    value = value.clone(memory_format=torch.contiguous_format)
    return (
        bytes(value.reshape(-1).view(torch.uint8).numpy().tobytes())
        if value.numel()
        else b""
    )


def assert_same(ours: Any, theirs: Any, where: str = "") -> None:
    """What was read is what torch reads; of what only code could make, its text."""
    match theirs:
        case torch.Tensor():
            assert_same_tensor(ours, theirs, where)
        case np.ndarray():
            assert isinstance(ours, Tensor), (where, ours)
            assert ours.numpy().tolist() == theirs.tolist(), where
        case np.generic():
            assert_same(ours, theirs.item(), where)
        case dict():
            assert type(ours) is dict, where
            assert list(ours) == list(theirs), where
            for key in theirs:
                assert_same(ours[key], theirs[key], f"{where}/{key}")
        case set() | frozenset():
            assert len(ours) == len(theirs), where
            assert set(ours) == theirs, where
        case list() | tuple() | collections.deque():
            assert len(ours) == len(theirs), where
            for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
                assert_same(mine, other, f"{where}/{at}")
        case _:
            assert_same_leaf(ours, theirs, where)


def assert_same_tensor(ours: Any, theirs: torch.Tensor, where: str) -> None:
    assert isinstance(ours, Tensor), (where, ours)
    assert ours.shape == tuple(theirs.shape), where
    assert ours.dtype == DTYPES[theirs.dtype], where
    assert b"".join(map(bytes, ours.chunks())) == raw(theirs), where
    if ours.dtype != "C32":
        assert ours.numpy().tobytes() == raw(theirs), where


def assert_same_leaf(ours: Any, theirs: Any, where: str) -> None:
    match theirs:
        case pathlib.PurePath() | torch.device():
            assert ours == str(theirs), where
        case datetime.datetime() | datetime.date() | datetime.time():
            assert ours == theirs.isoformat(), where
        case bytearray():
            assert ours == bytes(theirs), where
        case _:
            both_nan = ours != ours and theirs != theirs
            assert type(ours) is type(theirs), where
            assert ours == theirs or both_nan, where
