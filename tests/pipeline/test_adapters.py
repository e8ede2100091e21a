"""Adapters as PEFT and fine-tuning scripts save them, merged by stage load.

The reference is the formula of each method, in float64 by torch.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoint_release import inspect, load
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.errors import CheckpointError, CheckpointReleaseError
from checkpoint_release.state_dict.model_weights import AdapterFile, read_model_weights
from checkpoint_release.state_dict.sources import read_source
from tests.pipeline.test_sources import run, weights  # noqa: F401  run is a fixture
from tests.support.project import ROOT

Run = Callable[..., CheckpointFacts]
Weights = dict[str, torch.Tensor]
LAYER, EMBEDDING = "pose_decoder.0", "action_embedding"
PREFIX = "base_model.model."


def factors(layer: str, rank: int = 2, seed: int = 1) -> Weights:
    """Factors as PEFT names them in its files."""
    torch.manual_seed(seed)
    out, into = weights()[f"{layer}.weight"].shape
    kind = ""
    if layer == EMBEDDING:
        kind, out, into = "embedding_", into, out
    end = "" if kind else ".weight"
    return {
        f"{PREFIX}{layer}.lora_{kind}A{end}": torch.randn(rank, into) * 0.1,
        f"{PREFIX}{layer}.lora_{kind}B{end}": torch.randn(out, rank) * 0.1,
    }


def peft_folder(path: str, tensors: Weights, **config: Any) -> Path:
    folder = Path(path)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    stated = {"peft_type": "LORA", "r": 2, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    return folder


def product(tensors: Weights) -> torch.Tensor:
    a, b = (each.double() for each in tensors.values())
    return b @ a


def merged(**adapters: float) -> dict[str, np.ndarray[Any, Any]]:
    files = [AdapterFile(read_source(Path(p)), w) for p, w in adapters.items()]
    found = read_model_weights(read_source(Path("base.pth")), files)
    return {name: tensor.numpy() for name, tensor in found.tensors.items()}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Base weights, which are saved as base.pth in the working folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(weights(), "base.pth")
    return weights()


def assert_adapted(base: Weights, expected: Weights, **adapters: float) -> None:
    """Each weight is as expected, rounded once, and the others are the base's."""
    found = merged(**adapters)
    assert found.keys() == base.keys()
    for name, values in found.items():
        right = expected.get(name, base[name]).float().numpy()
        np.testing.assert_allclose(values, right, rtol=2e-7, atol=1e-9, err_msg=name)
        assert np.array_equal(values, base[name].numpy()) == (name not in expected)


def test_a_peft_folder_is_merged_by_the_stage(run: Run) -> None:  # noqa: F811
    torch.save(weights(), "base.pth")
    peft_folder("checkpoints/adapters/style", factors(LAYER))
    facts = run("base.pth", checkpoint__adapter="checkpoints/adapters/style")
    assert facts.lora is not None
    assert (facts.lora.alpha, facts.lora.rank, facts.lora.layers) == (8, 2, [LAYER])
    written = load_file("artifacts/checkpoint/weights.safetensors")[f"{LAYER}.weight"]
    right = weights()[f"{LAYER}.weight"].double() + 4 * product(factors(LAYER))
    assert torch.allclose(written, right.float(), rtol=2e-7, atol=1e-9)


def test_the_scale_is_rank_stabilized_where_the_config_says_so(base: Weights) -> None:
    peft_folder("a", factors(LAYER), use_rslora=True)
    name = f"{LAYER}.weight"
    right = base[name].double() + 8 / math.sqrt(2) * product(factors(LAYER))
    assert_adapted(base, {name: right}, a=1.0)


def test_ranks_and_alphas_of_single_layers_come_from_their_patterns(
    base: Weights,
) -> None:
    other = "transformer_encoder.layers.0.ffn.gate_proj"
    tensors = factors(LAYER) | factors(other, rank=3, seed=2)
    peft_folder(
        "a",
        tensors,
        rank_pattern={r"layers\.\d+\.ffn\.gate_proj": 3},
        alpha_pattern={"gate_proj": 6},
    )
    expected = {
        f"{LAYER}.weight": base[f"{LAYER}.weight"] + 4 * product(factors(LAYER)),
        f"{other}.weight": base[f"{other}.weight"]
        + 2 * product(factors(other, rank=3, seed=2)),
    }
    assert_adapted(base, expected, a=1.0)
    peft_folder("b", tensors, rank_pattern={"gate_proj": 4})
    with pytest.raises(CheckpointError, match="says rank 4"):
        merged(b=1.0)


