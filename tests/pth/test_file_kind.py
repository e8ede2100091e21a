"""What a file is follows from its bytes, whatever its name says."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.file_kind import identify
from checkpoint_release.pth.kinds import FileKind, Kind
from checkpoint_release.tensors.tensor import MappedFile
from tests.support.containers import legacy, pickled, tensor, zipped


def kind_of(content: bytes) -> FileKind:
    return identify(MappedFile(memoryview(content)))


def archive(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as writer:
        for name in names:
            writer.writestr(name, b"content")
    return out.getvalue()


def onnx_model() -> bytes:
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [x], [y])
    model = onnx.helper.make_model(graph, producer_name="maker")
    return bytes(model.SerializeToString())


def saved_by_torch() -> bytes:
    out = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (saved_by_torch, Kind.PTH),
        (lambda: legacy({"weight": tensor()}), Kind.PTH),
        (lambda: safetensors.numpy.save({"a": np.ones(3)}), Kind.SAFETENSORS),
        (onnx_model, Kind.ONNX),
        (lambda: archive("m/data.pkl", "m/constants.pkl"), Kind.TORCHSCRIPT),
        (lambda: archive("m/data.pkl", "m/archive_format"), Kind.TORCH_EXPORT),
        (lambda: archive("serialized_exported_program.json"), Kind.TORCH_EXPORT),
        (lambda: archive("a/data.pkl", "b/data.pkl"), Kind.UNSUPPORTED),
        (lambda: b"\x1f\x8b\x08", Kind.UNSUPPORTED),
    ],
)
def test_every_format_is_recognized(write: Callable[[], bytes], kind: Kind) -> None:
    found = kind_of(write())
    assert found.kind is kind and found.description
    assert found.remedy or kind is Kind.PTH


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_cut_onnx_model_is_not_taken_for_one(cut: int) -> None:
    found = kind_of(onnx_model()[:-cut])
    assert found.kind is Kind.UNSUPPORTED and "damaged" in found.description


def test_text_that_protobuf_can_parse_is_no_onnx_model() -> None:
    """Field 1 as a number and nothing else: a message, but no graph."""
    assert kind_of(b"\x08\x07" * 20).kind is Kind.UNSUPPORTED


def test_many_fields_are_not_all_looked_at() -> None:
    """Otherwise a file of a gigabyte would be walked byte by byte."""
    assert kind_of(b"\x08\x07" * 10_000_000).kind is Kind.UNSUPPORTED


def test_a_safetensors_file_that_ends_within_its_header_is_described_as_cut() -> None:
    content = safetensors.numpy.save({"a": np.ones(3)})
    for length in (10, 20, 50):
        found = kind_of(content[:length])
        assert found.kind is Kind.UNSUPPORTED and "cut short" in found.description
    assert "cut short" not in kind_of(content[:8] + b"no header").description


DVC_FILE = b"outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  path: model.pth\n"
OPENVINO = b'<?xml version="1.0"?>\n<net name="Model0" version="11">\n'
ERROR_OF_S3 = b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>'


def tar_with(name: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as writer:
        writer.addfile(tarfile.TarInfo(name))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (DVC_FILE, "a .dvc file"),
        (b"deps:\n- path: x\n" + DVC_FILE, "a .dvc file"),
        (b"outs: none\n", "no format that is known"),
        (b"path: model.pth\n", "no format that is known"),
        (OPENVINO, "OpenVINO"),
        (ERROR_OF_S3, "storage server's error"),
        (b"<?xml version='1.0'?><!DOCTYPE html><html>", "a web page"),
        (b"\x1c\0\0\0TFL3\0\0", "TensorFlow Lite"),
        (b"\x82\xa6params\x81\xa1w\xc0\xa1x\x01", "MessagePack"),
        (b"\x82\xa6par", "no format that is known"),
        (b"\x08\x04\x12\x84\x02\x0a\x07image\0\0", "Core ML"),
        (b"\x08\x04\x12\x07pytorch\x3a", "ONNX model that is damaged"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"lmgg\x9f\xca", "GGML"),
        (archive("config.json", "metadata.json", "model.weights.h5"), "Keras"),
        (tar_with("sys_info"), "torch before 0.1.10"),
        (tar_with("model_weights.ckpt"), "a tar archive"),
    ],
)
def test_files_of_others_are_described_as_what_they_are(
    content: bytes, description: str
) -> None:
    found = kind_of(content)
    assert found.kind is Kind.UNSUPPORTED
    assert description in found.description and found.remedy


def test_a_damaged_zip_archive_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        kind_of(zipped(pickled(1))[:-30])
