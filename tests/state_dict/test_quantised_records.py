"""Quantised tensors of torch and torchao become the floats that torch computes with.

torch's own tensors are compared with its `dequantize`. torchao's records are written as
its version 0.18 pickles them; what is computed was compared with that version itself,
bit for bit.
"""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from checkpoint_release import inspect
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.state_dict.model_weights import ModelWeights, read_model_weights
from checkpoint_release.state_dict.sources import read_source

Weights = dict[str, torch.Tensor]


def read(path: Path, value: Any) -> ModelWeights:
    torch.save(value, path)
    return read_model_weights(read_source(path), dequantise=True)


def assert_floats(found: ModelWeights, expected: Weights) -> None:
    assert set(found.tensors) == set(expected)
    for name, tensor in expected.items():
        ours = found.tensors[name].numpy()
        theirs = tensor.detach()
        wanted = theirs.float().numpy()
        assert ours.shape == wanted.shape
        assert str(theirs.dtype).removeprefix("torch.") == str(ours.dtype)
        np.testing.assert_array_equal(ours.astype(np.float32), wanted)


# torch's own


@pytest.fixture
def quiet() -> Iterator[None]:
    """torch calls its own quantised tensors deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet")
def test_tensors_with_a_scale_for_all_or_for_each_channel(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3)
    scales, zeros = torch.rand(5) / 20 + 0.01, torch.randint(-4, 9, (5,))
    whole = torch.quantize_per_tensor(weight, 0.037, 19, torch.quint8)
    channels = torch.quantize_per_channel(weight, scales, zeros, 1, torch.qint8)
    quantised = {
        "whole": whole,
        "channels": channels,
        "turned": whole.transpose(0, 1),
        "parameter": nn.Parameter(whole, requires_grad=False),
        "plain": torch.ones(3),
    }
    found = read(tmp_path / "model.pth", quantised)
    assert found.quantised == "torch.ao.quantization"
    expected = {name: each.dequantize() for name, each in quantised.items()}
    assert_floats(found, expected)


@pytest.mark.usefixtures("quiet")
def test_layers_of_quantize_dynamic_become_ordinary_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8, bias=False))
    torch.backends.quantized.engine = torch.backends.quantized.supported_engines[-1]
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    path = tmp_path / "model.pth"
    found = read(path, {"model": quantised.state_dict(), "epoch": 3})
    first, last = quantised[0], quantised[2]
    expected = {
        "0.weight": first.weight().dequantize(),
        "0.bias": first.bias(),
        "2.weight": last.weight().dequantize(),
    }
    assert_floats(found, expected)
    model.load_state_dict({name: each.detach() for name, each in expected.items()})
    with pytest.raises(CheckpointError, match="quantised, as torch") as error:
        read_model_weights(read_source(path))
    assert "checkpoint.dequantise to true" in error.value.remedy


@pytest.mark.usefixtures("quiet")
def test_a_tensor_of_another_scheme_is_refused_by_name(tmp_path: Path) -> None:
    wide = torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 0, torch.qint32)
    with pytest.raises(CheckpointError, match="wide is quantised as I32"):
        read(tmp_path / "model.pth", {"wide": wide})


# torchao's


def subclass(name: str) -> Any:
    """A class that pickles as torchao's of that name does."""
    module = types.ModuleType("torchao.quantization")

    def new(cls: Any, like: torch.Tensor, **attributes: Any) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)
        for key, value in attributes.items():
            setattr(made, key, value)
        return made

    names: dict[str, Any] = {
        "__new__": new,
        "__module__": module.__name__,
        "__torch_dispatch__": classmethod(lambda *_: NotImplemented),
    }
    kind = type(name, (torch.Tensor,), names)
    setattr(module, name, kind)
    return module, kind