def test_an_embedding_is_adapted_by_the_transposed_product(base: Weights) -> None:
    peft_folder("a", factors(EMBEDDING))
    name = f"{EMBEDDING}.weight"
    right = base[name].double() + 4 * product(factors(EMBEDDING)).T
    assert_adapted(base, {name: right}, a=1.0)


def test_dora_is_merged_with_its_magnitude(base: Weights) -> None:
    name = f"{LAYER}.weight"
    magnitude = torch.linspace(0.5, 2, base[name].shape[0])
    vector = {f"{PREFIX}{LAYER}.lora_magnitude_vector": magnitude}
    peft_folder("a", factors(LAYER) | vector, use_dora=True)
    summed = base[name].double() + 4 * product(factors(LAYER))
    length = torch.linalg.norm(summed, dim=1, keepdim=True)
    assert_adapted(base, {name: magnitude[:, None] / length * summed}, a=1.0)
    with pytest.raises(CheckpointError, match="DoRA can be merged alone"):
        merged(a=0.5)


def test_biases_and_whole_modules_take_the_places_of_the_base_s(base: Weights) -> None:
    head = "pose_decoder.3"
    replaced = {
        f"{LAYER}.bias": torch.full_like(base[f"{LAYER}.bias"], 3.0),
        f"{head}.weight": torch.full_like(base[f"{head}.weight"], 2.0),
    }
    tensors = {
        f"{PREFIX}{LAYER}.base_layer.bias": replaced[f"{LAYER}.bias"],
        f"{PREFIX}{head}.weight": replaced[f"{head}.weight"],
    }
    config = {"bias": "lora_only", "modules_to_save": [head]}
    peft_folder("a", factors(LAYER) | tensors, **config)
    name = f"{LAYER}.weight"
    adapted = {name: base[name] + 4 * product(factors(LAYER))}
    assert_adapted(base, adapted | replaced, a=1.0)
    # nothing says what they are without the config
    with pytest.raises(CheckpointError, match="2 other tensors"):
        merged(**{"a/adapter_model.safetensors": 1.0})


def test_several_adapters_count_by_their_weights(run: Run) -> None:  # noqa: F811
    torch.save(weights(), "base.pth")
    first = peft_folder("checkpoints/adapters/one", factors(LAYER))
    second = peft_folder(
        "checkpoints/adapters/two", factors(LAYER, rank=4, seed=2), r=4
    )
    facts = run("base.pth", checkpoint__adapter={str(first): 0.75, str(second): -0.5})
    assert facts.lora is not None
    assert facts.lora.weights == {"1 one": 0.75, "2 two": -0.5}
    written = load_file("artifacts/checkpoint/weights.safetensors")[f"{LAYER}.weight"]
    right = weights()[f"{LAYER}.weight"].double()
    right += 0.75 * 4 * product(factors(LAYER))
    right -= 0.5 * 2 * product(factors(LAYER, rank=4, seed=2))
    assert torch.allclose(written, right.float(), rtol=2e-7, atol=1e-9)


def test_alpha_is_found_where_fine_tuning_scripts_put_it(base: Weights) -> None:
    tensors = {name.removeprefix(PREFIX): t for name, t in factors(LAYER).items()}
    places: tuple[dict[str, Any], ...] = (
        {"config": {"lora": {"alpha": 8.0, "rank": 2}}},
        {"config": {"lora_alpha": 8.0, "lr": 0.1}},
        {"hyper_parameters": {"lora_alpha": 8.0, "alpha": 0.3}},
        {"peft_config": {"default": {"lora_alpha": 8, "r": 2}}},
    )
    for number, beside in enumerate(places):
        torch.save({"lora_state_dict": tensors, **beside}, f"{number}.pth")
        name = f"{LAYER}.weight"
        right = base[name].double() + 4 * product(factors(LAYER))
        assert_adapted(base, {name: right}, **{f"{number}.pth": 1.0})
    clash = {"lora_config": {"alpha": 8.0}, "config": {"lora": {"alpha": 4.0}}}
    torch.save({"lora_state_dict": tensors, **clash}, "clash.pth")
    with pytest.raises(CheckpointError, match="contradicts itself"):
        merged(**{"clash.pth": 1.0})


