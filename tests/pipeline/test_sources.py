"""Stage load takes a checkpoint in any wrapping, and gives the same weights for all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from checkpoint_release import inspect
from checkpoint_release.core.artifacts.checkpoint import (
    CheckpointFacts,
    CheckpointFolder,
)
from checkpoint_release.core.errors import (
    ArchitectureError,
    ArtifactError,
    CheckpointError,
    CheckpointReleaseError,
)
from checkpoint_release.core.files import sha256
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.models.stick_figure import build
from pipeline import load
from tests.support.project import ROOT, Project
from tests.support.stick_figure import MOTION_ONLY

FOLDER = Path("artifacts/checkpoint")
Weights = dict[str, torch.Tensor]
Run = Callable[..., CheckpointFacts]
SHARD_SIZE = 30_000  # bytes: several shards of the small model


def weights() -> Weights:
    torch.manual_seed(0)
    return dict(build(**MOTION_ONLY).state_dict())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the stage on a path with the given parameters; returns checkpoint.json."""
    monkeypatch.chdir(tmp_path)

    def run_load(path: str, **params: Any) -> CheckpointFacts:
        Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
        Project(tmp_path).set(checkpoint__path=path, **params)
        load.main()
        return CheckpointFolder.open(FOLDER, OWN_ARTIFACTS).facts

    return run_load


def assert_carried(expected: Weights) -> None:
    written = load_file(CheckpointFolder.open(FOLDER, OWN_ARTIFACTS).weights)
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[name], expected[name]) for name in expected)


def sharded(folder: Path, *, safe: bool) -> list[Path]:
    """A folder as transformers saves a model; returns its shards."""
    folder.mkdir()
    save_torch_state_dict(
        weights(), folder, max_shard_size=SHARD_SIZE, safe_serialization=safe
    )
    shards = sorted(folder.glob("*-of-*"))
    assert len(shards) > 2
    return shards


# What is taken


def test_a_safetensors_file_is_a_checkpoint(run: Run) -> None:
    save_file(weights(), "mine.safetensors", metadata={"format": "pt", "run": "7"})
    facts = run("mine.safetensors")
    assert_carried(weights())
    assert facts.origin.container == "safetensors"
    assert facts.origin.sha256 == sha256(Path("mine.safetensors"))
    assert facts.training == {"format": "pt", "run": "7"}


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_shards_is_a_checkpoint(run: Run, safe: bool) -> None:
    shards = sharded(Path("hub"), safe=safe)
    Path("hub/config.json").write_text('{"model_type": "figure", "layers": 2}')
    facts = run("hub")
    assert_carried(weights())
    assert facts.training == {"config": {"model_type": "figure", "layers": 2}}
    assert f"{len(shards)} shards" in facts.origin.container
    assert facts.origin.size == sum(shard.stat().st_size for shard in shards)


@pytest.mark.parametrize("safe", [True, False])
def test_an_index_stands_for_its_shards(run: Run, safe: bool) -> None:
    sharded(Path("hub"), safe=safe)
    (index,) = Path("hub").glob("*.index.json")
    run(str(index))
    assert_carried(weights())


def test_shards_without_an_index_are_joined_by_their_names(run: Run) -> None:
    sharded(Path("hub"), safe=True)
    Path("hub/model.safetensors.index.json").unlink()
    run("hub")
    assert_carried(weights())


def test_a_folder_with_one_file_among_what_a_trainer_saves_is_a_checkpoint(
    run: Run,
) -> None:
    Path("run").mkdir()
    torch.save(weights(), "run/pytorch_model.bin")
    torch.save({"lr": 0.1}, "run/training_args.bin")
    torch.save({"state": {}}, "run/optimizer.pt")
    run("run")
    assert_carried(weights())


def test_safetensors_are_preferred_to_the_same_weights_in_a_pickle(run: Run) -> None:
    Path("both").mkdir()
    save_file(weights(), "both/model.safetensors")
    torch.save({"other": torch.ones(1)}, "both/pytorch_model.bin")
    assert run("both").origin.container == "safetensors"
    assert_carried(weights())


