"""Stage load, run as DVC runs it: from a .pth to weights and facts, or to one clear
error.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.checkpoint import (
    CheckpointFacts,
    CheckpointFolder,
    MergedLora,
)
from checkpoint_release.core.artifacts.manifest import read_manifest
from checkpoint_release.core.errors import (
    ArchitectureError,
    CheckpointError,
    CheckpointReleaseError,
    ModelError,
    UnsafeCheckpointError,
)
from checkpoint_release.core.signature import Signature
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.models.stick_figure import build
from checkpoint_release.runtimes.eager import build_model
from checkpoint_release.state_dict.sources import read_source
from pipeline import load
from tests.support.project import ROOT, Project
from tests.support.stick_figure import MOTION_ONLY

ROTARY = "transformer_encoder.layers.0.self_attn.rope.inv_freq"
Run = Callable[..., CheckpointFacts]
FOLDER = Path("artifacts/checkpoint")


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return dict(build(**MOTION_ONLY).state_dict())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Save a value, run the stage with the given parameters, return checkpoint.json."""
    monkeypatch.chdir(tmp_path)

    def run_load(value: Any, **params: Any) -> CheckpointFacts:
        torch.save(value, tmp_path / "mine.pth")
        (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
        Project(tmp_path).set(checkpoint__path="mine.pth", **params)
        load.main()
        read_manifest(FOLDER).verify(FOLDER)
        return CheckpointFolder.open(FOLDER, OWN_ARTIFACTS).facts

    return run_load


def written() -> dict[str, torch.Tensor]:
    return load_file(CheckpointFolder.open(FOLDER, OWN_ARTIFACTS).weights)


def test_a_bare_state_dict_is_carried_bit_for_bit(run: Run) -> None:
    facts = run(weights())
    assert facts.architecture.kwargs == MOTION_ONLY
    assert facts.origin.state_dict == "" and facts.training == {}
    assert all(
        torch.equal(tensor, weights()[name]) for name, tensor in written().items()
    )
    assert set(written()) == set(weights())


def test_a_trainer_s_checkpoint_loads_with_its_facts(run: Run) -> None:
    """numpy scalars and an optimizer make torch.load(weights_only=True) refuse this
    file.
    """
    checkpoint = {
        "epoch": 12,
        "model_state_dict": weights(),
        "optimizer_state_dict": {
            "state": {0: {"exp_avg": torch.zeros(3)}},
            "param_groups": [{"lr": np.float64(3e-4)}],
        },
        "val_loss": np.float32(0.5),
        "best_val_loss": float("inf"),
        "is_intra_epoch": True,
    }
    facts = run(checkpoint)
    assert facts.training == {
        "epoch": 12,
        "optimizer_state_dict": {"param_groups": [{"lr": 3e-4}]},
        "val_loss": 0.5,
        "best_val_loss": "inf",
        "is_intra_epoch": True,
    }
    assert "dangerous" in facts.left_out and not facts.left_out["dangerous"]


def test_a_config_object_of_an_unknown_class_comes_as_its_fields(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("their_training")
    config = dataclasses.make_dataclass(
        "Config", [("learning_rate", float), ("layers", list)]
    )
    config.__module__ = "their_training"
    module.Config = config  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_training", module)
    value = {"config": config(1e-3, [1, 2]), "model_state_dict": weights()}
    torch.save(value, "mine.pth")
    facts = run(value)
    assert facts.training["config"] == {"learning_rate": 1e-3, "layers": [1, 2]}
    assert facts.left_out["unknown"] == {"their_training.Config": 1}


def test_text_that_no_file_can_hold_comes_with_escapes(run: Run) -> None:
    """A pickle can hold half of a surrogate pair, in values, in keys and in the key of
    the weights.
    """
    facts = run(
        {
            "model\udc00": weights(),
            "note": "a\ud800b",
            "by\ud800": {"\ud800": ["\ud800"]},
        }
    )
    assert facts.training == {
        "note": "a\\ud800b",
        "by\\ud800": {"\\ud800": ["\\ud800"]},
    }
    assert facts.origin.state_dict == "model\\udc00"


def test_wrapped_names_are_unwrapped(run: Run) -> None:
    facts = run(
        {
            "state_dict": {
                f"module._orig_mod.{name}": value for name, value in weights().items()
            }
        }
    )
    assert facts.origin.prefix == "module._orig_mod."
    assert set(written()) == set(weights())


def test_half_precision_is_kept_or_cast(run: Run) -> None:
    half = {name: tensor.bfloat16() for name, tensor in weights().items()}
    assert set(run(half).tensors.dtypes) == {"BF16"}
    assert written()["pose_decoder.0.weight"].dtype == torch.bfloat16
    run(half, checkpoint__half_precision="cast")
    assert torch.equal(
        written()["pose_decoder.0.weight"], half["pose_decoder.0.weight"].float()
    )


def test_frequencies_that_half_precision_rounded_are_noted_and_computed_anew(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name for name in weights() if name.endswith("inv_freq")]
    half = {name: tensor.half() for name, tensor in weights().items()}
    assert run(half).origin.recomputed_buffers == []
    printed = capsys.readouterr().out
    assert f"note: {len(names)} buffers that the architecture determines" in printed
    assert "checkpoint.recompute_buffers: true computes them anew" in printed

    facts = run(half, checkpoint__recompute_buffers=True)
    assert facts.origin.recomputed_buffers == sorted(names)
    assert "that the architecture determines" not in capsys.readouterr().out
    for name, tensor in weights().items():
        expected = tensor if name in names else half[name]
        assert written()[name].dtype == expected.dtype
        torch.testing.assert_close(written()[name], expected, rtol=2e-7, atol=0)

    run(weights(), checkpoint__recompute_buffers=True)  # nothing is rounded there
    assert "that the architecture determines" not in capsys.readouterr().out
    assert torch.equal(written()[names[0]], weights()[names[0]])


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('ran', 'w')",))


def test_dangerous_code_stops_the_load_and_salvage_takes_the_weights_alone(
    run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UnsafeCheckpointError, match=r"exec"):
        run({"model_state_dict": weights(), "extra": Payload()})
    facts = run(
        {"model_state_dict": weights(), "extra": Payload()}, checkpoint__salvage=True
    )
    assert list(facts.left_out["dangerous"].values()) == [1]
    assert not (tmp_path / "ran").exists()


def test_tied_weights_are_carried_under_both_names_and_reported(run: Run) -> None:
    tied = weights()
    tied["velocity_decoder.0.weight"] = tied["position_decoder.0.weight"]
    assert run(tied).tensors.tied == [
        ["position_decoder.0.weight", "velocity_decoder.0.weight"]
    ]
    assert torch.equal(
        written()["velocity_decoder.0.weight"], tied["position_decoder.0.weight"]
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_weight_is_refused_by_name(run: Run, bad: float) -> None:
    diverged = weights()
    diverged["pose_decoder.3.bias"][2] = bad
    with pytest.raises(CheckpointError, match=r"pose_decoder.3.bias \[12\]"):
        run(diverged)
    run(diverged, checkpoint__non_finite="keep")


def spoilt() -> dict[str, tuple[Any, type[CheckpointReleaseError], str]]:
    good = weights()
    return {
        "a name is missing": (
            {name: t for name, t in good.items() if name != "pose_decoder.3.bias"},
            ArchitectureError,
            "pose_decoder.3.bias",
        ),
        "a name is left over": (
            {**good, "surplus.weight": torch.ones(2)},
            ArchitectureError,
            "surplus.weight",
        ),
        "shapes contradict": (
            {**good, "pose_decoder.3.bias": torch.ones(21)},
            ArchitectureError,
            "pose_decoder.3",
        ),
        "a buffer that a conversion lost": (
            {**good, ROTARY: torch.full((4,), 3.5e33)},
            ArchitectureError,
            r"inv_freq\[0\] is 3\.5e\+33",
        ),
        "another model": (
            dict(torch.nn.LSTM(4, 4).state_dict()),
            ArchitectureError,
            "weight_ih_l0",
        ),
        "no weights": ({"epoch": 3}, CheckpointError, "no state dict"),
        "FSDP's own parameters": (
            {"model": {"_fsdp_wrapped_module._flat_param": torch.ones(9)}},
            CheckpointError,
            "flat parameter of FSDP",
        ),
        "a file of Megatron": (
            {
                "checkpoint_version": 3.0,
                "args": {"tensor_model_parallel_size": 2},
                "model": {"language_model": {"encoder": good}},
            },
            CheckpointError,
            "a file of Megatron-LM",
        ),
    }


@pytest.mark.parametrize("case", spoilt())
def test_what_is_not_this_model_says_which_names(run: Run, case: str) -> None:
    value, kind, message = spoilt()[case]
    with pytest.raises(kind, match=message) as error:
        run(value)
    assert error.value.remedy


def test_a_part_of_a_megatron_file_is_taken_where_it_is_named(run: Run) -> None:
    value = {"checkpoint_version": 3.0, "args": {"a": 1}, "model": {"inner": weights()}}
    run(value, checkpoint__state_dict="model.inner")


def test_a_folder_of_megatron_is_told_as_that(tmp_path: Path) -> None:
    for part in ("mp_rank_00", "mp_rank_01"):
        (tmp_path / part).mkdir()
    with pytest.raises(CheckpointError, match="mp_rank_00, mp_rank_01"):
        read_source(tmp_path)


def test_a_failed_load_leaves_the_last_good_artifact(run: Run) -> None:
    run(weights())
    before = {
        path.name: path.read_bytes() for path in Path("artifacts/checkpoint").iterdir()
    }
    diverged = weights()
    diverged["pose_decoder.3.bias"][0] = float("nan")
    with pytest.raises(CheckpointError):
        run(diverged)
    assert {
        path.name: path.read_bytes() for path in Path("artifacts/checkpoint").iterdir()
    } == before
    assert [path.name for path in Path("artifacts").iterdir()] == ["checkpoint"]


def test_a_cast_comes_before_adapters_are_merged_into_half_precision(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An update far below bfloat16's rounding of the sum: rounded there, it would be
    gone before it is widened.
    """
    layer = "transformer_encoder.layers.0.ffn.gate_proj"
    shape = weights()[f"{layer}.weight"].shape
    adapter = {
        f"{layer}.lora_A": torch.randn(2, shape[1]) * 1e-3,
        f"{layer}.lora_B": torch.randn(shape[0], 2) * 1e-3,
    }
    (tmp_path / "checkpoints/adapters").mkdir(parents=True)
    torch.save({"lora_state": adapter}, tmp_path / "checkpoints/adapters/small.pth")
    half = {name: tensor.bfloat16() for name, tensor in weights().items()}
    merging = {
        "checkpoint__adapter": "checkpoints/adapters/small.pth",
        "checkpoint__lora_alpha": 2.0,
    }

    run(half, checkpoint__half_precision="cast", **merging)
    update = written()[f"{layer}.weight"].double() - half[f"{layer}.weight"].double()
    exact = adapter[f"{layer}.lora_B"].double() @ adapter[f"{layer}.lora_A"].double()
    assert float((update - exact).abs().max()) < 1e-7 < 1e-6 < float(exact.abs().max())
    assert "rounded to half precision" not in capsys.readouterr().out

    run(half, checkpoint__half_precision="keep", **merging)
    assert written()[f"{layer}.weight"].dtype == torch.bfloat16
    assert "rounded to half precision" in capsys.readouterr().out


def lora_file(**more: Any) -> dict[str, Any]:
    torch.manual_seed(1)
    layer = "transformer_encoder.layers.0.self_attn.q_proj"
    return {
        "environment_type": "beach",
        "lora_state": {
            f"{layer}.lora_A": torch.randn(2, 24),
            f"{layer}.lora_B": torch.randn(24, 2),
        },
        **more,
    }


def test_an_adapter_file_is_merged_into_its_base(run: Run, tmp_path: Path) -> None:
    (tmp_path / "checkpoints/adapters").mkdir(parents=True)
    torch.save(lora_file(), tmp_path / "checkpoints/adapters/beach.pth")
    adapter = "checkpoints/adapters/beach.pth"
    with pytest.raises(CheckpointError, match="alpha"):
        run(weights(), checkpoint__adapter=adapter)
    facts = run(weights(), checkpoint__adapter=adapter, checkpoint__lora_alpha=16.0)
    layer = "transformer_encoder.layers.0.self_attn.q_proj"
    assert facts.lora == MergedLora(alpha=16.0, rank=2, layers=[layer])
    assert facts.origin.adapter and len(facts.origin.adapter) == 64
    a, b = lora_file()["lora_state"].values()
    expected = weights()[f"{layer}.weight"].double() + 8.0 * (b.double() @ a.double())
    torch.testing.assert_close(
        written()[f"{layer}.weight"].double(), expected, rtol=1e-7, atol=1e-7
    )


def test_an_adapter_given_as_the_checkpoint_is_an_error_that_says_so(run: Run) -> None:
    with pytest.raises(CheckpointError, match="no base weights"):
        run(lora_file())


def test_an_adapter_beside_weights_must_be_decided_upon(run: Run) -> None:
    beside = {
        "model_state_dict": weights(),
        "lora_state_dict": lora_file()["lora_state"],
    }
    with pytest.raises(CheckpointError, match="beside"):
        run(beside)
    assert run(beside, checkpoint__state_dict="model_state_dict").lora is None
    facts = run(beside, checkpoint__adapter="mine.pth", checkpoint__lora_alpha=16.0)
    assert facts.lora and facts.lora.rank == 2


# --------------------------------------------------------------------------------------
# A factory's module is anybody's code


def their_model(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """their_model.py in the project's folder."""
    Path("their_model.py").write_text(text)
    monkeypatch.syspath_prepend(".")
    monkeypatch.delitem(sys.modules, "their_model", raising=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def build(:\n", r"SyntaxError: invalid syntax \(their_model\.py, line 1\)"),
        (
            "\nraise RuntimeError('no GPU\\nhere')",
            r"RuntimeError: no GPU here \(their_model, line 2\)",
        ),
        ("import sys\nsys.exit(0)", r"SystemExit: 0 \(their_model, line 2\)"),
        (
            "import no_such_package",
            (
                r"ModuleNotFoundError: No module named 'no_such_package' \(their_model,"
                r" line 1\)"
            ),
        ),
    ],
)
def test_a_factory_s_module_that_fails_at_import_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    their_model(monkeypatch, text)
    with pytest.raises(
        ModelError, match=f"importing their_model failed: {message}\n"
    ) as error:
        run(weights(), model__factory="their_model:build")
    assert "python -c 'import their_model'" in error.value.remedy
    architecture = Architecture("their_model:build", {}, Signature((), (), {}))
    # and where it isn't described
    with pytest.raises(ModelError, match=f"importing their_model failed: {message}\n"):
        build_model(architecture.trusting(OWN_ARTIFACTS))


def test_a_factory_s_module_that_is_not_there_is_asked_for_by_name(run: Run) -> None:
    with pytest.raises(ModelError, match="No module named 'no_such_model'") as error:
        run(weights(), model__factory="no_such_model.inside:build")
    assert "package.module:callable" in error.value.remedy


HOOKS = """
import sys
from checkpoint_release.core.errors import ArchitectureError
from checkpoint_release.core.signature import Signature, TensorSpec

def read_architecture(tensors, overrides):
    {read}
    return {{}}

def signature(kwargs, inputs):
    {sign}
    return Signature((TensorSpec("x", shape=(1,)),), (TensorSpec("y"),), {{}})

def check_weights(kwargs, weights):
    {check}
"""


@pytest.mark.parametrize(
    ("hook", "code", "kind", "message"),
    [
        (
            "read",
            "tensors['absent']",
            ModelError,
            r"read_architecture failed: KeyError: 'absent' \(their_model, line 7",
        ),
        (
            "sign",
            "kwargs.width",
            ModelError,
            "their_model.signature failed: AttributeError",
        ),
        (
            "check",
            "sys.exit(3)",
            ModelError,
            "their_model.check_weights failed: SystemExit: 3",
        ),
        (
            "read",
            "raise ArchitectureError('too few layers')",
            ArchitectureError,
            "^too few layers$",
        ),
        ("read", "return None", ModelError, "read_architecture returned a NoneType"),
    ],
)
def test_a_function_of_the_factory_s_module_that_fails_is_named(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    hook: str,
    code: str,
    kind: type[CheckpointReleaseError],
    message: str,
) -> None:
    their_model(
        monkeypatch,
        HOOKS.format(**{"read": "pass", "sign": "pass", "check": "pass", hook: code}),
    )
    with pytest.raises(kind, match=message):
        run(weights(), model__factory="their_model:build", model__inputs=None)


def test_a_factory_that_ends_the_process_ends_no_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    their_model(monkeypatch, "import sys\ndef build(**kwargs): sys.exit(0)\n")
    with pytest.raises(ModelError, match=r"their_model:build .* failed: SystemExit: 0"):
        build_model(
            Architecture(
                "their_model:build", {}, Signature((), (), {}), trust=OWN_ARTIFACTS
            )
        )


def test_weights_in_8_bits_are_released_as_floats_on_request_alone(run: Run) -> None:
    state_dict = weights()
    name = next(key for key, tensor in state_dict.items() if tensor.ndim == 2)
    module = name.removesuffix(".weight")
    scale = state_dict[name].abs().amax(dim=1)
    rows = (state_dict[name] * 127 / scale[:, None]).round().to(torch.int8)
    quantised = {**state_dict, name: rows, f"{module}.SCB": scale}
    with pytest.raises(ArchitectureError, match="bitsandbytes in 8 bits") as refused:
        run(quantised)
    assert "set checkpoint.dequantise to true" in str(refused.value)
    facts = run(quantised, checkpoint__dequantise=True)
    assert facts.origin.quantised == "bitsandbytes in 8 bits"
    assert not facts.training and "turned into floats" in facts.describe()[1]
    found = written()
    assert found.keys() == state_dict.keys()
    step = (scale / 127)[:, None]
    assert ((found[name] - state_dict[name]).abs() <= step * 0.51).all()
    assert facts.architecture.kwargs == MOTION_ONLY
