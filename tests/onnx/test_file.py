"""Weights are streamed into the ONNX file: inside it, or beside it where a file can't
be large enough.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.signature import Arrays
from checkpoint_release.onnx.check import check_onnx
from checkpoint_release.onnx.file import placeholder, write_onnx
from checkpoint_release.runtimes.onnx_skeleton import read_skeleton
from checkpoint_release.runtimes.open import open_runtime
from checkpoint_release.tensors.safetensors import open_safetensors, write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.project import ROOT

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.int64]


def arrays() -> Arrays:
    random = np.random.default_rng(0)
    return {
        "matrix": random.standard_normal((300, 70)).astype(np.float32),
        "transposed": random.standard_normal((9, 4)).astype(np.float32).T,
        "scalar": np.array(3.5, np.float32),
        **{
            np.dtype(dtype).name: random.integers(0, 9, (5, 3)).astype(dtype)
            for dtype in DTYPES
        },
        "last": np.arange(3, dtype=np.float32),
    }


def weights_model(weights: Arrays) -> ModelProto:
    """A model with an initialiser for each weight, without data, and one with data of
    its own.
    """
    nodes = [
        helper.make_node("Identity", [name], [f"{name}/out"])
        for name in [*weights, "own"]
    ]
    outputs = [
        helper.make_tensor_value_info(
            f"{n}/out", helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
        )
        for n, a in weights.items()
    ]
    initializers = [placeholder(name, array) for name, array in weights.items()]
    initializers.insert(2, numpy_helper.from_array(np.array([1, 2], np.int64), "own"))
    graph = helper.make_graph(nodes, "weights", [], outputs, initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def read(path: Path) -> Arrays:
    model = onnx.load(path)
    return {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
    }


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert set(found) == {*expected, "own"}
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("limit", [2**31, 1000], ids=["inside", "beside"])
@pytest.mark.parametrize("source", ["arrays", "a mapped file"])
def test_what_is_written_is_what_onnx_reads(
    tmp_path: Path, limit: int, source: str
) -> None:
    weights = arrays()
    path = tmp_path / "model.onnx"
    if source == "arrays":
        write_onnx(path, weights_model(weights), weights, embedded_limit=limit)
    else:
        file = tmp_path / "weights.safetensors"
        write_safetensors(
            file, {name: Tensor.of_numpy(array) for name, array in weights.items()}
        )
        write_onnx(
            path, weights_model(weights), open_safetensors(file), embedded_limit=limit
        )
    assert_equal(read(path), weights)
    onnx.checker.check_model(str(path), full_check=True)
    assert (tmp_path / "model.onnx_data").exists() == (limit == 1000)


def test_data_beside_the_model_is_aligned_and_in_one_file(tmp_path: Path) -> None:
    weights = arrays()
    write_onnx(
        tmp_path / "model.onnx", weights_model(weights), weights, embedded_limit=1000
    )
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    entries = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
    }
    assert not uses_external_data(
        next(tensor for tensor in model.graph.initializer if tensor.name == "own")
    )
    located = {name: entry for name, entry in entries.items() if entry}
    assert {entry["location"] for entry in located.values()} == {"model.onnx_data"}
    assert all(int(entry["offset"]) % 64 == 0 for entry in located.values())
    assert int(located["matrix"]["length"]) == weights["matrix"].nbytes


@pytest.mark.parametrize("limit", [2**31, 1000])
def test_the_same_weights_give_the_same_bytes_and_others_do_not(
    tmp_path: Path, limit: int
) -> None:
    written = []
    for name, change in (("one", 0), ("two", 0), ("three", 1)):
        folder = tmp_path / name
        folder.mkdir()
        weights = arrays()
        weights["last"] = weights["last"] + np.float32(change)
        write_onnx(
            folder / "model.onnx", weights_model(weights), weights, embedded_limit=limit
        )
        written.append(b"".join(path.read_bytes() for path in sorted(folder.iterdir())))
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (None, "none of the weights"),
        (np.zeros((300, 71), np.float32), r"FLOAT \[300, 70\].*F32 \[300, 71\]"),
        (np.zeros((300, 70), np.float16), r"FLOAT \[300, 70\].*F16 \[300, 70\]"),
    ],
)
def test_a_weight_that_is_not_what_the_graph_says_is_refused(
    tmp_path: Path, wrong: np.ndarray | None, problem: str
) -> None:
    weights = arrays()
    model = weights_model(weights)
    changed = (
        {**weights, "matrix": wrong} if wrong is not None else {"last": weights["last"]}
    )
    with pytest.raises(ExportError, match=problem):
        write_onnx(tmp_path / "model.onnx", model, changed)
    assert not list(tmp_path.iterdir())


def test_past_the_limit_weights_go_into_one_external_file(
    onnx_files: Path, tmp_path: Path
) -> None:
    whole = onnx.load(onnx_files / "model.onnx")
    weights = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in whole.graph.initializer
    }
    skeleton = read_skeleton(onnx_files / "model.onnx")
    write_onnx(tmp_path / "model.onnx", skeleton, weights, embedded_limit=1000)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.onnx",
        "model.onnx_data",
    }
    loaded = onnx.load(tmp_path / "model.onnx")
    assert {t.name: t.raw_data for t in loaded.graph.initializer} == {
        t.name: t.raw_data for t in whole.graph.initializer
    }
    signature = open_runtime("onnx", onnx_files).signature
    check_onnx(tmp_path / "model.onnx", signature, 17, 8)
    (tmp_path / "model.onnx_data").write_bytes(b"short")
    with pytest.raises(ExportError):
        check_onnx(tmp_path / "model.onnx", signature, 17, 8)


def test_the_skeleton_is_the_model_without_data(onnx_files: Path) -> None:
    whole, skeleton = (
        onnx.load(onnx_files / "model.onnx"),
        read_skeleton(onnx_files / "model.onnx", keep=0),
    )
    for tensor in whole.graph.initializer:
        tensor.ClearField("raw_data")
    assert skeleton == whole


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from checkpoint_release.onnx.file import write_onnx
from checkpoint_release.tensors.safetensors import open_safetensors
from tests.onnx.test_file import weights_model
folder = Path(sys.argv[1])
tensors = open_safetensors(folder / "weights.safetensors")
zero = np.float32(0)
empty = {name: np.broadcast_to(zero, item.shape) for name, item in tensors.items()}
model = weights_model(empty)
warm = weights_model({"last": empty["last"]})
write_onnx(folder / "warm.onnx", warm, tensors, embedded_limit=2**31)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_onnx(folder / "model.onnx", model, tensors, embedded_limit=int(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2**31, 1000], ids=["inside", "beside"])
def test_memory_stays_flat_whatever_the_weights_weigh(
    tmp_path: Path, limit: int
) -> None:
    size = 400_000_000
    large = np.arange(size // 8, dtype=np.float32).reshape(-1, 1000)
    weights = {"one": large, "two": large, "last": np.zeros(3, np.float32)}
    write_safetensors(
        tmp_path / "weights.safetensors",
        {name: Tensor.of_numpy(array) for name, array in weights.items()},
    )
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), str(limit)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert int(done.stdout) * 1024 < 0.1 * size
