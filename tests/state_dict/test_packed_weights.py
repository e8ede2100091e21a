"""GPTQ's and AWQ's weights become the floats that their layouts mean.

The integers are packed here one bit after the other, from the layouts' definitions.
What is computed was compared with AutoGPTQ 0.7.1 and AutoAWQ 0.2.7 themselves, bit for
bit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.dequantise import dequantised
from checkpoint_release.state_dict.model_weights import read_model_weights
from checkpoint_release.state_dict.quantised import note, quantisation
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.tensor import Tensor

INPUTS, OUTPUTS, GROUPS = 64, 32, 4
AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of its eight columns each integer of a word is, from the lowest bits."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A layer before it is packed.

    Attributes:
        integers: of shape (inputs, outputs).
        zeros: of shape (groups, outputs).
        scales: the same.
        groups: of each input.
    """

    integers: Array
    zeros: Array
    scales: Array
    groups: Array

    def floats(self) -> Array:
        """The weight, element by element."""
        weight = np.empty((OUTPUTS, INPUTS), np.float16)
        for row in range(OUTPUTS):
            for column in range(INPUTS):
                group = self.groups[column]
                less = int(self.integers[column, row]) - int(self.zeros[group, row])
                exact = less * float(self.scales[group, row])
                weight[row, column] = np.float16(exact)
        return weight


def layer(bits: int, *, act_order: bool = False) -> Layer:
    random = np.random.default_rng(bits)
    groups = np.arange(INPUTS) // (INPUTS // GROUPS)
    if act_order:
        groups = random.permutation(groups)
    last = (1 << bits) - 1
    return Layer(
        random.integers(0, last + 1, (INPUTS, OUTPUTS)),
        random.integers(1, last + 1, (GROUPS, OUTPUTS)),
        random.uniform(0.01, 0.1, (GROUPS, OUTPUTS)).astype(np.float16),
        groups.astype(np.int32),
    )


def in_words(numbers: list[int], bits: int) -> list[int]:
    """Integers in a row as words of 32 bits, one bit after the other."""
    row = 0
    for at, number in enumerate(numbers):
        row |= int(number) << (at * bits)
    count = len(numbers) * bits // 32
    return [row >> (32 * at) & 0xFFFFFFFF for at in range(count)]


def packed(table: Array, bits: int) -> Array:
    """Each row of a table as words."""
    words = [in_words(list(row), bits) for row in table]
    return np.array(words, np.uint32).view(np.int32)


def in_awq_order(table: Array) -> Array:
    in_words = table.reshape(len(table), -1, len(AWQ_COLUMNS))
    return in_words[..., AWQ_COLUMNS].reshape(len(table), -1)


def tensors(**arrays: Array) -> StateDict:
    kept = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {f"up.{name}": Tensor.of_numpy(array) for name, array in kept.items()}


def gptq(of: Layer, bits: int, *, stored_less: int = 1) -> StateDict:
    return tensors(
        qweight=packed(of.integers.T, bits).T,
        qzeros=packed(of.zeros - stored_less, bits),
        scales=of.scales,
        g_idx=of.groups,
        bias=np.ones(OUTPUTS, np.float16),
    )


def awq(of: Layer) -> StateDict:
    return tensors(
        qweight=packed(in_awq_order(of.integers), 4),
        qzeros=packed(in_awq_order(of.zeros), 4),
        scales=of.scales,
    )


V1, V2 = {"checkpoint_format": "gptq"}, {"checkpoint_format": "gptq_v2"}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("config", [V1, V2, {"bits": 4}])
def test_gptq_s_integers_become_floats(
    bits: int, act_order: bool, config: dict[str, Any]
) -> None:
    of = layer(bits, act_order=act_order)
    stored_less = 0 if config == V2 else 1
    floats, layout = dequantised(gptq(of, bits, stored_less=stored_less), config)
    assert layout == "GPTQ" and set(floats) == {"up.weight", "up.bias"}
    found = floats["up.weight"].numpy()
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, of.floats())


def test_the_wrong_version_of_gptq_gives_other_floats() -> None:
    of = layer(8)
    lower = Layer(of.integers, np.minimum(of.zeros, 250), of.scales, of.groups)
    floats, _ = dequantised(gptq(lower, 8), V2)
    assert (floats["up.weight"].numpy() != lower.floats()).all()


