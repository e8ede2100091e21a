"""LoRA adapters are merged exactly, or refused where scale or place is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.artifacts.checkpoint import MergedLora
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Checkpoint, Inert
from checkpoint_release.state_dict.adapter_config import LoraConfig, lora_config
from checkpoint_release.state_dict.candidates import StateDict
from checkpoint_release.state_dict.lora import LoraAdapter, merge_lora
from checkpoint_release.tensors.tensor import Tensor, TensorLike
from tests.support.state_dicts import factors, linear, tensor


def merged_with(
    weights: StateDict, adapter: StateDict | None, alpha: float | None
) -> tuple[StateDict, MergedLora | None]:
    config = LoraConfig(alpha=alpha)
    if adapter is None:
        return merge_lora(weights, own=config)
    return merge_lora(weights, [LoraAdapter(adapter, config)])


def alpha_of(value: Any, stated: float | None, weights: StateDict) -> float | None:
    """The alpha of the factors, whose ranks have to be those that are stated."""
    checkpoint = Checkpoint(Path("mine.pth"), value, "zip", {})
    config = lora_config(checkpoint, stated)
    for name, each in weights.items():
        if name.endswith("lora_A"):
            config.check_rank("layer", each.shape[0], name)
    return config.alpha


def reference(
    base: TensorLike, a: TensorLike, b: TensorLike, alpha: float
) -> np.ndarray:
    w, left, right = (each.numpy().astype(np.float64) for each in (base, b, a))
    return w + alpha / right.shape[0] * (left @ right)


def falsely_rounded(dtype: Any) -> int:
    """How many of 12,000 merged weights aren't the exact ones, rounded once."""
    random = np.random.default_rng(0)

    def drawn(*shape: int, like: Any = np.float32) -> Tensor:
        return Tensor.of_numpy(random.standard_normal(shape).astype(like))

    base: StateDict = {"layer.weight": drawn(120, 100, like=dtype)}
    adapter: StateDict = {"layer.lora_A": drawn(8, 100), "layer.lora_B": drawn(120, 8)}
    merged, lora = merged_with(base, adapter, 16.0)
    assert merged["layer.weight"].dtype == base["layer.weight"].dtype
    assert lora == MergedLora(alpha=16.0, rank=8, layers=["layer"])
    exact = reference(
        base["layer.weight"], adapter["layer.lora_A"], adapter["layer.lora_B"], 16.0
    )
    return int(np.sum(merged["layer.weight"].numpy() != exact.astype(dtype)))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_merging_is_done_in_float64_and_rounded_once(
    dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the odd tie is decided by the order of the float64 sum
    assert falsely_rounded(dtype) <= 1
    # in float32, thousands of weights have another last bit; in float16, a few
    monkeypatch.setattr(
        "checkpoint_release.state_dict.lora_layers._PRECISION", np.float32
    )
    assert falsely_rounded(dtype) > 1


def test_injected_adapters_leave_the_layers_own_names() -> None:
    weights: StateDict = {
        "layer.base_layer.weight": tensor(4, 3),
        "layer.base_layer.bias": tensor(4),
        **factors(),
    }
    merged, _ = merged_with(weights, None, 16.0)
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
    merged, lora = merged_with(linear(), adapter, 4.0)
    assert lora and lora.layers == ["layer"] and set(merged) == set(linear())


def test_alpha_is_never_guessed() -> None:
    with pytest.raises(CheckpointError, match="doesn't say their alpha") as error:
        merged_with(linear(), factors(), None)
    assert "checkpoint.lora_alpha" in error.value.remedy


def test_alpha_comes_from_the_file_or_from_params_and_they_must_agree() -> None:
    value = {"lora_config": {"alpha": 16, "rank": 2}}
    assert alpha_of(value, None, factors()) == alpha_of(value, 16.0, factors()) == 16.0
    assert alpha_of({}, 8.0, factors()) == 8.0
    assert alpha_of({}, None, factors()) is None
    with pytest.raises(CheckpointError, match=r"alpha 16.*says 8"):
        alpha_of(value, 8.0, factors())
    with pytest.raises(CheckpointError, match="rank 4"):
        alpha_of({"lora_config": {"rank": 4}}, None, factors())


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
    assert alpha_of({"lora_config": config}, None, factors()) == 16.0
    with pytest.raises(CheckpointError, match=r"alpha 16.*says 8"):
        alpha_of({"lora_config": config}, 8.0, factors())
    with pytest.raises(CheckpointError, match="rank 2"):
        alpha_of({"lora_config": config}, None, factors(rank=3))


def test_a_boolean_is_no_alpha() -> None:
    assert alpha_of({"lora_config": {"alpha": True}}, None, factors()) is None


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
        merged_with(linear(), adapter, 16.0)


def test_injected_and_separate_adapters_together_are_an_error() -> None:
    with pytest.raises(CheckpointError, match="holds LoRA factors"):
        merged_with(
            {"layer.base_layer.weight": tensor(4, 3), **factors()}, factors(), 16.0
        )


def test_layers_of_different_ranks_are_listed_with_theirs() -> None:
    weights = {**linear("a"), **linear("b")}
    adapter = {**factors("a", rank=1), **factors("b", rank=2)}
    _, lora = merged_with(weights, adapter, 16.0)
    assert lora == MergedLora(alpha=16.0, rank={"a": 1, "b": 2}, layers=["a", "b"])


def test_errors_name_options_that_the_caller_spells() -> None:
    with pytest.raises(CheckpointError) as error:
        merged_with(linear(), factors(), None)
    assert error.value.options == ("checkpoint.lora_alpha",)
    assert "in --lora-alpha" in error.value.message(lambda option: "--lora-alpha")
    assert "in checkpoint.lora_alpha" in str(error.value)
