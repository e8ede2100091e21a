"""The files of ranks put together, out of pickles that are written down: as torch
writes them, and as it never would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.core.signature import Array
from checkpoint_release.pth.rank_files import rank_files, read_rank_files
from checkpoint_release.pth.records import Checkpoint
from tests.support.containers import Call, Name, pickled, tensor, zipped

TENSORS = "torch.distributed.tensor"
WHOLE: Array = np.arange(35, dtype=np.float32).reshape(5, 7)


class File:
    """What one rank saves; its tensors get storages."""

    def __init__(self) -> None:
        self.storages: dict[str, bytes] = {}

    def tensor(self, array: Array) -> Call:
        key = str(len(self.storages))
        self.storages[key] = array.tobytes()
        strides = tuple(step // array.itemsize for step in array.strides)
        return tensor(key, array.shape, strides, size=array.size)

    def dtensor(
        self,
        array: Array,
        shape: tuple[int, ...],
        placements: Sequence[Any],
        at: Sequence[Any],
        order: Sequence[Any] = (),
    ) -> Call:
        """A block: of a whole of this shape, cut so, at this place of the mesh."""
        spec = {
            "mesh": Call(f"{TENSORS}.DeviceMesh", state={"_coordinate_on_dim": at}),
            "placements": tuple(placements),
            "shard_order": tuple(order),
        }
        fields = {
            "_local_tensor": self.tensor(np.ascontiguousarray(array)),
            "_spec": Call(f"{TENSORS}._dtensor_spec.DTensorSpec", state=spec),
        }
        return block(Name(TENSORS, "DTensor"), shape, (None, fields))

    def sharded(self, shape: tuple[int, ...], *shards: tuple[Array, Any]) -> Call:
        """A ShardedTensor: each of its blocks with its offsets."""
        name = "torch.distributed._shard.sharded_tensor.api"
        parts = []
        for array, offsets in shards:
            place = Call(f"{name}.Metadata", state=(None, {"shard_offsets": offsets}))
            fields = {"tensor": self.tensor(array), "metadata": place}
            parts.append(Call(f"{name}.Shard", state=(None, fields)))
        return block(Name(name, "ShardedTensor"), shape, (parts,))

    def save(self, path: Path, value: Any) -> None:
        path.write_bytes(zipped(pickled(value), self.storages))


def block(kind: Name, shape: tuple[int, ...], state: Any) -> Call:
    """What torch writes for a tensor of a subclass."""
    made_with = (kind, "float32", shape)
    function = Name("torch._utils", "_rebuild_wrapper_subclass")
    return Call("torch._tensor._rebuild_from_type_v2", function, kind, made_with, state)


def shard(dimension: Any) -> Call:
    return Call(f"{TENSORS}.placement_types.Shard", state={"dim": dimension})


def replicate() -> Call:
    return Call(f"{TENSORS}.placement_types.Replicate")


def partial() -> Call:
    return Call(f"{TENSORS}.placement_types.Partial")


def read(folder: Path, values: Sequence[tuple[File, Any]]) -> Checkpoint:
    """What these ranks saved together."""
    names = []
    for rank, (file, value) in enumerate(values):
        names.append(f"model_rank_{rank}.pt")
        file.save(folder / names[-1], value)
    return read_rank_files(folder, rank_files(names))


def read_block(folder: Path, blocks: Sequence[tuple[File, Any]]) -> Array:
    """The tensor that these blocks of ranks make up."""
    found = read(folder, [(file, {"w": each}) for file, each in blocks])
    whole: Array = found.value["w"].numpy()
    return whole


def rows_of(rank: int, *, dimension: Any = 0) -> tuple[File, Call]:
    """Rank 0 has three of the five rows, rank 1 two."""
    file = File()
    own = WHOLE[:3] if rank == 0 else WHOLE[3:]
    return file, file.dtensor(own, (5, 7), [shard(dimension)], [rank])


# ------------------------------------------------------------------------------
# Which files


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["model_rank_0.pt", "model_rank_1.pt"], [0, 1]),
        (["model_rank_1.pt", "model_rank_0.pt", "notes.md"], [0, 1]),
        (["rank0.pt", "rank1.pt", "rank_7.json"], [0, 1]),
        (["w_rank-0.pt", "w_rank-1.pt", "v_rank-0.pt"], [0, 1]),
        (["model_rank_0.pt", "model_rank_1.pt", "optim_rank_0.pt"], [0, 1]),
        (["model_rank_0.pt", "model_rank_2.pt"], [0, 2]),
        (["model_rank_0.pt"], []),
        (["model_rank_0.pt", "other_rank_1.pt"], []),
        (["a_rank_0.pt", "a_rank_1.pt", "b_rank_0.pt", "b_rank_1.pt"], []),
        (["rank_0.txt", "rank_1.txt"], []),
        (["rank_0.safetensors", "rank_1.safetensors"], []),
        (["rank_0.json", "rank_1.json"], []),
        (["rank_1234567.pt", "rank_1234568.pt"], []),
        (["weights_0.pt", "weights_1.pt"], []),
        ([], []),
    ],
)
def test_a_set_of_ranks_files_is_told_by_its_names(
    names: list[str], found: list[int]
) -> None:
    assert sorted(rank_files(names)) == found


def test_the_model_s_files_are_taken_where_others_lie_beside_them() -> None:
    of_both = [
        f"{name}_rank_{rank}.pt" for name in ("optim", "model") for rank in (0, 1)
    ]
    assert rank_files(of_both) == {0: "model_rank_0.pt", 1: "model_rank_1.pt"}
    two_models = [*of_both, "model2_rank_0.pt", "model2_rank_1.pt"]
    assert rank_files(two_models) == {}


def test_a_missing_rank_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_rank_files(tmp_path, {0: "a", 3: "b"})
    assert caught.value.problem == (
        f"{tmp_path} lacks the file of rank 1: 2 of 4 are there"
    )
    assert "the files of all ranks" in str(caught.value.remedy)


# ------------------------------------------------------------------------------
# DTensors


@pytest.mark.parametrize("dimension", [0, -2])
def test_rows_of_two_ranks_are_put_together(tmp_path: Path, dimension: int) -> None:
    blocks = [rows_of(rank, dimension=dimension) for rank in (0, 1)]
    assert (read_block(tmp_path, blocks) == WHOLE).all()


def test_a_mesh_of_two_dimensions_cuts_rows_and_columns(tmp_path: Path) -> None:
    blocks = []
    for rank in range(4):
        file, (row, column) = File(), divmod(rank, 2)
        own = (WHOLE[:3], WHOLE[3:])[row]
        own = (own[:, :4], own[:, 4:])[column]
        placed = [shard(0), shard(1)]
        blocks.append((file, file.dtensor(own, (5, 7), placed, [row, column])))
    assert (read_block(tmp_path, blocks) == WHOLE).all()


def test_one_dimension_may_be_cut_twice(tmp_path: Path) -> None:
    blocks, bounds = [], [0, 2, 3, 4, 5]
    for rank in range(4):
        file = File()
        own = WHOLE[bounds[rank] : bounds[rank + 1]]
        placed, at = [shard(0), shard(0)], [*divmod(rank, 2)]
        order = [Call("torch.ShardOrderEntry", 0, (0, 1))]
        blocks.append((file, file.dtensor(own, (5, 7), placed, at, order)))
    assert (read_block(tmp_path, blocks) == WHOLE).all()


def copies(*differing: int) -> list[tuple[File, Call]]:
    """A mesh of two copies, each cut in two; the blocks of some ranks differ."""
    blocks = []
    for rank in range(4):
        file, (copy, half) = File(), divmod(rank, 2)
        own = (WHOLE[:3], WHOLE[3:])[half] + (rank in differing)
        placed = [replicate(), shard(0)]
        blocks.append((file, file.dtensor(own, (5, 7), placed, [copy, half])))
    return blocks


def test_copies_along_the_mesh_are_one_tensor_and_have_to_be_equal(
    tmp_path: Path,
) -> None:
    assert (read_block(tmp_path, copies()) == WHOLE).all()
    with pytest.raises(CheckpointError, match="disagree on w"):
        read_block(tmp_path, copies(3))


def broken(**changes: Any) -> list[tuple[File, Call]]:
    """Two ranks, of which the second's block is described in another way."""
    file = File()
    described: dict[str, Any] = {
        "array": WHOLE[3:],
        "shape": (5, 7),
        "placements": [shard(0)],
        "at": [1],
        **changes,
    }
    return [rows_of(0), (file, file.dtensor(**described))]


