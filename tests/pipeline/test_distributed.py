"""Distributed checkpoints, written by torch itself on several processes, are read as
torch's own dcp_to_torch_save joins them.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed._shard.metadata import ShardMetadata
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.shard import Shard as LocalShard
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from checkpoint_release import inspect
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.models.stick_figure import build
from checkpoint_release.pth import Inert
from checkpoint_release.state_dict.sources import read_source
from checkpoint_release.tensors.joined import Composed
from checkpoint_release.tensors.tensor import Tensor
from tests.pipeline.test_sources import assert_carried, run, weights  # noqa: F401
from tests.support.distributed import run_ranks
from tests.support.stick_figure import MOTION_ONLY

Run = Callable[..., CheckpointFacts]


def seeded(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator)


def save_cut(folder: str, grid: tuple[int, ...], cuts: dict[str, Any]) -> Any:
    """What a rank does: cut each tensor over a mesh of ranks, and save."""

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", grid)
        state = {
            name: distribute_tensor(tensor, mesh, placements)
            for name, (tensor, placements) in cuts.items()
        }
        value = {
            "model": state,
            "step": 7,
            "optimizer": {"groups": [{"lr": 0.5}, {"lr": 0.25}]},
            "plain": seeded(3),
        }
        save(value, checkpoint_id=folder)

    return work


def assert_same(ours: Any, theirs: Any, path: str = "") -> None:
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, Tensor | Composed), path
        streamed = b"".join(bytes(piece) for piece in ours.chunks())
        assert ours.shape == tuple(theirs.shape), path
        assert streamed == theirs.contiguous().numpy().tobytes(), path
        assert np.array_equal(ours.numpy(), theirs.numpy()), path
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), path
        for key in theirs:
            assert_same(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs), path
        for at, each in enumerate(theirs):
            assert_same(ours[at], each, f"{path}.{at}")
    elif not isinstance(ours, Inert):
        assert ours == theirs, path


def assert_read_as_torch_does(folder: str) -> None:
    dcp_to_torch_save(folder, "joined.pth")
    theirs = torch.load("joined.pth", weights_only=False)
    assert_same(read_source(Path(folder)).value, theirs)


CUTS = {
    "rows": (seeded(7, 4), [Shard(0)]),  # 7 rows on 2 ranks: 4 and 3
    "columns": (seeded(4, 6), [Shard(1)]),
    "everywhere": (seeded(3, 2), [Replicate()]),
    "few": (seeded(1, 5), [Shard(0)]),  # the second rank has none
    "deep": (seeded(2, 3, 8), [Shard(2)]),
    "half": (seeded(6, 2).half(), [Shard(0)]),
}


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(2, save_cut(str(folder / "saved"), (2,), CUTS), folder)
    return folder / "saved"


@pytest.fixture
def two_ranks(
    saved_by_two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved_by_two, "saved")
    return Path("saved")


def test_two_ranks_tensors_are_put_together(two_ranks: Path) -> None:
    assert len(list(two_ranks.glob("*.distcp"))) == 2
    assert_read_as_torch_does("saved")
    found = inspect(two_ranks)
    assert found.state_dicts["model"]["rows"] == ("F32", (7, 4))
    assert found.training["step"] == 7
    assert found.kind == "torch.distributed.checkpoint, 2 files of ranks"


@pytest.mark.slow
def test_four_ranks_cut_along_two_dimensions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cuts = {
        "both": (seeded(5, 7), [Shard(0), Shard(1)]),
        "turned": (seeded(5, 7), [Shard(1), Shard(0)]),
        "one": (seeded(5, 300), [Replicate(), Shard(1)]),
        "large": (seeded(900, 301), [Shard(0), Shard(1)]),
    }
    run_ranks(4, save_cut("saved", (2, 2), cuts), tmp_path)
    assert_read_as_torch_does("saved")


def test_an_fsdp_run_is_released(run: Run, tmp_path: Path) -> None:  # noqa: F811
    def work(rank: int) -> None:
        init_device_mesh("cpu", (2,))
        torch.manual_seed(0)
        model = build(**MOTION_ONLY)
        fully_shard(model)
        save({"model": model.state_dict(), "epoch": 4}, checkpoint_id="fsdp")

    run_ranks(2, work, tmp_path)
    facts = run("fsdp")
    assert_carried(weights())
    assert facts.training["epoch"] == 4
    assert "torch.distributed.checkpoint" in facts.origin.container
    written = load_file("artifacts/checkpoint/weights.safetensors")
    assert len(written) == len(weights())


# Files that each rank saved by torch.save


def save_by_rank(
    folder: Path, grid: tuple[int, ...], cuts: dict[str, Any], *, apart: float = 0
) -> Any:
    """What a rank does: cut each tensor over a mesh of ranks, and save its blocks."""

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", grid)
        state = {
            name: distribute_tensor(tensor, mesh, placements)
            for name, (tensor, placements) in cuts.items()
        }
        plain = seeded(3) + apart * rank
        value = {"model": {**state, "plain": plain}, "rng": torch.tensor(rank)}
        count = torch.distributed.get_world_size()
        torch.save(value, folder / f"model_world_size_{count}_rank_{rank}.pt")
        torch.save({"step": rank}, folder / f"extra_world_size_{count}_rank_{rank}.pt")

    return work


def whole(cuts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, (tensor, _) in cuts.items()} | {"plain": seeded(3)}


@pytest.fixture(scope="module")
def files_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    run_ranks(2, save_by_rank(folder, (2,), CUTS), folder)
    return folder


def test_blocks_in_the_ranks_own_files_are_put_together(files_of_two: Path) -> None:
    read = read_source(files_of_two)
    assert_same(read.value["model"], whole(CUTS))
    assert not read.left_out["dangerous"]
    assert read.container == "zip, 2 files of ranks"
    found = inspect(files_of_two)
    assert found.state_dicts["model"]["columns"] == ("F32", (4, 6))


@pytest.mark.slow
def test_blocks_of_four_ranks_cut_along_two_dimensions(tmp_path: Path) -> None:
    cuts = {
        "both": (seeded(5, 7), [Shard(0), Shard(1)]),
        "twice": (seeded(9, 2), [Shard(0), Shard(0)]),
        "copies": (seeded(6, 3), [Replicate(), Shard(0)]),
    }
    run_ranks(4, save_by_rank(tmp_path, (2, 2), cuts), tmp_path)
    assert_same(read_source(tmp_path).value["model"], whole(cuts))


def test_one_rank_s_file_leads_to_the_folder(files_of_two: Path) -> None:
    from checkpoint_release.state_dict.model_weights import read_model_weights

    path = files_of_two / "model_world_size_2_rank_0.pt"
    with pytest.raises(CheckpointReleaseError, match="is a block of a tensor") as got:
        read_model_weights(read_source(path))
    assert "the files of all ranks" in got.value.remedy


@pytest.fixture
def own_files(files_of_two: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(files_of_two, tmp_path / "own"))


def test_ranks_that_disagree_are_found_when_the_copies_are_read(
    tmp_path: Path,
) -> None:
    cuts = {"rows": CUTS["rows"]}
    run_ranks(2, save_by_rank(tmp_path, (2,), cuts, apart=1.0), tmp_path)
    tensor = read_source(tmp_path).value["model"]["plain"]
    with pytest.raises(CheckpointReleaseError, match=r"disagree on model\.plain"):
        tensor.numpy()


def test_a_missing_rank_s_file_is_named(own_files: Path) -> None:
    (own_files / "model_world_size_2_rank_0.pt").rename(
        own_files / "model_world_size_2_rank_2.pt"
    )
    with pytest.raises(CheckpointReleaseError, match="lacks the file of rank 0"):
        read_source(own_files)


# ShardedTensors, which FSDP's sharded state dicts held before there were DTensors

ROWS, COLUMNS = seeded(7, 4), seeded(3, 6)


def block(rank: int, whole: torch.Tensor, start: int, stop: int, along: int) -> Any:
    """A rank's block of a tensor: [start, stop) along one dimension."""
    own = whole.narrow(along, start, stop - start).clone()
    offsets = [0, 0]
    offsets[along] = start
    place = ShardMetadata(offsets, list(own.shape), f"rank:{rank}/cpu")
    return LocalShard(own, place)