def test_an_adapter_may_be_a_safetensors_file(run: Run) -> None:
    base = weights()
    name = next(
        name for name in base if name.endswith(".weight") and base[name].ndim == 2
    )
    layer = name.removesuffix(".weight")
    out, into = base[name].shape
    save_file(base, "base.safetensors")
    factors = {
        f"base_model.model.{layer}.lora_A.weight": torch.ones(2, into),
        f"base_model.model.{layer}.lora_B.weight": torch.ones(out, 2),
    }
    save_file(factors, "adapter.safetensors")
    facts = run(
        "base.safetensors",
        checkpoint__adapter="adapter.safetensors",
        checkpoint__lora_alpha=2.0,
    )
    assert facts.lora is not None and facts.lora.layers == [layer]
    written = load_file(CheckpointFolder.open(FOLDER, OWN_ARTIFACTS).weights)
    assert torch.equal(written[name], (base[name].double() + 2.0).float())


# What wrappers add


def test_an_averaged_model_needs_no_parameter(run: Run) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(build(**MOTION_ONLY))
    averaged.module.load_state_dict(weights())
    torch.save(averaged.state_dict(), "mine.pth")
    facts = run("mine.pth")
    assert_carried(weights())
    assert facts.origin.left_out == ["n_averaged"]
    assert facts.origin.prefix == "module."


def lightning() -> dict[str, Any]:
    model = {f"model.{name}": tensor for name, tensor in weights().items()}
    model["criterion.weight"] = torch.ones(3)
    return {"state_dict": model, "epoch": 3, "hyper_parameters": {"lr": 0.1}}


def test_a_prefix_is_stripped_and_what_is_not_the_models_left_out(run: Run) -> None:
    torch.save(lightning(), "mine.ckpt")
    facts = run(
        "mine.ckpt",
        checkpoint__prefix="model.",
        checkpoint__leave_out=["criterion.*"],
    )
    assert_carried(weights())
    assert facts.origin.left_out == ["criterion.weight"]
    assert facts.training == {"epoch": 3, "hyper_parameters": {"lr": 0.1}}


def test_a_near_miss_names_the_parameters_that_make_it_fit(run: Run) -> None:
    torch.save(lightning(), "mine.ckpt")
    with pytest.raises(ArchitectureError) as caught:
        run("mine.ckpt")
    assert "{" not in caught.value.remedy
    assert "checkpoint.prefix to 'model.'" in caught.value.remedy
    assert "checkpoint.leave_out to ['criterion.*']" in caught.value.remedy


def test_counters_of_profilers_are_named_as_what_to_leave_out(run: Run) -> None:
    profiled = weights()
    for name in list(profiled):
        module = name.rpartition(".")[0]
        profiled[f"{module}.total_ops"] = torch.zeros(1, dtype=torch.float64)
    torch.save(profiled, "mine.pth")
    with pytest.raises(ArchitectureError, match=r"leave_out to \['\*total_ops'\]"):
        run("mine.pth")
    run("mine.pth", checkpoint__leave_out=["*total_ops"])
    assert_carried(weights())


def test_another_model_gets_no_such_advice(run: Run) -> None:
    torch.save({"model.conv.weight": torch.ones(3, 3)}, "mine.pth")
    with pytest.raises(ArchitectureError) as caught:
        run("mine.pth")
    assert "checkpoint.prefix" not in caught.value.remedy


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"checkpoint__leave_out": ["head.*"]}, "no tensor is called so"),
        ({"checkpoint__leave_out": ["*"]}, "leaves out every tensor"),
        ({"checkpoint__prefix": "net."}, "don't begin with it"),
    ],
)
def test_a_selection_that_fits_nothing_is_an_error(
    run: Run, params: dict[str, Any], message: str
) -> None:
    torch.save(weights(), "mine.pth")
    with pytest.raises(CheckpointError, match=message):
        run("mine.pth", **params)


@pytest.mark.parametrize("wrapping", ["lightning", "averaged", "two", "whole"])
def test_the_parameters_that_inspect_names_make_the_stage_pass(
    run: Run, wrapping: str
) -> None:
    values: dict[str, Any] = {
        "lightning": lightning(),
        "averaged": {"n_averaged": torch.tensor(3)}
        | {f"module.{name}": each for name, each in weights().items()},
        "two": {"first": weights(), "other": {"conv.weight": torch.ones(3, 3)}},
        "whole": weights(),
    }
    torch.save(values[wrapping], "mine.pth")
    advised = inspect("mine.pth").params
    stated = {option.replace(".", "__"): advised[option] for option in advised}
    run(stated.pop("checkpoint__path"), **stated)
    assert_carried(weights())