@pytest.mark.parametrize(
    ("blocks", "problem"),
    [
        (broken(shape=(6, 7)), "the ranks disagree on w"),
        (broken(placements=[shard(1)]), "the ranks disagree on w"),
        (broken(placements=[shard(0), shard(1)], at=[1, 0]), "disagree on w"),
        (broken(placements=[shard(0), replicate()], at=[1, 0]), "disagree on w"),
        (broken(placements=[partial()]), "can't be placed: it is placed as Partial"),
        (broken(at=[]), "the block of w can't be placed: it is garbled"),
        (broken(at=[1, 1]), "the block of w can't be placed: it is garbled"),
        (broken(at=[1.0]), "the block of w can't be placed: it is garbled"),
        (broken(placements=[shard("0")]), "can't be placed: it is garbled"),
        (broken(array=WHOLE[3]), "the block of w can't be placed: it is garbled"),
        (
            broken(order=[Call("torch.ShardOrderEntry", 0, (1, 0))]),
            "can't be placed: its dimensions are cut in another order",
        ),
        (broken(order=[5]), "the block of w can't be placed: it is garbled"),
        ([rows_of(0), (File(), 5)], "the block of w can't be placed: a rank lacks it"),
        ([rows_of(0), rows_of(0)], "overlap"),
        ([rows_of(0), broken(array=WHOLE[4:])[1]], "w "),
    ],
)
def test_blocks_that_make_up_no_tensor_are_one_error_that_names_it(
    tmp_path: Path, blocks: Sequence[tuple[File, Any]], problem: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_block(tmp_path, blocks)
    assert caught.value.problem.startswith(f"{tmp_path}: ")
    assert problem in caught.value.problem


def test_what_can_t_be_placed_says_how_to_save_it_whole(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_block(tmp_path, broken(placements=[partial()]))
    assert str(caught.value.remedy).startswith("gather it where it was trained")


# ------------------------------------------------------------------------------
# ShardedTensors


def test_shards_lie_where_they_say_and_a_rank_may_have_none(tmp_path: Path) -> None:
    shape, first, second, none = (5, 7), File(), File(), File()
    left, right = np.ascontiguousarray(WHOLE[:3, :4]), WHOLE[:3, 4:].copy()
    blocks = [
        (first, first.sharded(shape, (right, [0, 4]), (left, [0, 0]))),
        (none, none.sharded(shape)),
        (second, second.sharded(shape, (WHOLE[3:], [3, 0]))),
    ]
    assert (read_block(tmp_path, blocks) == WHOLE).all()


@pytest.mark.parametrize(
    ("offsets", "problem"),
    [
        ([3], "the block of w can't be placed: it is garbled"),
        ([3, 0.0], "the block of w can't be placed: it is garbled"),
        ([2, 0], "overlap"),
        ([4, 0], "w "),
    ],
)
def test_shards_that_lie_elsewhere_are_an_error(
    tmp_path: Path, offsets: list[Any], problem: str
) -> None:
    first, second = File(), File()
    with pytest.raises(CheckpointError) as caught:
        read_block(
            tmp_path,
            [
                (first, first.sharded((5, 7), (WHOLE[:3], [0, 0]))),
                (second, second.sharded((5, 7), (WHOLE[3:], offsets))),
            ],
        )
    assert problem in caught.value.problem


def test_a_tensor_of_which_no_rank_holds_a_block_is_named(tmp_path: Path) -> None:
    blocks = [(file, file.sharded((5, 7))) for file in (File(), File())]
    with pytest.raises(CheckpointError, match="no rank holds a block of w"):
        read_block(tmp_path, blocks)


# ------------------------------------------------------------------------------
# What lies beside blocks


def two(
    folder: Path, first: Mapping[str, Any], second: Mapping[str, Any]
) -> Checkpoint:
    """Two ranks with rows in a dict called m, and these entries beside them."""
    values = []
    for rank, beside in enumerate((first, second)):
        file, rows = rows_of(rank)
        held = {}
        for name, each in beside.items():
            held[name] = file.tensor(each) if isinstance(each, np.ndarray) else each
        outside = file.tensor(np.full(2, rank, np.float32))
        values.append((file, {"m": {"w": rows, **held}, "rng": outside, "step": rank}))
    return read(folder, values)


ONES: Array = np.ones(3, np.float32)


def test_beside_blocks_tensors_are_equal_and_elsewhere_the_first_rank_s_count(
    tmp_path: Path,
) -> None:
    found = two(tmp_path, {"plain": ONES, "n": 1}, {"plain": ONES, "n": 2})
    assert (found.value["m"]["w"].numpy() == WHOLE).all()
    assert (found.value["m"]["plain"].numpy() == ONES).all()
    assert found.value["m"]["n"] == 1 and found.value["step"] == 0
    assert (found.value["rng"].numpy() == 0).all()
    assert found.container == "zip, 2 files of ranks" and found.path == tmp_path
    assert [path.name for path in found.files] == ["model_rank_0.pt", "model_rank_1.pt"]
    assert found.left_out["unknown"], "what blocks are made by, from both files"
    counts = set(found.left_out["unknown"].values())
    assert counts and all(count % 2 == 0 for count in counts)
    other = two(tmp_path, {"plain": ONES}, {"plain": 2 * ONES})
    with pytest.raises(CheckpointError, match=r"disagree on m\.plain"):
        other.value["m"]["plain"].numpy()


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        ({"p": ONES}, {"p": ONES[:2]}, "the ranks disagree on m.p"),
        ({"p": ONES}, {"p": 5}, "the ranks disagree on m.p"),
        ({"p": ONES}, {"q": ONES}, "the ranks hold different tensors in m"),
        ({"p": ONES}, {}, "the ranks hold different tensors in m"),
    ],
)
def test_ranks_that_hold_other_tensors_are_an_error(
    tmp_path: Path, first: Any, second: Any, problem: str
) -> None:
    with pytest.raises(CheckpointError) as caught:
        two(tmp_path, first, second)
    assert caught.value.problem == f"{tmp_path}: {problem}"
    assert "one and the same run" in str(caught.value.remedy)