def test_symmetric_weights_show_their_version_by_themselves() -> None:
    of = layer(4)
    middle = Layer(of.integers, np.full_like(of.zeros, 8), of.scales, of.groups)
    for stored_less in (0, 1):
        floats, _ = dequantised(gptq(middle, 4, stored_less=stored_less))
        np.testing.assert_array_equal(floats["up.weight"].numpy(), middle.floats())
    with pytest.raises(CheckpointError, match="which version of GPTQ") as refused:
        dequantised(gptq(of, 4))
    assert "config.json" in refused.value.remedy


def test_awq_s_integers_become_floats() -> None:
    of = layer(4)
    floats, layout = dequantised(awq(of))
    assert layout == "AWQ" and set(floats) == {"up.weight"}
    np.testing.assert_array_equal(floats["up.weight"].numpy(), of.floats())
    turned = awq(of)
    turned["up.qweight"] = Tensor.of_numpy(packed(of.integers, 4))
    floats, _ = dequantised(turned)
    assert (floats["up.weight"].numpy() != of.floats()).any()


@pytest.mark.parametrize("step", [1, 5 * INPUTS, 1 << 20])
def test_pieces_of_any_size_are_the_same(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_release.state_dict.quantised_parts.STEP", step)
    of = layer(4)
    for weights in (gptq(of, 4), awq(of)):
        floats, _ = dequantised(weights, V1)
        np.testing.assert_array_equal(floats["up.weight"].numpy(), of.floats())


def changed(name: str, change: Callable[[Array], Array]) -> Callable[[StateDict], None]:
    def edit(weights: StateDict) -> None:
        array = np.ascontiguousarray(change(weights[name].numpy().copy()))
        weights[name] = Tensor.of_numpy(array)

    return edit


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("qweight", lambda a: a[:-1], "isn't one group for each of 56 inputs"),
        ("qweight", lambda a: a.astype(np.int64), "integers of 32 bits"),
        ("qweight", lambda a: a[:, :-1], "is packed in a way that isn't known"),
        ("qzeros", lambda a: a[:-1], "another number of groups"),
        ("qzeros", lambda a: a[:, :-1], "is packed in a way that isn't known"),
        ("qzeros", lambda a: a | 0xF, "beyond its range"),
        ("scales", lambda a: a.astype(np.int16), "scales of an odd dtype"),
        ("g_idx", lambda a: a + 1, "names a group that isn't of 4"),
        ("g_idx", lambda a: a - 1, "names a group that isn't of 4"),
    ],
)
def test_tables_that_do_not_fit_are_refused_by_name(
    name: str, change: Callable[[Array], Array], message: str
) -> None:
    weights = gptq(layer(4), 4)
    changed(f"up.{name}", change)(weights)
    with pytest.raises(CheckpointError, match=message):
        dequantised(weights, V1)


@pytest.mark.parametrize("name", ["qzeros", "scales"])
def test_a_missing_table_is_named(name: str) -> None:
    weights = gptq(layer(4), 4)
    del weights[f"up.{name}"]
    with pytest.raises(CheckpointError, match=rf"up\.{name} is missing"):
        dequantised(weights, V1)


def test_a_hugging_face_folder_says_the_version_in_its_config(tmp_path: Path) -> None:
    of = layer(4)
    write_safetensors(tmp_path / "model.safetensors", gptq(of, 4, stored_less=0))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"quantization_config": V2}))
    checkpoint = read_source(tmp_path)
    weights = read_model_weights(checkpoint, dequantise=True)
    assert weights.quantised == "GPTQ"
    np.testing.assert_array_equal(weights.tensors["up.weight"].numpy(), of.floats())
    config.rename(tmp_path / "elsewhere")
    (tmp_path / "quantize_config.json").write_text(json.dumps(V2))
    weights = read_model_weights(read_source(tmp_path), dequantise=True)
    np.testing.assert_array_equal(weights.tensors["up.weight"].numpy(), of.floats())


def test_without_the_request_the_message_names_the_parameter() -> None:
    for weights, layout in ((gptq(layer(4), 4), "GPTQ"), (awq(layer(4)), "AWQ")):
        assert quantisation(weights) == layout
        assert "checkpoint.dequantise to true" in note(layout)
