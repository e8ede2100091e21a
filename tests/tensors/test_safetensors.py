"""Files that the safetensors library reads bit for bit, written in pieces and always
the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_release.core.dtypes import DTYPES
from checkpoint_release.core.errors import ArtifactError, CheckpointError
from checkpoint_release.pth import read_checkpoint
from checkpoint_release.tensors.safetensors import (
    open_safetensors,
    open_sharded,
    write_safetensors,
    write_shards,
)
from checkpoint_release.tensors.tensor import Tensor
from checkpoint_release.tensors.wrappers import Computed

ROOT = Path(__file__).parents[2]
TORCH: dict[str, torch.dtype] = {
    dtype.name: getattr(torch, dtype.torch_name)
    for dtype in DTYPES.values()
    if dtype.in_safetensors and dtype.torch_name
}


def numbers(dtype: str, *shape: int) -> torch.Tensor:
    """Every second byte of the result is its position."""
    data = np.arange(int(np.prod(shape)) * TORCH[dtype].itemsize).astype(np.uint8)
    if dtype == "BOOL":
        return torch.from_numpy(data % 3 == 0).reshape(shape)
    return (
        torch.from_numpy(data).view(TORCH[dtype]).reshape(shape)
        if data.size
        else torch.empty(shape, dtype=TORCH[dtype])
    )


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Any:
    """The tensors as records, by way of a checkpoint."""
    torch.save(tensors, path)
    return read_checkpoint(path).value


ALL = {f"layer.{dtype}.wéight": numbers(dtype, 2, 3) for dtype in TORCH}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_file_has_the_bytes_that_the_library_writes(
    metadata: dict[str, str] | None, tmp_path: Path
) -> None:
    safetensors.torch.save_file(ALL, tmp_path / "theirs", metadata=metadata)
    write_safetensors(tmp_path / "ours", saved(tmp_path / "a.pth", ALL), metadata)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(
            st.sampled_from(sorted(TORCH)), st.lists(st.integers(0, 5), max_size=3)
        ),
        max_size=6,
    )
)
def test_random_files_have_the_bytes_that_the_library_writes(
    tensors: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    values = {name: numbers(dtype, *shape) for name, (dtype, shape) in tensors.items()}
    theirs = safetensors.torch.save(values)
    write_safetensors(folder / "ours", saved(folder / "a.pth", values))
    assert (folder / "ours").read_bytes() == theirs


def test_a_tensor_that_is_not_contiguous_is_written_in_order(tmp_path: Path) -> None:
    wide = torch.arange(3_000_000.0).reshape(1000, 3000)
    values = {
        "transposed": wide.T,
        "part": wide[5:900, ::7],
        "long": torch.arange(2_000_000).expand(2, -1),
    }
    write_safetensors(tmp_path / "ours", saved(tmp_path / "a.pth", values))
    read = safetensors.torch.load_file(tmp_path / "ours")
    assert all(torch.equal(read[name], values[name]) for name in values)


def test_metadata_is_ordered_and_bytes_do_not_depend_on_the_order_of_anything(
    tmp_path: Path,
) -> None:
    code = (
        "import sys; from pathlib import Path; import numpy as np; from"
        " checkpoint_release.tensors.tensor import Tensor\nfrom"
        " checkpoint_release.tensors.safetensors import write_safetensors\nnames ="
        " ['b', 'a', 'c',"
        " 'd'][::int(sys.argv[2])]\nwrite_safetensors(Path(sys.argv[1]), {n:"
        " Tensor.of_numpy(np.ones(2)) for n in names}, {n: n for n in names})"
    )
    files = []
    for seed, order in (("0", "1"), ("1", "-1")):
        path = tmp_path / seed
        subprocess.run(
            [sys.executable, "-c", code, path, order],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed},
            check=True,
        )
        files.append(path.read_bytes())
    assert files[0] == files[1]
    with safetensors.safe_open(tmp_path / "0", "np") as file:
        assert file.metadata() == {name: name for name in "abcd"}


def test_what_the_library_writes_is_mapped_with_its_dtypes(tmp_path: Path) -> None:
    safetensors.torch.save_file(
        ALL, tmp_path / "a", metadata={"format": "pt", "by": "me"}
    )
    file = open_safetensors(tmp_path / "a")
    assert file.metadata == {"format": "pt", "by": "me"}
    assert list(file) == sorted(ALL)
    for name, value in ALL.items():
        assert (file[name].dtype, file[name].shape) == (name.split(".")[1], (2, 3))
        array = file[name].numpy()
        assert (
            array.dtype == DTYPES[file[name].dtype].numpy and not array.flags.writeable
        )
        assert array.tobytes() == value.view(torch.uint8).numpy().tobytes()


def test_computed_tensors_are_written_like_any_other(tmp_path: Path) -> None:
    half = Computed("F16", (2, 2), lambda: np.ones((2, 2), np.float16))
    write_safetensors(tmp_path / "a", {"half": half})
    assert safetensors.torch.load_file(tmp_path / "a")["half"].dtype == torch.float16
    with pytest.raises(TypeError, match="computed float32"):
        write_safetensors(
            tmp_path / "a",
            {"half": Computed("F16", (2,), lambda: np.ones(2, np.float32))},
        )


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"w": Tensor.of_numpy(np.ones(2, np.complex128))},
            "'w' has dtype C128, which safetensors can't hold",
        ),
        ({"__metadata__": Tensor.of_numpy(np.ones(2))}, "__metadata__"),
        ({"\ud800": Tensor.of_numpy(np.ones(2))}, "not valid Unicode"),
        ({"w": Computed("F32", (1 << 60,), lambda: np.ones(1))}, "its disk has"),
    ],
)
def test_what_safetensors_can_not_hold_is_one_clear_error(
    tensors: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        write_safetensors(tmp_path / "a", tensors)
    assert not (tmp_path / "a").exists()


# Shards


# 2000 bytes each
WEIGHTS = {f"layer.{n}.weight": torch.full((50, 10), float(n)) for n in range(7)}


@pytest.mark.parametrize("size", [1, 2000, 4500, 6000, "5KB", "1MB"])
def test_shards_are_those_of_the_hub_s_own_function(
    size: int | str, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    huggingface_hub.save_torch_state_dict(
        dict(WEIGHTS), tmp_path / "theirs", max_shard_size=size
    )
    names = write_shards(
        tmp_path / "ours", saved(tmp_path / "a.pth", WEIGHTS), size, {"format": "pt"}
    )
    theirs = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    ours = {name: (tmp_path / "ours" / name).read_bytes() for name in names}
    assert ours.keys() == theirs.keys()
    assert {n: b for n, b in ours.items() if n.endswith("safetensors")} == {
        n: b for n, b in theirs.items() if n.endswith("safetensors")
    }
    for name in ours.keys() - {n for n in ours if n.endswith("safetensors")}:
        assert json.loads(ours[name]) == json.loads(theirs[name])


def test_shards_are_opened_as_one_and_by_the_hub(tmp_path: Path) -> None:
    write_shards(tmp_path, saved(tmp_path / "a.pth", WEIGHTS), 4500, {"format": "pt"})
    file = open_sharded(tmp_path)
    assert list(file) == sorted(WEIGHTS) and file.metadata == {"format": "pt"}
    assert all(
        file[name].numpy().tolist() == WEIGHTS[name].tolist() for name in WEIGHTS
    )

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.ModuleList(
                [torch.nn.Linear(10, 50, bias=False) for _ in range(7)]
            )

    model = Model()
    huggingface_hub.load_torch_model(model, tmp_path, strict=True)
    assert all(
        torch.equal(value, WEIGHTS[name]) for name, value in model.state_dict().items()
    )


def test_a_shard_that_is_missing_changed_or_foreign_is_one_clear_error(
    tmp_path: Path,
) -> None:
    names = list(write_shards(tmp_path, saved(tmp_path / "a.pth", WEIGHTS), 4500))
    first, second, index = (
        tmp_path / names[0],
        tmp_path / names[1],
        tmp_path / names[-1],
    )
    content, text = first.read_bytes(), index.read_text()
    first.write_bytes(second.read_bytes())
    with pytest.raises(ArtifactError, match="places in"):
        open_sharded(tmp_path)
    first.write_bytes(content)
    index.write_text(text.replace("layer.0.weight", "layer.00.weight"))
    with pytest.raises(ArtifactError, match=r"layer\.0\.weight"):
        open_sharded(tmp_path)
    index.write_text(text.replace(names[0], "../" + names[0]))
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        open_sharded(tmp_path)
    index.write_text(text)
    first.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        open_sharded(tmp_path)


# Damage


def header(entries: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(
    start: int, stop: int, dtype: str = "U8", shape: Any = None
) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [stop - start] if shape is None else shape,
        "data_offsets": [start, stop],
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\0\0",
        (1 << 62).to_bytes(8, "little") + b"{}",
        header(b"{"),
        header(b"\xff\xff"),
        header(b"[" * 100_000),
        header({"a": entry(0, 4)}, b"123"),
        header({"a": entry(0, 4)}, b"12345"),
        header({"a": entry(0, 4), "b": entry(2, 6)}, b"123456"),
        header({"a": entry(1, 4)}, b"1234"),
        header({"a": entry(0, 4, shape=[5])}, b"1234"),
        header({"a": entry(0, 4, shape=[-2, -2])}, b"1234"),
        header({"a": entry(0, 4, shape=[2.0, 2])}, b"1234"),
        header({"a": entry(0, 4, "U9")}, b"1234"),
        header({"a": {"dtype": "U8"}}),
        header(
            b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
        ),
    ],
)
def test_a_broken_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        open_safetensors(tmp_path / "a")


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="can't be read: No such file"):
        open_safetensors(tmp_path / "a")


MEASURED = """
import sys
from pathlib import Path
from tests.support.watched import peak
from checkpoint_release.pth import read_checkpoint
from checkpoint_release.tensors.safetensors import write_safetensors
before = peak()
tensors = read_checkpoint(Path(sys.argv[1])).value
if sys.argv[3] == "streamed":
    write_safetensors(Path(sys.argv[2]), tensors)
