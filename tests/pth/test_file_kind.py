"""What a file is follows from its bytes, whatever its name says."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch

from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.pth.file_kind import FileKind, Kind, identify
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


def test_a_safetensors_header_beyond_the_end_is_none() -> None:
    content = safetensors.numpy.save({"a": np.ones(3)})
    assert kind_of(content[:20]).kind is Kind.UNSUPPORTED


def test_a_damaged_zip_archive_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        kind_of(zipped(pickled(1))[:-30])
