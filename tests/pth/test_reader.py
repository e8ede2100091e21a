"""What torch.save writes is read as torch.load reads it, bit for bit; torch.load is the
oracle throughout.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import io
import os
import pathlib
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth import Inert, read_checkpoint, to_json_value
from checkpoint_release.pth.archive import Archive
from tests.support.containers import (
    Call,
    Name,
    Raw,
    legacy,
    opcodes,
    pickled,
    storage,
    tensor,
    zipped,
)
from tests.support.torch_values import DTYPES, assert_same

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("*/checkpoint.pth"))


def assert_read_as_torch_does(
    path: Path, value: Any, *, zip_container: bool = True
) -> Any:
    torch.save(value, path, _use_new_zipfile_serialization=zip_container)
    checkpoint = read_checkpoint(path)
    assert checkpoint.container == ("zip" if zip_container else "legacy")
    # torch itself can't load some of the dtypes that it saves in the legacy format
    # (uint16 and others newer than it)
    assert_same(
        checkpoint.value,
        torch.load(path, weights_only=False) if zip_container else value,
    )
    return checkpoint


# Random nests


@st.composite
def bases(draw: st.DrawFn) -> torch.Tensor:
    """A one-dimensional tensor of random bits: NaNs with payloads, infinities and
    subnormals among them.
    """
    dtype = draw(st.sampled_from(list(DTYPES)))
    count = draw(st.integers(0, 24))
    data = draw(
        st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)
    )
    if dtype == torch.bool:
        return torch.tensor([byte % 2 == 1 for byte in data], dtype=torch.bool)
    return (
        torch.frombuffer(bytearray(data), dtype=dtype)
        if count
        else torch.empty(0, dtype=dtype)
    )


@st.composite
def views(draw: st.DrawFn, base: torch.Tensor) -> torch.Tensor:
    """A strided look at part of a base: transposed, overlapping, expanded, empty, a
    scalar, conjugated, a Parameter.
    """
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    strides = draw(
        st.lists(st.integers(0, 6), min_size=len(shape), max_size=len(shape))
    )
    offset = draw(st.integers(0, 8))
    last = offset + sum(
        (size - 1) * step for size, step in zip(shape, strides, strict=True)
    )
    if 0 in shape or last >= base.numel():
        view = base if draw(st.booleans()) else base[:0].reshape(0, 1).expand(0, 3)
    else:
        view = base.as_strided(shape, strides, offset)
    if view.is_complex() and view.dtype != torch.complex32:
        view = draw(st.sampled_from([view, view.conj(), view.imag, view.conj().imag]))
    if view.is_floating_point() and view.dtype.itemsize > 1 and draw(st.booleans()):
        view = torch.nn.Parameter(view.detach(), requires_grad=draw(st.booleans()))
    return view


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.binary(max_size=8).map(bytearray),
    st.datetimes(),
    st.dates(),
    st.times(),
    st.just(torch.Size([2, 3])),
    st.just(torch.device("cuda:1")),
    st.just(pathlib.PurePosixPath("runs/a.pth")),
)
NUMPY = st.sampled_from(
    [
        "?",
        "<i1",
        "<i2",
        "<i4",
        "<i8",
        "<u1",
        "<u8",
        "<f2",
        "<f4",
        "<f8",
        "<c8",
        "<c16",
        ">i4",
        ">f8",
    ]
)
KEYS = st.one_of(
    st.text(max_size=6),
    st.integers(),
    st.booleans(),
    st.none(),
    st.tuples(st.integers(), st.text(max_size=2)),
)


@st.composite
def nests(draw: st.DrawFn) -> Any:
    pool = draw(st.lists(bases(), min_size=1, max_size=3))
    leaves = st.one_of(
        SCALARS,
        st.sampled_from(pool).flatmap(views),
        NUMPY.map(lambda code: np.ones((), code)[()]),
    )
    arrays = NUMPY.map(lambda code: np.arange(6).astype(code).reshape(2, 3))

    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.lists(inner, max_size=3).map(collections.deque),
            st.dictionaries(KEYS, inner, max_size=4),
            st.dictionaries(KEYS, inner, max_size=4).map(collections.OrderedDict),
            st.dictionaries(KEYS, inner, max_size=3).map(
                lambda items: collections.defaultdict(list, items)
            ),
            st.dictionaries(KEYS, st.integers(), max_size=3).map(collections.Counter),
            st.sets(st.text(max_size=3), max_size=3),
            st.frozensets(st.integers(), max_size=3),
            arrays,
            arrays.map(np.asfortranarray),
        )

    return draw(
        st.dictionaries(
            st.text(max_size=6),
            st.recursive(leaves, containers, max_leaves=12),
            max_size=4,
        )
    )


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("zip_container", [True, False])
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=nests())
def test_random_nests_are_read_as_torch_reads_them(
    value: Any, zip_container: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"nest-{zip_container}.pth"
    try:
        torch.save(value, path)
    except RuntimeError as error:  # a complex tensor and its imaginary part, say
        assume("view the same data as different types" not in str(error))
        raise
    assert_read_as_torch_does(path, value, zip_container=zip_container)


def test_the_comparison_sees_one_changed_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the tests above."""
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.arange(100.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(100, dtype="<f4").tobytes()) + 57] ^= 1
    theirs = torch.load(path)
    path.write_bytes(data)
    # without checksums: the reader would see it first
    monkeypatch.setattr(Archive, "has_checksums", False)
    with pytest.raises(AssertionError):
        assert_same(read_checkpoint(path).value, theirs)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.parent.name)