def save_sharded_tensors(rank: int) -> None:
    """Rows cut as 4 and 3; columns of which the first rank has two blocks, and the
    second has none.
    """
    rows = [block(0, ROWS, 0, 4, 0)] if rank == 0 else [block(1, ROWS, 4, 7, 0)]
    columns = [block(0, COLUMNS, 0, 2, 1), block(0, COLUMNS, 2, 6, 1)]
    if rank:
        columns = []
    state = {
        "columns": ShardedTensor._init_from_local_shards(columns, 3, 6),
        "rows": ShardedTensor._init_from_local_shards(rows, 7, 4),
        "plain": seeded(3),
    }
    torch.save({"model": state, "epoch": 3}, f"model_rank{rank}.pt")


@pytest.fixture(scope="module")
def sharded_tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_ranks(2, save_sharded_tensors, folder)
    return folder


def test_sharded_tensors_are_clean_and_put_together(sharded_tensors: Path) -> None:
    read = read_source(sharded_tensors)
    expected = {"rows": ROWS, "columns": COLUMNS, "plain": seeded(3)}
    assert_same(read.value["model"], expected)
    assert not read.left_out["dangerous"] and not read.left_out["unknown"]
    assert inspect(sharded_tensors).state_dicts["model"]["columns"] == ("F32", (3, 6))


