"""The check reads the file: each thing that it looks for is broken once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from checkpoint_release.core.errors import CheckpointReleaseError
from checkpoint_release.onnx.check import check_onnx
from checkpoint_release.runtimes.open import open_runtime


def no_change(model: ModelProto) -> None:
    pass


def wrong_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 16


def wrong_ir_version(model: ModelProto) -> None:
    model.ir_version = 13


def unused_domain(model: ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def unused_initialiser(model: ModelProto) -> None:
    model.graph.initializer.append(
        numpy_helper.from_array(np.zeros(3, np.float32), "left.over")
    )


def leaked_path(model: ModelProto) -> None:
    model.graph.node[0].doc_string = 'File "/home/someone/training/model.py", line 3'


def swapped_inputs(model: ModelProto) -> None:
    first, second, *rest = [
        onnx.ValueInfoProto.FromString(value.SerializeToString())
        for value in model.graph.input
    ]
    del model.graph.input[:]
    model.graph.input.extend([second, first, *rest])


def fixed_dimension(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 7


def other_dtype(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def unknown_rank(model: ModelProto) -> None:
    model.graph.node.append(
        helper.make_node("Reshape", ["motion", "shape"], ["flat"], name="flat")
    )
    model.graph.node.append(
        helper.make_node("NonZero", ["motion"], ["where"], name="where")
    )
    model.graph.node.append(
        helper.make_node("Shape", ["where"], ["sizes"], name="sizes")
    )
    model.graph.node.append(
        helper.make_node("NonZero", ["sizes"], ["shape"], name="shape")
    )


def invalid_node(model: ModelProto) -> None:
    model.graph.node[-1].op_type = "Lineer"


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (wrong_opset, "has opset 16, and onnx.opset is 17"),
        (wrong_ir_version, "IR version 13"),
        (unused_domain, "imports the domains"),
        (
            unused_initialiser,
            "nothing reads 1 of the initialisers, such as 'left.over'",
        ),
        (leaked_path, "/home/someone"),
        (swapped_inputs, "inputs are ['text_embedding', 'motion'"),
        (fixed_dimension, "has the shape [7, 'batch', 20]"),
        (other_dtype, "float64|valid ONNX"),
        (unknown_rank, "no rank|valid ONNX"),
        (invalid_node, "valid ONNX"),
    ],
)
def test_a_file_that_is_not_what_was_asked_for_is_caught(
    onnx_files: Path, tmp_path: Path, damage: Any, expected: str
) -> None:
    signature = open_runtime("onnx", onnx_files).signature
    model = onnx.load(onnx_files / "model.onnx")
    for change in (no_change, damage):
        change(model)
        onnx.save(model, tmp_path / f"{change.__name__}.onnx")
    check_onnx(tmp_path / "no_change.onnx", signature, 17, 8)
    with pytest.raises(CheckpointReleaseError) as error:
        check_onnx(tmp_path / f"{damage.__name__}.onnx", signature, 17, 8)
    assert any(text in str(error.value) for text in expected.split("|"))
