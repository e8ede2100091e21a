"""A file of fixed shapes computes what the model computes, and no shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from checkpoint_release.core.errors import InferenceError, ParamsError
from checkpoint_release.core.fixed_sizes import at_sizes, require_allowed
from checkpoint_release.core.signature import sample_inputs
from checkpoint_release.core.stated_signature import read_signature
from checkpoint_release.onnx.fixed import open_shapes
from checkpoint_release.parity.cases import draw_cases, draw_fixed_cases
from checkpoint_release.runtimes.loader import load
from tests.support.exports import FIGURE_INPUTS, export_to_onnx
from tests.support.models import SIGNATURES, Framed, checkpoint
from tests.support.stick_figure import stick_figure

SHAPES = {"Shape", "Size", "Range", "ConstantOfShape", "NonZero"}
"""Operators whose outputs have shapes that compilers can't know, or are shapes."""


def test_a_signature_at_sizes_has_numbers_for_them_and_what_follows() -> None:
    signature = read_signature(SIGNATURES[Framed])
    fixed = at_sizes(signature, {"tokens": 5, "batch": 1})
    shapes = {spec.name: spec.shape for spec in (*fixed.inputs, *fixed.outputs)}
    assert shapes["frames"] == (1, 11, 6) and shapes["wide"] == (1, 11, 8)
    assert shapes["mask"] == (1, "past + 5") and list(fixed.dimensions) == ["past"]
    whole = at_sizes(signature, {"tokens": 5, "batch": 1, "past": 2})
    assert whole.inputs[3].shape == (1, 7) and not whole.dimensions
    assert read_signature(whole.to_json()) == whole


@pytest.mark.parametrize(
    ("sizes", "part"),
    [
        ({"tokens": 65}, "onnx.fixed is 65 for 'tokens', and allowed are 1 to 64"),
        ({"time": 5}, "onnx.fixed names 'time', and the model's dimensions are"),
    ],
)
def test_sizes_that_the_model_does_not_take_are_named(
    sizes: dict[str, int], part: str
) -> None:
    with pytest.raises(ParamsError) as error:
        require_allowed(read_signature(SIGNATURES[Framed]), sizes)
    assert part in str(error.value)


def test_its_cases_have_its_sizes_and_one_of_them_is_the_sample() -> None:
    signature = read_signature(SIGNATURES[Framed])
    sizes = {"batch": 1, "tokens": 4, "past": 3}
    options: dict[str, Any] = {"seed": 0, "magnitudes": [0.0]}
    cases = draw_fixed_cases(signature, sizes, **options)
    assert [case.is_sample for case in cases].count(True) == 1 and cases[0].drawn
    assert all(case.inputs["frames"].shape == (1, 9, 6) for case in cases)
    others = {case.name for case in draw_cases(signature, sizes={}, **options)}
    assert not others & {case.name for case in cases}


@pytest.mark.parametrize(
    "exporter", ["direct", pytest.param("torchscript", marks=pytest.mark.slow)]
)
def test_the_figure_of_fixed_shapes_computes_the_same_and_no_shapes(
    exporter: str, figure: Path, tmp_path: Path
) -> None:
    sizes = {"batch": 2, "sequence": 9}
    folder = tmp_path / "onnx"
    exported = export_to_onnx(figure, folder, exporter=exporter, fixed=sizes)
    assert exported.fixed is not None and exported.fixed.sizes == sizes
    fixed = onnx.load(folder / "model_fixed.onnx")
    assert not open_shapes(fixed)
    assert not SHAPES & {node.op_type for node in fixed.graph.node}
    dynamic = onnx.load(folder / "model.onnx")
    assert SHAPES & {node.op_type for node in dynamic.graph.node}

    inputs = sample_inputs(stick_figure(inputs=FIGURE_INPUTS).signature, sizes, 3)
    model = load(folder / "model_fixed.onnx")
    expected = load(folder / "model.onnx")(**inputs)
    for name, output in model(**inputs).items():
        np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-5)
    inputs["motion"] = inputs["motion"][:8]
    with pytest.raises(InferenceError, match=r"takes float32 \[9, 2, 20\]"):
        model(**inputs)


def test_some_sizes_may_stay_open(tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    source = checkpoint(tmp_path / "checkpoint", Framed)
    export_to_onnx(source, folder, fixed={"batch": 1, "past": 2})
    graph = onnx.load(folder / "model_fixed.onnx").graph
    shapes = {}
    for value in graph.input:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = [each.dim_param or each.dim_value for each in dims]
    assert shapes["mask"] == [1, "tokens + 2"]
    assert shapes["frames"] == [1, "2*tokens + 1", 6]
    for tokens in (1, 30):
        sizes = {"batch": 1, "past": 2, "tokens": tokens}
        inputs = sample_inputs(read_signature(SIGNATURES[Framed]), sizes, 0)
        expected = load(folder / "model.onnx")(**inputs)["out"]
        found = load(folder / "model_fixed.onnx")(**inputs)["out"]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