# What is refused


def lose_a_shard(shards: list[Path]) -> str:
    shards[1].unlink()
    return shards[1].parent.name


def lose_a_shard_and_the_index(shards: list[Path]) -> str:
    Path("hub/model.safetensors.index.json").unlink()
    return lose_a_shard(shards)


def name_one_shard(shards: list[Path]) -> str:
    return str(shards[0])


def repeat_a_tensor(shards: list[Path]) -> str:
    first, second = load_file(shards[0]), load_file(shards[1])
    save_file(second | first, shards[1])
    return "hub"


def exchange_two_shards(shards: list[Path]) -> str:
    first, second = shards[0].read_bytes(), shards[1].read_bytes()
    shards[0].write_bytes(second)
    shards[1].write_bytes(first)
    return "hub"


def lead_out_of_the_folder(shards: list[Path]) -> str:
    index = Path("hub/model.safetensors.index.json")
    described = json.loads(index.read_text())
    name = next(iter(described["weight_map"]))
    described["weight_map"][name] = "../elsewhere.safetensors"
    index.write_text(json.dumps(described))
    return "hub"


def two_models(shards: list[Path]) -> str:
    Path("two").mkdir()
    for name in ("a.safetensors", "b.safetensors"):
        save_file(weights(), f"two/{name}")
    return "two"


def no_weights(shards: list[Path]) -> str:
    Path("none").mkdir()
    Path("none/readme.txt").write_text("nothing")
    return "none"


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lose_a_shard, "is missing beside it"),
        (lose_a_shard_and_the_index, "number 2 is missing"),
        (name_one_shard, "is shard 1 of"),
        (repeat_a_tensor, "and so does"),
        (exchange_two_shards, "and it is in"),
        (lead_out_of_the_folder, "elsewhere"),
        (two_models, "holds 2 files of weights"),
        (no_weights, "holds no weights that can be read"),
    ],
)
def test_a_broken_set_is_one_error_that_names_the_part(
    run: Run, breaking: Callable[[list[Path]], str], message: str
) -> None:
    path = breaking(sharded(Path("hub"), safe=True))
    with pytest.raises(CheckpointReleaseError, match=message) as caught:
        run(path)
    assert isinstance(caught.value, CheckpointError | ArtifactError)
    assert caught.value.remedy and not FOLDER.exists()


def gptq() -> Any:
    values = {"qweight": torch.ones(2, 2, dtype=torch.int32), "g_idx": torch.ones(4)}
    values |= {"qzeros": torch.ones(1, 2, dtype=torch.int32), "scales": torch.ones(1)}
    return {f"layer.{name}": tensor for name, tensor in values.items()}


def four_bits() -> Any:
    names = ("weight", "weight.absmax", "weight.quant_map")
    return {f"layer.{name}": torch.ones(3) for name in names}


def quantised_dynamically() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.nn.Sequential(torch.nn.Linear(2, 2))
        return torch.ao.quantization.quantize_dynamic(model).state_dict()


@pytest.mark.parametrize(
    ("made", "layout"),
    [
        (gptq, "GPTQ"),
        (four_bits, "bitsandbytes in 4 bits"),
        (quantised_dynamically, r"torch\.ao\.quantization"),
    ],
)
def test_quantised_weights_are_named(
    run: Run, made: Callable[[], Any], layout: str
) -> None:
    torch.save(made(), "quantised.pth")
    with pytest.raises(CheckpointError, match=f"quantised, as {layout}") as caught:
        run("quantised.pth")
    assert "before they were quantised" in caught.value.remedy
    assert "the weights are quantised" in str(inspect("quantised.pth"))


def test_nothing_else_is_called_quantised(run: Run) -> None:
    torch.save({"norm.scale": torch.ones(2), "norm.bias": torch.ones(2)}, "mine.pth")
    assert "quantised" not in str(inspect("mine.pth"))


# What inspect lists


def test_inspect_lists_a_folder_and_one_shard(run: Run) -> None:
    shards = sharded(Path("hub"), safe=True)
    whole = inspect("hub")
    assert whole.state_dicts[""].keys() == weights().keys()
    assert whole.kind == f"safetensors, {len(shards)} shards"
    part = inspect(shards[0])
    assert 0 < len(part.state_dicts[""]) < len(weights())
    assert f"this is shard 1 of {len(shards)}" in str(part)