def test_every_fixture_is_read_as_torch_reads_it(path: Path, tmp_path: Path) -> None:
    value = torch.load(path, weights_only=False)
    assert_same(read_checkpoint(path).value, value)
    assert_read_as_torch_does(tmp_path / "legacy.pth", value, zip_container=False)


@pytest.mark.parametrize("zip_container", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(
    protocol: int, zip_container: bool, tmp_path: Path
) -> None:
    value = {
        "weight": torch.ones(3),
        "lr": np.float64(0.1),
        "data": b"\xff",
        "array": np.arange(5.0),
        "s": {1, 2},
    }
    path = tmp_path / "a.pth"
    torch.save(
        value,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zip_container,
    )
    assert_same(read_checkpoint(path).value, value)


@pytest.mark.parametrize("zip_container", [True, False])
def test_tied_tensors_and_views_share_their_storage(
    zip_container: bool, tmp_path: Path
) -> None:
    base = torch.arange(12.0)
    value = {"a": base, "b": base, "view": base[4:], "other": torch.arange(12.0)}
    torch.save(value, tmp_path / "a.pth", _use_new_zipfile_serialization=zip_container)
    read = read_checkpoint(tmp_path / "a.pth").value
    assert read["a"].storage is read["b"].storage is read["view"].storage
    assert read["other"].storage.key != read["a"].storage.key
    assert read["view"].offset == 4


def test_an_ending_makes_no_difference(tmp_path: Path) -> None:
    for ending in ("pt", "bin", "ckpt", "tar", "zip", "model"):
        assert_read_as_torch_does(
            tmp_path / f"weights.{ending}", {"weight": torch.ones(2)}
        )


def test_weights_saved_on_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    on_gpu = Raw(
        opcodes(("storage", Name("torch.cuda", "FloatStorage"), "0", "cuda:0", 4))
        + b"Q"
    )
    rebuilt = Call(
        "torch._utils._rebuild_tensor_v2",
        on_gpu,
        0,
        (4,),
        (1,),
        False,
        Call("collections.OrderedDict"),
    )
    for container in (
        zipped(pickled({"weight": rebuilt})),
        legacy({"weight": rebuilt}),
    ):
        (tmp_path / "gpu.pth").write_bytes(container)
        checkpoint = read_checkpoint(tmp_path / "gpu.pth")
        assert checkpoint.value["weight"].numpy().tolist() == [1, 2, 3, 4]
        assert checkpoint.left_out == {"harmless": {}, "unknown": {}, "dangerous": {}}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("FloatStorage", "f"),
        ("DoubleStorage", "d"),
        ("ShortStorage", "h"),
        ("ComplexFloatStorage", "f"),
    ],
)
def test_big_endian_files_are_swapped_as_torch_swaps_them(
    kind: str, code: str, tmp_path: Path
) -> None:
    parts = 8 if kind.startswith("Complex") else 4
    data = struct.pack(f">{parts}{code}", *range(parts))
    rebuilt = Call(
        "torch._utils._rebuild_tensor_v2",
        storage("0", kind),
        1,
        (2, 2),
        (1, 1),
        False,
        Call("collections.OrderedDict"),
    )
    path = tmp_path / "big.pth"
    path.write_bytes(
        zipped(pickled({"weight": rebuilt}), {"0": data}, {"archive/byteorder": b"big"})
    )
    # torch's own reader is stricter about the archive than about its contents: let it
    # write the honest twin
    little = np.frombuffer(data, f">{code}").astype(f"<{code}")
    twin = torch.from_numpy(little.view("<c8") if parts == 8 else little).as_strided(
        (2, 2), (1, 1), 1
    )
    assert_same(read_checkpoint(path).value["weight"], twin)
    path.write_bytes(
        zipped(
            pickled({"weight": rebuilt}), {"0": data}, {"archive/byteorder": b"little"}
        )
    )
    with pytest.raises(AssertionError):
        assert_same(read_checkpoint(path).value["weight"], twin)