def test_sharded_tensors_of_which_a_rank_is_missing_leave_a_hole(
    sharded_tensors: Path, tmp_path: Path
) -> None:
    for rank, copied in ((0, 0), (1, 1), (1, 2)):
        source = sharded_tensors / f"model_rank{rank}.pt"
        shutil.copy(source, tmp_path / f"model_rank{copied}.pt")
    with pytest.raises(CheckpointReleaseError, match="rows has parts that overlap"):
        read_source(tmp_path)
    shutil.copy(tmp_path / "model_rank1.pt", tmp_path / "model_rank0.pt")
    (tmp_path / "model_rank2.pt").unlink()
    with pytest.raises(CheckpointReleaseError, match="no rank holds a block of model"):
        read_source(tmp_path)


# What is refused


def edit_metadata(folder: Path, change: Callable[[Any], None]) -> None:
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


def lose_a_rank(folder: Path) -> None:
    next(folder.glob("__1_*")).unlink()


def cut_a_rank(folder: Path) -> None:
    path = next(folder.glob("__1_*"))
    path.write_bytes(path.read_bytes()[:-100])


def lose_the_metadata(folder: Path) -> None:
    (folder / ".metadata").unlink()


def cut_the_metadata(folder: Path) -> None:
    path = folder / ".metadata"
    path.write_bytes(path.read_bytes()[:-100])


def leave_a_hole(folder: Path) -> None:
    edit_metadata(
        folder, lambda data: data.state_dict_metadata["model.rows"].chunks.pop()
    )


def overlap(folder: Path) -> None:
    def change(data: Any) -> None:
        tensor = data.state_dict_metadata["model.rows"]
        second = tensor.chunks[1]
        old = second.offsets
        second.offsets = torch.Size([2, 0])
        tensor.size = torch.Size([7, 4])
        for index in list(data.storage_data):
            if index.fqn == "model.rows" and index.offset == old:
                info = data.storage_data.pop(index)
                data.storage_data[type(index)(index.fqn, second.offsets)] = info

    edit_metadata(folder, change)


def lead_out(folder: Path) -> None:
    def change(data: Any) -> None:
        for info in data.storage_data.values():
            info.relative_path = "../elsewhere.distcp"

    edit_metadata(folder, change)


def take_another_run(folder: Path) -> None:
    shutil.copy(next(folder.glob("__0_*")), next(folder.glob("__1_*")))


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lose_a_rank, r"__1_0\.distcp is missing"),
        (cut_a_rank, r"__1_0\.distcp"),
        (lose_the_metadata, "still being written, or incomplete"),
        (cut_the_metadata, "pickle is damaged"),
        (leave_a_hole, r"model\.rows has holes: its parts hold 16 of its 28"),
        (overlap, r"model\.rows has parts that overlap"),
        (lead_out, "leads out of the folder"),
        (take_another_run, r"__1_0\.distcp"),
    ],
)
def test_a_broken_run_is_one_error_that_names_the_part(
    two_ranks: Path, breaking: Callable[[Path], None], message: str
) -> None:
    breaking(two_ranks)
    with pytest.raises(CheckpointReleaseError, match=message) as caught:
        read_source(two_ranks)
    assert caught.value.remedy


def test_one_file_of_a_run_is_told_as_that(two_ranks: Path) -> None:
    with pytest.raises(CheckpointReleaseError, match="one file of a distributed") as e:
        read_source(next(two_ranks.glob("*.distcp")))
    assert "give the folder saved" in e.value.remedy


def test_code_in_the_metadata_is_named_and_not_run(
    two_ranks: Path, tmp_path: Path
) -> None:
    import os

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "canary"),)

    path = two_ranks / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    metadata.storage_meta = Payload()
    path.write_bytes(pickle.dumps(metadata))
    found = inspect(two_ranks)
    assert list(found.unsafe_globals) == ["posix.mkdir"]
    assert not (tmp_path / "canary").exists()