else:
    pieces = [tensor.numpy().tobytes() for tensor in tensors.values()]
    Path(sys.argv[2]).write_bytes(b"".join(pieces))
print(peak() - before)
"""


def peak(folder: Path, how: str) -> int:
    command = [
        sys.executable,
        "-c",
        MEASURED,
        str(folder / "a.pth"),
        str(folder / "out"),
        how,
    ]
    return int(
        subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    )


@pytest.mark.parametrize(
    ("count", "size"),
    [(12, 1 << 20), (640, 20_000)],
    ids=["large tensors", "many tensors"],
)
@pytest.mark.parametrize("zip_container", [True, False])
def test_memory_stays_flat_however_large_the_checkpoint(
    count: int, size: int, zip_container: bool, tmp_path: Path
) -> None:
    """At most a tenth of the file above the interpreter."""
    tensors = {f"w{n}": torch.zeros(size, dtype=torch.float64) for n in range(count)}
    torch.save(
        tensors, tmp_path / "a.pth", _use_new_zipfile_serialization=zip_container
    )
    assert peak(tmp_path, "streamed") < (tmp_path / "a.pth").stat().st_size / 10


@pytest.mark.parametrize(
    "view",
    [lambda whole: whole[:, 3:], lambda whole: whole.reshape(-1)[::2]],
    ids=["columns", "every second value"],
)
def test_memory_stays_flat_for_a_large_view(view: Any, tmp_path: Path) -> None:
    torch.save(
        {"w": view(torch.zeros(1 << 17, 160, dtype=torch.float64))}, tmp_path / "a.pth"
    )
    assert peak(tmp_path, "streamed") < (tmp_path / "a.pth").stat().st_size / 10


def test_the_measurement_sees_a_file_that_is_read_whole(tmp_path: Path) -> None:
    """The control of the test above."""
    torch.save({"w": torch.zeros(1 << 22, dtype=torch.float64)}, tmp_path / "a.pth")
    assert peak(tmp_path, "all at once") > (tmp_path / "a.pth").stat().st_size


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 400), byte=st.integers(0, 255), insert=st.booleans())
def test_a_file_with_one_byte_changed_is_read_or_refused(
    at: int, byte: int, insert: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(
        safetensors.torch.save(
            {"a": torch.ones(3), "b": torch.ones(2, 2), "c": torch.ones(0)}
        )
    )
    at %= len(data)
    data[at : at + (not insert)] = bytes([byte])
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    path.write_bytes(data)
    try:
        file = open_safetensors(path)
    except ArtifactError:
        return
    for tensor in file.values():
        assert tensor.numpy().nbytes == tensor.nbytes


def test_a_header_that_is_no_object_is_refused(tmp_path: Path) -> None:
    for text in (
        b"[]",
        b"1",
        b'"a"',
        b"null",
        b'{"__metadata__": 1}',
        b'{"a": 1}',
        b'{"a": []}',
    ):
        (tmp_path / "a").write_bytes(header(text))
        with pytest.raises(ArtifactError):
            open_safetensors(tmp_path / "a")


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"x\.safetensors can't be written: No such file"
    ):
        write_safetensors(tmp_path / "no/x.safetensors", {})