def test_what_old_torches_and_python_2_wrote_is_read(tmp_path: Path) -> None:
    old = Call("torch._utils._rebuild_tensor", storage("0"), 0, (2, 2), (2, 1))
    python2 = Raw(b"}(U\x05epochK\x03U\x04nameU\x02\xc3\xa9U\x03rawU\x01\xffu")
    moved = Call(
        "torch.tensor._rebuild_from_type",
        Name("torch._utils", "_rebuild_tensor"),
        Name("torch", "Tensor"),
        (storage("0"), 0, (4,), (1,)),
        {},
    )
    (tmp_path / "old.pth").write_bytes(
        legacy({"weight": old, "facts": python2, "moved": moved})
    )
    value = read_checkpoint(tmp_path / "old.pth").value
    assert value["weight"].numpy().tolist() == [[1, 2], [3, 4]]
    assert value["moved"].numpy().tolist() == [1, 2, 3, 4]
    assert value["facts"] == {"epoch": 3, "name": "é", "raw": b"\xff"}


def test_a_view_within_a_legacy_storage_keeps_its_place(tmp_path: Path) -> None:
    view = Raw(
        opcodes(("storage", Name("torch", "FloatStorage"), "0", "cpu", 4, ("1", 1, 2)))
        + b"Q"
    )
    whole = Call(
        "torch._utils._rebuild_tensor_v2",
        view,
        0,
        (2,),
        (1,),
        False,
        Call("collections.OrderedDict"),
    )
    (tmp_path / "view.pth").write_bytes(legacy({"weight": whole}))
    assert read_checkpoint(tmp_path / "view.pth").value["weight"].numpy().tolist() == [
        2,
        3,
    ]
    beyond = Call(
        "torch._utils._rebuild_tensor_v2",
        view,
        0,
        (3,),
        (1,),
        False,
        Call("collections.OrderedDict"),
    )
    (tmp_path / "view.pth").write_bytes(legacy({"weight": beyond}))
    with pytest.raises(CheckpointError, match="reaches 12 bytes into a storage of 8"):
        read_checkpoint(tmp_path / "view.pth")


