"""Which of the mappings in a file is the state dict, and which an adapter."""

from __future__ import annotations

from typing import Any

import pytest

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Inert
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.find import find_state_dict
from checkpoint_release.state_dict.lora import find_adapter
from tests.support.state_dicts import factors, linear, tensor


@pytest.mark.parametrize(
    "key",
    [
        "model_state_dict",
        "state_dict",
        "model",
        "net",
        "module",
        "ema",
        "params",
        "odd",
    ],
)
def test_the_only_state_dict_is_found_under_any_key(key: str) -> None:
    found = find_state_dict(
        {"epoch": 3, key: (weights := linear()), "rng_state": tensor(16)}, None
    )
    assert (found.key, found.weights) == (key, weights)


def test_a_bare_state_dict_has_no_key() -> None:
    assert find_state_dict(linear(), None).key == ""


def test_a_few_facts_among_bare_weights_do_not_hide_them() -> None:
    assert set(find_state_dict({**linear(), "epoch": 3}, None).weights) == {
        "layer.weight",
        "layer.bias",
    }


@pytest.mark.parametrize("dense", [linear(), {}])
def test_a_tensor_that_can_not_be_carried_is_not_lost_silently(
    dense: StateDict,
) -> None:
    sparse = Inert(
        "torch._utils._rebuild_sparse_tensor",
        (),
        reason="a sparse tensor, which safetensors can't hold",
    )
    with pytest.raises(
        CheckpointError,
        match=r"1 of the checkpoint's tensors .* embed: a sparse tensor",
    ):
        find_state_dict({"model": {**dense, "embed": sparse}}, None)
    with pytest.raises(CheckpointError, match="a sparse tensor"):
        find_state_dict({"model": {**dense, "embed": sparse}}, "model")
    assert (
        find_state_dict({"model": linear(), "optimizer": {"embed": sparse}}, None).key
        == "model"
    )


def test_the_optimizer_s_tensors_are_no_candidates() -> None:
    by_name = {"layer.weight": tensor(4, 3), "layer.bias": tensor(4)}
    assert (
        find_state_dict(
            {"model": linear(), "optimizer_state_dict": {"exp_avg": by_name}}, None
        ).key
        == "model"
    )


def test_two_candidates_are_an_error_that_lists_them() -> None:
    with pytest.raises(CheckpointError) as error:
        find_state_dict({"model": linear(), "ema": linear()}, None)
    assert "model: 2 tensors, 16 values" in str(
        error.value
    ) and "ema: 2 tensors" in str(error.value)
    assert "checkpoint.state_dict" in error.value.remedy


def test_a_named_key_settles_it_also_a_nested_one() -> None:
    value = {
        "generator": {"ema": (weights := linear())},
        "discriminator": {"ema": linear()},
    }
    assert find_state_dict(value, "generator.ema").weights == weights
    assert find_state_dict({"a.b": weights}, "a.b").weights == weights


@pytest.mark.parametrize("key", ["modle", "generator", "generator.ema.x", "epoch"])
def test_a_key_that_leads_nowhere_shows_what_there_is(key: str) -> None:
    with pytest.raises(CheckpointError, match="its keys are generator, epoch"):
        find_state_dict({"generator": {"ema": linear()}, "epoch": 3}, key)


def test_no_state_dict_shows_what_there_is() -> None:
    with pytest.raises(CheckpointError, match="no state dict: its keys are epoch"):
        find_state_dict({"epoch": 3}, None)


@pytest.mark.parametrize(
    "value",
    [
        factors(),
        {"lora_state": factors(), "num_params": 3},
        {"lora_state_dict": factors()},
    ],
)
def test_an_adapter_alone_is_distinguished_from_weights(value: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="LoRA adapter") as error:
        find_state_dict(value, None)
    assert "checkpoint.adapter" in error.value.remedy
    assert set(find_adapter(value)) == {"layer.lora_A", "layer.lora_B"}


def test_a_tensor_that_keeps_a_file_from_being_an_adapter_is_named() -> None:
    for value in (
        {"lora_state": {**factors(), "head.bias": tensor(4)}},
        {**factors(), "head.bias": tensor(4)},
    ):
        with pytest.raises(
            CheckpointError, match=r"holds LoRA factors and 1 other tensors: head\.bias"
        ) as error:
            find_adapter(value)
        assert "merge it where it was trained" in error.value.remedy


def test_an_object_in_the_place_of_a_checkpoint_is_named_by_its_class() -> None:
    with pytest.raises(
        CheckpointError, match=r"it is an object of the class their_training\.Config"
    ) as error:
        find_state_dict(Inert("their_training.Config", (), {"epoch": 3}), None)
    assert "torch.save(model.state_dict()" in error.value.remedy
    with pytest.raises(CheckpointError, match=r"it is their_training\.Config\n"):
        find_state_dict(Inert("their_training.Config"), "model")


def test_an_adapter_beside_weights_is_not_lost_silently() -> None:
    assert (
        find_state_dict(
            {"model": linear(), "lora_state_dict": factors()}, None
        ).adapter_beside
        == "lora_state_dict"
    )
