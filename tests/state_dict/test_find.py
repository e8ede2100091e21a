"""From what a file holds to the weights: which state dict, which names, which adapters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Inert
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.find import find_state_dict
from checkpoint_release.state_dict.half_precision import cast_half
from checkpoint_release.state_dict.lora import find_adapter, lora_alpha, merge_lora
from checkpoint_release.state_dict.prefixes import without_prefix
from checkpoint_release.tensors.tensor import Tensor, TensorLike

RNG = np.random.default_rng(7)


def tensor(*shape: int, dtype: Any = np.float32) -> Tensor:
    return Tensor.of_numpy(RNG.standard_normal(shape).astype(dtype))


def linear(name: str = "layer", inputs: int = 3, outputs: int = 4) -> StateDict:
    return {f"{name}.weight": tensor(outputs, inputs), f"{name}.bias": tensor(outputs)}


def factors(
    name: str = "layer", rank: int = 2, inputs: int = 3, outputs: int = 4
) -> StateDict:
    return {
        f"{name}.lora_A": tensor(rank, inputs),
        f"{name}.lora_B": tensor(outputs, rank),
    }


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
        assert "without the others" in error.value.remedy


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


def test_prefixes_that_every_name_has_are_stripped() -> None:
    weights = {f"module._orig_mod.{name}": value for name, value in linear().items()}
    stripped, prefix = without_prefix(weights)
    assert (sorted(stripped), prefix) == (
        ["layer.bias", "layer.weight"],
        "module._orig_mod.",
    )


def test_a_prefix_that_one_name_lacks_stays() -> None:
    weights = {"module.a": tensor(1), "b": tensor(1)}
    assert without_prefix(weights) == (weights, "")


def reference(
    base: TensorLike, a: TensorLike, b: TensorLike, alpha: float
) -> np.ndarray:
    w, left, right = (each.numpy().astype(np.float64) for each in (base, b, a))
    return w + alpha / right.shape[0] * (left @ right)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_merging_is_done_in_float64_and_rounded_once(dtype: Any) -> None:
    base: StateDict = {"layer.weight": tensor(40, 30, dtype=dtype)}
    adapter = {"layer.lora_A": tensor(8, 30), "layer.lora_B": tensor(40, 8)}
    merged, lora = merge_lora(base, adapter, 16.0)
    exact = reference(
        base["layer.weight"], adapter["layer.lora_A"], adapter["layer.lora_B"], 16.0
    )
    # Half a unit in the last place, and no more than the odd tie that the order of the
    # float64 sum decides.
    assert (
        np.abs(merged["layer.weight"].numpy() - exact).max()
        <= np.spacing(np.abs(exact).max().astype(dtype)) / 2
    )
    assert merged["layer.weight"].dtype == base["layer.weight"].dtype
    assert lora == MergedLora(alpha=16.0, rank=8, layers=["layer"])


def test_injected_adapters_leave_the_layers_own_names() -> None:
    weights: StateDict = {
        "layer.base_layer.weight": tensor(4, 3),
        "layer.base_layer.bias": tensor(4),
        **factors(),
    }
    merged, _ = merge_lora(weights, None, 16.0)
    assert sorted(merged) == ["layer.bias", "layer.weight"]
    assert merged["layer.bias"] is weights["layer.base_layer.bias"]
    exact = reference(
        weights["layer.base_layer.weight"],
        weights["layer.lora_A"],
        weights["layer.lora_B"],
        16.0,
    )
    np.testing.assert_allclose(
        merged["layer.weight"].numpy(), exact, rtol=1e-6, atol=1e-6
    )


def test_peft_names_are_understood() -> None:
    adapter = {
        f"base_model.model.{name}.weight": value for name, value in factors().items()
    }
    merged, lora = merge_lora(linear(), adapter, 4.0)
    assert lora and lora.layers == ["layer"] and set(merged) == set(linear())


def test_alpha_is_never_guessed() -> None:
    with pytest.raises(CheckpointError, match="doesn't say their alpha") as error:
        merge_lora(linear(), factors(), None)
    assert "checkpoint.lora_alpha" in error.value.remedy


def test_alpha_comes_from_the_file_or_from_params_and_they_must_agree() -> None:
    value = {"lora_config": {"alpha": 16, "rank": 2}}
    assert (
        lora_alpha(value, None, factors()) == lora_alpha(value, 16.0, factors()) == 16.0
    )
    assert lora_alpha({}, 8.0, factors()) == 8.0
    assert lora_alpha({}, None, factors()) is None
    with pytest.raises(CheckpointError, match=r"alpha 16.*says 8"):
        lora_alpha(value, 8.0, factors())
    with pytest.raises(CheckpointError, match="rank 4"):
        lora_alpha({"lora_config": {"rank": 4}}, None, factors())


@pytest.mark.parametrize(
    "config",
    [
        {
            "alpha": Tensor.of_numpy(np.asarray(16.0)),
            "rank": Tensor.of_numpy(np.asarray(2)),
        },
        Inert("training.LoRAConfig", (), state={"lora_alpha": 16, "r": 2}),
    ],
)
def test_alpha_may_be_a_tensor_or_an_object_s_field(config: Any) -> None:
    assert lora_alpha({"lora_config": config}, None, factors()) == 16.0
    with pytest.raises(CheckpointError, match=r"alpha 16.*says 8"):
        lora_alpha({"lora_config": config}, 8.0, factors())
    with pytest.raises(CheckpointError, match="rank 2"):
        lora_alpha({"lora_config": config}, None, factors(rank=3))


def test_a_boolean_is_no_alpha() -> None:
    assert lora_alpha({"lora_config": {"alpha": True}}, None, factors()) is None


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (factors("elsewhere"), "no elsewhere.weight"),
        (
            factors(inputs=5),
            r"don't fit: lora_A \[2, 5\], lora_B \[4, 2\], base \[4, 3\]",
        ),
        ({"layer.lora_A": tensor(2, 3), "layer.lora_B": tensor(4, 3)}, "don't fit"),
        ({"layer.lora_A": tensor(2, 3)}, "not the other factor"),
        ({**factors(), "layer.bias": tensor(4)}, "no LoRA factor"),
    ],
)
def test_an_adapter_that_does_not_fit_is_an_error(
    adapter: StateDict, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        merge_lora(linear(), adapter, 16.0)


def test_injected_and_separate_adapters_together_are_an_error() -> None:
    with pytest.raises(CheckpointError, match="holds LoRA factors"):
        merge_lora(
            {"layer.base_layer.weight": tensor(4, 3), **factors()}, factors(), 16.0
        )


def test_half_precision_is_kept_cast_exactly_or_refused() -> None:
    weights: StateDict = {"half": tensor(5, dtype=np.float16), "single": tensor(5)}
    assert cast_half(weights, "keep") == weights
    cast = cast_half(weights, "cast")
    assert cast["half"].dtype == "F32" and cast["single"] is weights["single"]
    np.testing.assert_array_equal(
        cast["half"].numpy(), weights["half"].numpy().astype(np.float32)
    )
    with pytest.raises(CheckpointError, match="1 of 2 tensors"):
        cast_half(weights, "refuse")