# What is refused by name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "LOHA"}, "kind 'LOHA'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"use_qalora": True}, "QALoRA"),
        ({"lora_bias": True}, "LoRA with biases"),
        ({"r": 5}, "says rank 5"),
        ({"alpha_pattern": {"(a+)+$": 1}}, "isn't a layer's name"),
        ({"alpha_pattern": {"layer": "1"}}, "no number"),
        ({"lora_alpha": None}, "doesn't say their alpha"),
        ({"lora_alpha": 10**400}, "can be that large"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_by_its_name(
    base: Weights, config: dict[str, Any], message: str
) -> None:
    peft_folder("a", factors(LAYER), **config)
    with pytest.raises(CheckpointReleaseError, match=message) as caught:
        merged(a=1.0)
    assert caught.value.remedy


def test_factors_of_other_methods_are_named_without_a_config(base: Weights) -> None:
    save_file({f"{LAYER}.hada_w1_a": torch.ones(2, 2)}, "loha.safetensors")
    with pytest.raises(CheckpointError, match="LoHa"):
        merged(**{"loha.safetensors": 1.0})


def test_a_peft_folder_without_a_readable_config_is_refused(base: Weights) -> None:
    folder = peft_folder("a", factors(LAYER))
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointReleaseError, match=r"adapter_config\.json"):
        merged(a=1.0)


def test_an_adapter_in_the_place_of_a_model_is_told_where_it_belongs(
    run: Run,  # noqa: F811
) -> None:
    peft_folder("a", factors(LAYER))
    with pytest.raises(CheckpointError, match="is an adapter of PEFT") as caught:
        run("a")
    assert "this folder in checkpoint.adapter" in caught.value.remedy
    advised = inspect("a").params
    assert advised["checkpoint.adapter"] == "a"


def test_a_model_with_two_adapters_injected_is_no_guess(base: Weights) -> None:
    injected = {}
    for adapter in ("one", "two"):
        for name, tensor in factors(LAYER).items():
            injected[name.replace(".weight", f".{adapter}.weight")] = tensor
    torch.save(base | injected, "both.pth")
    with pytest.raises(CheckpointError, match="2 adapters: one, two"):
        read_model_weights(read_source(Path("both.pth")))


# The loader


def test_the_loader_merges_an_adapter(base: Weights) -> None:
    peft_folder("a", factors(LAYER))
    name = f"{LAYER}.weight"
    adapted = base[name].double() + 2 * product(factors(LAYER))
    torch.save(base | {name: adapted.float()}, "merged.pth")
    inputs = {
        "motion": np.ones((3, 1, 20), np.float32),
        "text_embedding": np.ones((1, 16), np.float32),
    }
    outputs = []
    with pytest.warns(DeprecationWarning):
        for path, adapter in (
            ("base.pth", {"a": 0.5}),
            ("merged.pth", None),
            ("base.pth", None),
        ):
            model = load(path, adapter=adapter)
            names = model.signature.input_names
            given = {each: inputs[each] for each in names if each in inputs}
            outputs.append(model(**given)["pose"])
    assert np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


# Memory

MEASURED = """
import sys
from pathlib import Path
from checkpoint_release.state_dict.model_weights import AdapterFile, read_model_weights
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.safetensors import write_safetensors
from tests.support.watched import peak
before = peak()
adapters = [AdapterFile(read_source(Path(sys.argv[2])))]
tensors = read_model_weights(read_source(Path(sys.argv[1])), adapters).tensors
if sys.argv[3] == "streamed":
    write_safetensors(Path("out.safetensors"), tensors)
else:
    kept = [tensor.numpy() for tensor in tensors.values()]
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("how", "stays"), [("streamed", True), ("kept", False)])
def test_merging_takes_the_largest_layer_and_64_mb_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stays: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    layers, size = range(10), 2048  # of 16 MB each
    torch.save({f"l{n}.weight": torch.zeros(size, size) for n in layers}, "base.pth")
    tensors = {}
    for n in layers:
        tensors[f"{PREFIX}l{n}.lora_A.weight"] = torch.ones(2, size)
        tensors[f"{PREFIX}l{n}.lora_B.weight"] = torch.ones(size, 2)
    peft_folder("a", tensors)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MEASURED, "base.pth", "a", how]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert (int(done.stdout) < 4 * size * size + (64 << 20)) == stays