def test_different_tensors_at_the_top_are_those_of_the_files(tmp_path: Path) -> None:
    (first, rows), (second, others) = rows_of(0), rows_of(1)
    with pytest.raises(CheckpointError, match="different tensors in their files"):
        read(tmp_path, [(first, {"w": rows}), (second, {"v": others})])


def test_where_no_block_is_ranks_may_hold_what_they_like(tmp_path: Path) -> None:
    values = [(File(), {"state": {"a": 1}}), (File(), {"state": {"b": 2}, "more": 3})]
    assert read(tmp_path, values).value == {"state": {"a": 1}}
    values = [(File(), {"state": {"a": 1}}), (File(), {"state": 5})]
    assert read(tmp_path, values).value == {"state": {"a": 1}}


def test_blocks_are_looked_for_twenty_dicts_deep(tmp_path: Path) -> None:
    def nested(rank: int, levels: int) -> tuple[File, Any]:
        file, value = rows_of(rank)
        for _ in range(levels):
            value = {"k": value}  # type: ignore[assignment]
        return file, value

    def innermost(levels: int) -> Any:
        value = read(tmp_path, [nested(rank, levels) for rank in (0, 1)]).value
        while isinstance(value, dict):
            value = value["k"]
        return value

    assert (innermost(21).numpy() == WHOLE).all()
    assert not hasattr(innermost(22), "numpy"), "it stays a record"
