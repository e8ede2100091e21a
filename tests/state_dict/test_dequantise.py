"""Quantised weights become the floats that bitsandbytes itself computes with.

The fixture holds what version 0.50 quantised, and what its own functions dequantised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.selection import Selection
from checkpoint_release.pth.facts import training_facts
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.dequantise import dequantised
from checkpoint_release.state_dict.model_weights import read_model_weights
from checkpoint_release.state_dict.quantised import note, quantisation
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors import blocks
from checkpoint_release.tensors.safetensors import open_safetensors, write_safetensors
from checkpoint_release.tensors.tensor import Tensor

FIXTURE = Path(__file__).parents[1] / "fixtures/bitsandbytes_0.50.safetensors"
EXPECTED = "expected."
STATE = "up.weight.quant_state.bitsandbytes__nf4"


def fixture() -> tuple[StateDict, StateDict]:
    """What was quantised, and the floats."""
    tensors = open_safetensors(FIXTURE)
    quantised: StateDict = {}
    expected: StateDict = {}
    for name, tensor in tensors.items():
        if name.startswith(EXPECTED):
            expected[name.removeprefix(EXPECTED)] = tensor
        else:
            quantised[name] = tensor
    return quantised, expected


@pytest.mark.parametrize("step", [64, 1 << 16])
def test_the_floats_are_those_of_the_library(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_release.state_dict.bitsandbytes.STEP", step)
    quantised, expected = fixture()
    floats, layout = dequantised(quantised)
    assert layout == "bitsandbytes in 4 bits, bitsandbytes in 8 bits"
    assert set(floats) == {"up.weight", "gate.weight", "down.weight", "down.bias"}
    for name, tensor in expected.items():
        found, wanted = floats[name].numpy(), tensor.numpy()
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        # equal, but for the sign of fp4's zero
        np.testing.assert_array_equal(found.astype("f4"), wanted.astype("f4"))


def test_a_bit_of_a_quantised_weight_counts() -> None:
    quantised, expected = fixture()
    changed = quantised["up.weight"].numpy().copy()
    changed[7] ^= 16
    floats, _ = dequantised({**quantised, "up.weight": Tensor.of_numpy(changed)})
    found = floats["up.weight"].numpy().astype("f4").ravel()
    differs = found != expected["up.weight"].numpy().astype("f4").ravel()
    assert list(np.flatnonzero(differs)) == [14]


def described(**changes: object) -> Callable[[StateDict], None]:
    def change(tensors: StateDict) -> None:
        state = json.loads(tensors[STATE].numpy().tobytes())
        text = json.dumps(state | changes).encode()
        tensors[STATE] = Tensor.of_numpy(np.frombuffer(text, np.uint8))

    return change


def without(name: str) -> Callable[[StateDict], None]:
    return lambda tensors: tensors.__delitem__(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("up.weight.absmax"), "up.weight.absmax is missing"),
        (without("up.weight.nested_quant_map"), "nested_quant_map is missing"),
        (without("down.weight"), "down.weight is missing"),
        (described(shape=[24, 41]), "isn't 492 bytes"),
        (described(shape=[2**40]), "can't be read"),
        (described(shape=[-24, -40]), "can't be read"),
        (described(blocksize=48), "quantised with 48, which is unknown"),
        (described(dtype="int8"), "quantised with 'int8', which is unknown"),
        (described(nested_offset="much"), "can't be read"),
        (described(nested_blocksize=None), "absmax isn't float32"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(
    change: Callable[[StateDict], None], message: str
) -> None:
    quantised, _ = fixture()
    change(quantised)
    with pytest.raises(CheckpointError, match=message):
        dequantised(quantised)


def test_on_request_a_file_is_read_as_the_floats_and_its_tables_are_no_facts(
    tmp_path: Path,
) -> None:
    quantised, expected = fixture()
    wrapped = {f"model.{name}": tensor for name, tensor in quantised.items()}
    write_safetensors(tmp_path / "model.safetensors", wrapped)
    checkpoint = read_source(tmp_path / "model.safetensors")
    selection = Selection(prefix="model.")
    weights = read_model_weights(checkpoint, dequantise=True, selection=selection)
    assert weights.quantised == "bitsandbytes in 4 bits, bitsandbytes in 8 bits"
    assert set(weights.tensors) == {*expected, "down.bias"}
    facts = training_facts(checkpoint.entries, leave_out=weights.top_keys)
    assert not [name for name in facts if "absmax" in name or "SCB" in name]
    as_it_is = read_model_weights(checkpoint, selection=selection)
    assert as_it_is.quantised == "" and "up.weight.absmax" in as_it_is.tensors


def test_without_the_request_the_message_names_the_parameter() -> None:
    quantised, _ = fixture()
    assert "checkpoint.dequantise to true" in note(quantisation(quantised))
    assert "dequantise" not in note("HQQ").replace("model.dequantize", "")


def test_pieces_are_computed_one_after_the_other() -> None:
    asked = []

    def compute(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.arange(start, stop, dtype=np.float32)

    tensor = blocks.Blocks("F32", (5, 2), 4, compute, ())
    np.testing.assert_array_equal(tensor.numpy().ravel(), np.arange(10))
    assert asked == [(0, 4), (4, 8), (8, 10)]
