"""DeepSpeed's ZeRO: the float32 weights of all ranks are put together, as by its own
script zero_to_fp32.py does.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoint_release import inspect
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.errors import CheckpointError, CheckpointReleaseError
from checkpoint_release.state_dict.sources import read_source
from tests.pipeline.test_sources import assert_carried, run, weights  # noqa: F401
from tests.support.zero_files import save_zero

Run = Callable[..., CheckpointFacts]
Weights = dict[str, torch.Tensor]
RANKS = 3


def parts() -> tuple[Weights, Weights, Weights]:
    """The model's trained parameters, buffers and frozen parameters."""
    trained, buffers, frozen = {}, {}, {}
    for name, tensor in weights().items():
        if name.endswith("inv_freq"):
            buffers[name] = tensor
        elif name.startswith("text_projection"):
            frozen[name] = tensor
        else:
            trained[name] = tensor
    return trained, buffers, frozen


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_run_with_zero_is_released_in_float32(
    run: Run,  # noqa: F811
    stage: int,
) -> None:
    trained, buffers, frozen = parts()
    step = save_zero(Path("run"), stage, RANKS, trained, buffers=buffers, frozen=frozen)
    for path in ("run", str(step)):
        facts = run(path)
        assert_carried(weights())
        assert facts.training["epoch"] == 3
        assert facts.origin.container.startswith("DeepSpeed")


@pytest.mark.parametrize("stage", [2, 3])
def test_tied_parameters_go_by_all_their_names(tmp_path: Path, stage: int) -> None:
    trained = {"embed.weight": torch.randn(5, 3), "norm.weight": torch.randn(4)}
    save_zero(
        tmp_path / "run", stage, 2, trained, shared={"head.weight": "embed.weight"}
    )
    module = read_source(tmp_path / "run").value["module"]
    assert module.keys() == {*trained, "head.weight"}
    for name in ("embed.weight", "head.weight"):
        assert np.array_equal(module[name].numpy(), trained["embed.weight"].numpy())
    found = inspect(tmp_path / "run")
    assert found.tied == {"module": [["embed.weight", "head.weight"]]}
    assert found.tool == "DeepSpeed 0.19.8"


def test_buffers_in_half_precision_are_widened(tmp_path: Path) -> None:
    buffers = {"mean": torch.tensor([1.5, 2.25]).half(), "seen": torch.tensor(7)}
    save_zero(tmp_path / "run", 2, 2, {"w": torch.randn(3)}, buffers=buffers, groups=1)
    module = read_source(tmp_path / "run").value["module"]
    assert (module["mean"].dtype, module["seen"].dtype) == ("F32", "I64")
    assert module["mean"].numpy().tolist() == [1.5, 2.25]


def test_half_weights_alone_note_the_masters_beside_them(tmp_path: Path) -> None:
    step = save_zero(tmp_path / "run", 2, 2, {"w": torch.randn(3)}, groups=1)
    found = inspect(step / "mp_rank_00_model_states.pt")
    assert found.state_dicts["module"]["w"] == ("BF16", (3,))
    assert "the float32 weights that were trained lie beside this file" in str(found)


# What is refused


def lose_a_rank(step: Path) -> None:
    next(step.glob("*zero_pp_rank_1_*_optim_states.pt")).unlink()


def lose_the_model(step: Path) -> None:
    for path in step.glob("*_model_states.pt"):
        path.unlink()


def add_a_rank(step: Path) -> None:
    first = next(step.glob("*zero_pp_rank_0_*_optim_states.pt"))
    first.with_name(first.name.replace("rank_0_", "rank_3_")).write_bytes(
        first.read_bytes()
    )


def cut_a_file(step: Path) -> None:
    path = next(step.glob("*zero_pp_rank_1_*_optim_states.pt"))
    path.write_bytes(path.read_bytes()[:-100])


def take_another_run(step: Path) -> None:
    other = save_zero(step / "other", 2, 3, {"w": torch.ones(1000)}, groups=1)
    name = "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    (step / name).write_bytes((other / name).read_bytes())


def add_a_tensor_parallel_part(step: Path) -> None:
    first = next(step.glob("mp_rank_00_model_states.pt"))
    (step / "mp_rank_01_model_states.pt").write_bytes(first.read_bytes())


def add_experts(step: Path) -> None:
    torch.save({}, step / "layer_0_expert_1_mp_rank_00_model_states.pt")


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lose_a_rank, "of rank 1 are missing: 2 of 3"),
        (lose_the_model, "no model states"),
        (add_a_rank, "of 4 ranks, and the run had 3"),
        (cut_a_file, "zero_pp_rank_1"),
        (take_another_run, "hold"),
        (add_a_tensor_parallel_part, "tensor parallel"),
        (add_experts, "experts"),
    ],
)
def test_a_broken_run_is_one_error_that_names_the_part(
    tmp_path: Path, breaking: Callable[[Path], None], message: str
) -> None:
    trained = {"w": torch.randn(7, 3), "b": torch.randn(5)}
    step = save_zero(tmp_path / "run", 2, 3, trained, groups=1)
    breaking(step)
    with pytest.raises(CheckpointReleaseError, match=message) as caught:
        read_source(step)
    assert caught.value.remedy


def test_ranks_of_different_steps_are_refused(tmp_path: Path) -> None:
    step = save_zero(tmp_path / "run", 3, 2, {"w": torch.randn(7)}, groups=1)
    path = step / "zero_pp_rank_1_mp_rank_00_model_states.pt"
    state = torch.load(path)
    torch.save(state | {"global_steps": 11}, path)
    with pytest.raises(CheckpointError, match="ranks 0 and 1 differ in global_steps"):
        read_source(step)


def test_one_rank_s_file_is_told_as_that(tmp_path: Path) -> None:
    step = save_zero(tmp_path / "run", 3, 2, {"w": torch.randn(7)}, groups=1)
    with pytest.raises(CheckpointError, match="one rank's file") as caught:
        read_source(step / "zero_pp_rank_1_mp_rank_00_model_states.pt")
    assert str(step) in caught.value.remedy


def test_latest_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    save_zero(tmp_path / "other", 2, 2, {"w": torch.randn(7)}, groups=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/latest").write_text("../other/global_step10")
    with pytest.raises(CheckpointReleaseError, match="leads out of the folder"):
        read_source(tmp_path / "run")