def saved(path: Path, name: str, like: torch.Tensor, **attributes: Any) -> Path:
    """A state dict with one weight of a torchao class, and a bias."""
    module, kind = subclass(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchao", types.ModuleType("torchao"))
        patch.setitem(sys.modules, module.__name__, module)
        weight = kind(like, **attributes)
        torch.save({"0.weight": weight, "0.bias": torch.ones(8)}, path)
    return path


def affine(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> Any:
    """Eight rows of 64 numbers in groups of 32, written out."""
    rows = []
    for row in range(8):
        halves = []
        for half in (0, 1):
            part = values[row, 32 * half : 32 * half + 32].to(scale.dtype)
            halves.append((part - zero[row, half]) * scale[row, half])
        rows.append(torch.cat(halves))
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchao_s_integers_become_floats(tmp_path: Path, dtype: Any) -> None:
    torch.manual_seed(0)
    values = torch.randint(-8, 8, (8, 64), dtype=torch.int8)
    scale = (torch.rand(8, 2) / 50 + 0.01).to(dtype)
    zero = torch.randint(-3, 4, (8, 2)).to(dtype)
    parts = {"qdata": values, "scale": scale, "zero_point": zero}
    like = torch.empty(8, 64, dtype=dtype)
    for name in ("Int8Tensor", "IntxUnpackedToInt8Tensor"):
        path = tmp_path / f"{name}.pth"
        saved(path, name, like, **parts, block_size=[1, 32])
        found = read_model_weights(read_source(path), dequantise=True)
        assert found.quantised == "torchao"
        expected = {"0.weight": affine(values, scale, zero), "0.bias": torch.ones(8)}
        assert_floats(found, expected)
    values[3, 40] += 1
    changed = affine(values, scale, zero)
    assert (changed != expected["0.weight"]).sum() == 1


def test_torchao_s_float8_becomes_floats(tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = torch.randn(8, 64).to(torch.float8_e4m3fn)
    scale = torch.rand(8, 1)
    path = tmp_path / "model.pth"
    like = torch.empty(8, 64, dtype=torch.bfloat16)
    saved(path, "Float8Tensor", like, qdata=values, scale=scale, block_size=[1, 64])
    found = read_model_weights(read_source(path), dequantise=True)
    expected = (values.float() * scale).bfloat16()
    assert_floats(found, {"0.weight": expected, "0.bias": torch.ones(8)})


GOOD = {
    "qdata": torch.ones(8, 64, dtype=torch.int8),
    "scale": torch.ones(8, 2),
    "block_size": [1, 32],
}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Int4Tensor", {}, "is torchao's Int4Tensor, which is packed for a device"),
        ("Int8Tensor", {"act_pre_scale": torch.ones(64)}, "scaled before"),
        ("Int8Tensor", {"scale": torch.ones(8, 1)}, "has 8 scales for 16 blocks"),
        ("Int8Tensor", {"block_size": [1, 30]}, "has odd blocks"),
        ("Int8Tensor", {"block_size": [32]}, "blocks of its own dimensions"),
        ("Int8Tensor", {"block_size": [1, 0]}, "has odd blocks"),
        ("Int8Tensor", {"zero_point": torch.full((8, 2), 0.5)}, "no small integer"),
        ("Int8Tensor", {"zero_point": torch.ones(3)}, "lacks zero points"),
        ("Int8Tensor", {"qdata": "none"}, "is garbled"),
        ("Int8Tensor", {"scale": None}, "is garbled"),
    ],
)
def test_what_torchao_keeps_otherwise_is_refused_by_name(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    path = saved(tmp_path / "model.pth", name, torch.empty(8, 64), **(GOOD | change))
    with pytest.raises(CheckpointError, match=rf"0\.weight.*{message}"):
        read_model_weights(read_source(path), dequantise=True)


def test_without_the_request_torchao_is_named_with_the_parameter(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path / "model.pth", "Int8Tensor", torch.empty(8, 64), **GOOD)
    with pytest.raises(CheckpointError, match="as torchao lays them out") as refused:
        read_model_weights(read_source(path))
    assert "checkpoint.dequantise to true" in refused.value.remedy
    assert any("torchao" in note for note in inspect(path).notes)