def test_a_checkpoint_packed_again_with_compression_is_read(tmp_path: Path) -> None:
    (tmp_path / "packed.pth").write_bytes(
        zipped(pickled({"weight": tensor()}), method=8)
    )
    assert read_checkpoint(tmp_path / "packed.pth").value[
        "weight"
    ].numpy().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
        (lambda: torch.empty(3, device="meta"), "meta"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "quantized",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_can_not_be_exported_stay_records_that_say_why(
    value: Callable[[], torch.Tensor], reason: str, tmp_path: Path
) -> None:
    torch.save({"weight": torch.ones(2), "odd": value()}, tmp_path / "odd.pth")
    read = read_checkpoint(tmp_path / "odd.pth").value
    assert isinstance(read["odd"], Inert) and reason in read["odd"].reason
    assert read["weight"].numpy().tolist() == [1, 1]


# Pickled modules


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(4, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.head = torch.nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight
        self.gone = None
        self.register_buffer("cache", torch.ones(2), persistent=False)
        self.register_buffer("kept", torch.ones(2))
        self.layer = torch.nn.TransformerEncoderLayer(
            4, 2, 8, activation=torch.nn.functional.gelu
        )
        self.blocks = torch.nn.ModuleList(
            [torch.nn.Conv1d(3, 3, 1), torch.nn.Identity(), torch.nn.GRU(3, 3)]
        )


@pytest.mark.parametrize("zip_container", [True, False])
@pytest.mark.parametrize(
    "wrap", [lambda model: model, lambda model: {"model": model, "epoch": 3}]
)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_pickled_module_gives_its_state_dict(
    wrap: Any, zip_container: bool, tmp_path: Path
) -> None:
    model = Tied()
    torch.save(
        wrap(model),
        tmp_path / "model.pth",
        _use_new_zipfile_serialization=zip_container,
    )
    checkpoint = read_checkpoint(tmp_path / "model.pth")
    assert_same(checkpoint.value, wrap(dict(model.state_dict())))
    assert "Tied was pickled whole" in checkpoint.notes[0]
    assert checkpoint.left_out["dangerous"] == {}
    assert checkpoint.left_out["unknown"]["tests.pth.test_reader.Tied"] == 1


# Records and what they mean


class Mode(enum.Enum):
    FAST = "fast"


PICKLED_BY_NAME = Mode.FAST.__reduce_ex__(2)[0] is getattr
"""As Python 3.11.0 to 3.11.3 do, so that the value isn't in the file."""
FAST = f"{__name__}.Mode.FAST" if PICKLED_BY_NAME else Mode.FAST.value


@dataclasses.dataclass
class Config:
    lr: float = 0.1
    mode: Mode = Mode.FAST
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(slots=True)
class Slotted:
    lr: float = 0.1
    steps: int = 3


@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    lr: float = 0.1
    steps: int = 3


class AttrDict(dict[str, Any]):
    pass


@pytest.mark.parametrize(
    ("value", "means"),
    [
        (Config(), {"lr": 0.1, "mode": FAST, "sizes": [1, 2]}),
        (Slotted(), {"lr": 0.1, "steps": 3}),
        (Mode.FAST, FAST),
        (Mode, "tests.pth.test_reader.Mode"),
        (AttrDict(lr=0.1, inner=AttrDict(a=1)), {"lr": 0.1, "inner": {"a": 1}}),
        (
            argparse.Namespace(lr=0.1, out=pathlib.PurePosixPath("runs")),
            {"lr": 0.1, "out": "runs"},
        ),
        ([np.str_("né"), np.str_("")], ["né", ""]),
        (types.SimpleNamespace(lr=np.float32(0.5)), {"lr": 0.5}),
        (datetime.timedelta(seconds=90), 90.0),
        (
            datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
            "2024-01-02T00:00:00+00:00",
        ),
        (torch.tensor(0.25), 0.25),
        (torch.ones(3, 4), "tensor F32 [3, 4]"),
        (torch.float16, "torch.float16"),
        (
            {"nan": float("nan"), 3: float("inf"), "b": b"123"},
            {"nan": "nan", "3": "inf", "b": "3 bytes"},
        ),
        (np.dtype("f4"), "f4"),
        (
            [int, str, range, OSError],
            ["builtins.int", "builtins.str", "builtins.range", "builtins.OSError"],
        ),
        (functools.partial(dict, a=1), ...),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values_come_out_of_records(
    value: Any, means: Any, tmp_path: Path
) -> None:
    torch.save({"fact": value}, tmp_path / "a.pth")
    checkpoint = read_checkpoint(tmp_path / "a.pth")
    assert checkpoint.left_out["dangerous"] == {}
    if means is not ...:
        assert to_json_value(checkpoint.value) == {"fact": means}
    else:
        assert to_json_value(checkpoint.value)["fact"]["class"] == "functools.partial"


def test_a_frozen_instance_with_slots_has_values_without_names(tmp_path: Path) -> None:
    torch.save({"config": Frozen()}, tmp_path / "a.pth")
    assert to_json_value(read_checkpoint(tmp_path / "a.pth").value["config"])[
        "state"
    ] == [
        0.1,
        3,
    ]


def test_omegaconf_comes_out_as_the_config_it_holds(tmp_path: Path) -> None:
    def node(kind: str, **state: Any) -> Call:
        metadata = Call(
            "omegaconf.base.Metadata",
            state={"ref_type": Name("typing", "Any"), "flags": {}},
        )
        return Call(
            f"omegaconf.{kind}", state={"_metadata": metadata, "_parent": None, **state}
        )

    config = node(
        "dictconfig.DictConfig",
        _content={
            "lr": node("nodes.AnyNode", _val=0.1),
            "sizes": node(
                "listconfig.ListConfig", _content=[node("nodes.IntegerNode", _val=3)]
            ),
            "later": node("nodes.AnyNode", _val="${lr}"),
        },
    )
    (tmp_path / "a.pth").write_bytes(
        zipped(pickled({"config": config, "weight": tensor()}))
    )
    assert to_json_value(read_checkpoint(tmp_path / "a.pth").value["config"]) == {
        "lr": 0.1,
        "sizes": [3],
        "later": "${lr}",
    }


def test_facts_that_contain_themselves_are_cut_where_they_do(tmp_path: Path) -> None:
    trainer = types.SimpleNamespace(epoch=3)
    trainer.callback = types.SimpleNamespace(trainer=trainer)
    torch.save({"trainer": trainer}, tmp_path / "a.pth")
    assert to_json_value(read_checkpoint(tmp_path / "a.pth").value) == {
        "trainer": {"epoch": 3, "callback": {"trainer": "…"}}
    }


# What isn't a checkpoint


class Doubled(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def torchscript() -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(Doubled(), torch.ones(1)), out)
    return out.getvalue()


def exported() -> bytes:
    out = io.BytesIO()
    torch.export.save(torch.export.export(Doubled(), (torch.ones(1),)), out)
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, a=np.ones(3))
    return out.getvalue()


SAFETENSORS = b'\x0b\0\0\0\0\0\0\0{"a": "b"} '


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (bytes(5000), "zeros"),
        (torchscript, "TorchScript archive"),
        (exported, "torch.export"),
        (npz, "numpy arrays"),
        (SAFETENSORS, "a safetensors file"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.0.1:", "ONNX model"),
        (b"<!DOCTYPE html><html><title>Sign in", "web page"),
        (b'\n{"error": "Repository not found"}', "JSON"),
        (
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize"
                b" 12345\n"
            ),
            "Git LFS pointer",
        ),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"x" * 257 + b"ustar\x0000" + b"x" * 300, "tar archive"),
        (b"epoch,loss\n1,0.5\n", "no format that is known"),
        (pickled({"a": 1}), "torch.save didn't write it"),
        (
            zipped(pickled(1), extra={"inner/model.pth": b""}).replace(
                b"archive/data.pkl", b"archive/data_pkl"
            ),
            "in it",
        ),
        (
            zipped(pickled(1), {}).replace(b"archive/data.pkl", b"data/x/y/data.p"),
            "damaged",
        ),
        (
            zipped(pickled(1), {}).replace(b"archive/data.pkl", b"x/y/zzz/data.pkl"),
            "not one folder deep",
        ),
        (
            zipped(pickled(1), {}).replace(b"archive/data.pkl", b"archive/data.txt"),
            "no data.pkl",
        ),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning", "ignore::FutureWarning"
)
def test_what_is_no_checkpoint_is_named(
    content: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in error.value.problem


def test_a_missing_file_or_a_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_checkpoint(tmp_path / "pipe")


def test_calls_that_stay_records_are_counted_even_of_names_that_are_allowed(
    tmp_path: Path,
) -> None:
    (tmp_path / "odd.pth").write_bytes(
        zipped(pickled({"weight": tensor(), "x": Call("builtins.bytearray", 1 << 40)}))
    )
    checkpoint = read_checkpoint(tmp_path / "odd.pth")
    assert isinstance(checkpoint.value["x"], Inert)
    assert checkpoint.left_out == {
        "harmless": {"builtins.bytearray": 1},
        "unknown": {},
        "dangerous": {},
    }


@pytest.mark.parametrize("zip_container", [True, False])
def test_a_file_cut_short_anywhere_is_one_clear_error(
    zip_container: bool, tmp_path: Path
) -> None:
    torch.save(
        {"weight": torch.ones(3), "b": 1},
        tmp_path / "a.pth",
        _use_new_zipfile_serialization=zip_container,
    )
    data = (tmp_path / "a.pth").read_bytes()
    for end in [*range(0, len(data), 37), len(data) - 1]:
        (tmp_path / "cut.pth").write_bytes(data[:end])
        with pytest.raises(CheckpointError):
            read_checkpoint(tmp_path / "cut.pth")


def test_the_reader_never_imports_torch() -> None:
    import subprocess

    code = (
        "import sys, checkpoint_release.pth, checkpoint_release.tensors.safetensors;"
        " sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2]
        ).returncode
        == 0
    )
