"""Variants: smaller files whose error is that of their precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from checkpoint_release.core.errors import ExportError
from checkpoint_release.onnx.variants import make_variant
from tests.support.checkpoint_folder import state_dict, write_checkpoint
from tests.support.exports import FIGURE_INPUTS, export_to_onnx, largest_error
from tests.support.stick_figure import stick_figure


@pytest.mark.parametrize(
    ("file", "low", "high", "share"),
    [("fp16", 1e-7, 2e-3, 0.62), ("int8", 1e-5, 0.2, 0.5)],
)
def test_a_variant_is_smaller_and_its_error_is_its_precision_s(
    figure: Path, onnx_files: Path, file: str, low: float, high: float, share: float
) -> None:
    error = largest_error(
        "onnx", figure, onnx_files / f"model_{file}.onnx", sequence=9, batch=2
    )
    assert low < error < high
    weights = {
        name: sum(
            len(tensor.raw_data)
            for tensor in onnx.load(onnx_files / name).graph.initializer
        )
        for name in ("model.onnx", f"model_{file}.onnx")
    }
    assert weights[f"model_{file}.onnx"] < share * weights["model.onnx"]


def test_rotary_frequencies_stay_exact_in_float16(
    figure: Path, onnx_files: Path
) -> None:
    kept = {
        t.name: t.data_type
        for t in onnx.load(onnx_files / "model_fp16.onnx").graph.initializer
    }
    assert {kind for name, kind in kept.items() if name.endswith("inv_freq")} == {
        TensorProto.FLOAT
    }
    assert TensorProto.FLOAT16 in kept.values()


def test_int8_of_a_traced_model_quantises_its_transposed_weights(
    figure: Path, tmp_path: Path
) -> None:
    export_to_onnx(figure, tmp_path / "onnx", exporter="torchscript", variants=["int8"])
    operators = [
        node.op_type for node in onnx.load(tmp_path / "onnx/model_int8.onnx").graph.node
    ]
    assert operators.count("MatMulInteger") > 10


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_int8_of_a_half_precision_checkpoint_quantises_as_that_of_its_wide_one(
    tmp_path: Path, dtype: Any
) -> None:
    """The direct graph keeps half-precision weights and casts them, and the quantiser
    sees no constant behind that.
    """
    architecture = stick_figure(inputs=FIGURE_INPUTS)
    halves = {
        name: array.astype(dtype) for name, array in state_dict(architecture).items()
    }
    wide = {name: array.astype(np.float32) for name, array in halves.items()}
    nodes = {}
    for name, weights in (("halves", halves), ("wide", wide)):
        checkpoint = write_checkpoint(
            tmp_path / name / "checkpoint", architecture, weights
        )
        export_to_onnx(checkpoint, tmp_path / name / "onnx", variants=["int8"])
        graph = onnx.load(tmp_path / name / "onnx/model_int8.onnx").graph
        nodes[name] = [node.op_type for node in graph.node].count("MatMulInteger")
        assert (
            largest_error(
                "onnx",
                checkpoint,
                tmp_path / name / "onnx/model_int8.onnx",
                sequence=9,
                batch=2,
            )
            < 0.2
        )
    assert nodes["halves"] == nodes["wide"] > 10


def test_int8_of_a_model_with_nothing_to_quantise_is_refused(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Relu", ["x"], ["y"])],
            "relu",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        )
    )
    with pytest.raises(ExportError, match="no matrix product"):
        make_variant("int8", model, {})
