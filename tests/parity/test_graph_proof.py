"""Question one, the graph in double precision; and what kernels may cost."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from checkpoint_release.core.artifacts.formats import ONNX
from checkpoint_release.parity.candidates import NOISE, Candidate
from checkpoint_release.parity.check import ParityCheck, check_parity
from checkpoint_release.parity.constants import (
    Constant,
    align,
    bounded_least_squares,
    likely_number,
)
from checkpoint_release.parity.double_graph import DoubleGraph
from checkpoint_release.parity.failure import parity_error
from checkpoint_release.parity.graph_job import evaluate_again
from checkpoint_release.parity.graph_proof import DoubleResult
from checkpoint_release.parity.judge import Verdict, judge
from checkpoint_release.parity.report import summary
from checkpoint_release.parity.rules import Limits
from checkpoint_release.parity.workers import JobResult
from tests.support import zoo
from tests.support.mistakes import ONNX_MISTAKES
from tests.support.parity_world import (
    LIMITS,
    Opened,
    drawn,
    reference_of,
    trained,
    write_checkpoint,
    write_format,
)

STRICT = Limits(noise_multiple=1e-3, reduced={})


def exported(folder: Path, family: str) -> Opened:
    """A right ONNX file of a family's model, open."""
    architecture = zoo.architecture(family)
    model = trained(architecture)
    write_checkpoint(folder / "checkpoint", architecture, model)
    write_format("onnx", folder / "onnx", architecture, model)
    return Opened.open(folder / "checkpoint", "onnx", folder / "onnx")


def change(folder: Path, mistake: str) -> None:
    """Plant a mistake in the file."""
    file = folder / "onnx" / ONNX.file
    model = onnx.load(file)
    plant, _ = ONNX_MISTAKES[mistake]
    plant(model)
    onnx.save(model, file)


def check(folder: Path, family: str, limits: Limits = LIMITS) -> ParityCheck:
    """What the stage finds of the file."""
    candidate = Candidate("onnx", "onnx", folder / "onnx", NOISE)
    cases = drawn(zoo.architecture(family).signature, 0, 20)
    return check_parity(folder / "checkpoint", [candidate], cases, limits)


def test_a_constant_is_set_to_a_number_that_rounds_to_the_stored_one() -> None:
    stored = float(np.float32(math.sqrt(2)))
    values = [stored]
    constant = Constant(stored, [lambda value: values.__setitem__(0, value)])
    inputs = np.linspace(1, 2, 9)
    assert align([constant], lambda: inputs * values[0] - inputs * math.sqrt(2))
    assert values[0] == pytest.approx(math.sqrt(2), rel=1e-15)
    assert np.float32(values[0]) == np.float32(stored)


def test_a_constant_is_never_set_to_a_number_that_rounds_to_another() -> None:
    stored = 1.01e-6
    values = [stored]
    constant = Constant(stored, [lambda value: values.__setitem__(0, value)])
    inputs = np.linspace(1, 2, 9)
    assert align([constant], lambda: inputs * values[0] - inputs * 1e-6)
    assert abs(values[0] - stored) <= constant.reach


def test_more_constants_than_the_outputs_can_tell_are_left_alone() -> None:
    constants = [Constant(0.1), Constant(0.3)]
    assert not align(constants, lambda: np.ones(7))
    assert not align([], lambda: np.ones(7))


def test_least_squares_keep_within_their_bounds() -> None:
    matrix = np.random.default_rng(0).normal(size=(20, 4))
    inside = np.array([0.5, -1.0, 0.0, 0.25])
    found = bounded_least_squares(matrix, matrix @ inside)
    assert found == pytest.approx(inside, abs=1e-12)
    outside = bounded_least_squares(matrix, matrix @ np.array([3.0, 0, 0, 0]))
    assert np.abs(outside).max() == 1


@pytest.mark.parametrize(
    "number", [math.sqrt(2), 1e-6, 0.1, 1 / math.sqrt(768), -math.sqrt(0.5), 0.044715]
)
def test_the_likely_number_behind_a_float32_is_found(number: float) -> None:
    found = likely_number(float(np.float32(number)))
    assert found == pytest.approx(number, rel=1e-15)


def test_an_unlikely_number_stays_as_it_is_stored() -> None:
    stored = float(np.float32(0.123456789))
    assert likely_number(stored) == stored


@pytest.mark.parametrize("family", ["sigmoid head at -7", "silu at -5", "elu at -5"])
def test_the_tail_of_a_function_passes_for_what_its_kernel_may_cost(
    tmp_path: Path, family: str
) -> None:
    opened = exported(tmp_path, family)
    cases = drawn(zoo.architecture(family).signature, 0, 20)
    verdict = opened.judge(cases)
    assert verdict.passed, verdict.problem


def test_without_the_cost_of_kernels_a_tail_would_be_a_false_alarm(
    tmp_path: Path,
) -> None:
    family = "sigmoid head at -7"
    opened = exported(tmp_path, family)
    cases = drawn(zoo.architecture(family).signature, 0, 20)
    result = JobResult([opened.artifact.run(case.inputs) for case in cases])
    alone = judge(opened.candidate, result, reference_of(opened.eager, cases), LIMITS)
    assert not alone.passed


def test_a_graph_that_is_wrong_below_the_noise_is_reported_with_its_first_node(
    tmp_path: Path,
) -> None:
    exported(tmp_path, "gelu")
    change(tmp_path, "a constant one step off")
    found = check(tmp_path, "gelu")
    message = str(parity_error(found.failed, tmp_path / "checkpoint", tmp_path / "s"))
    assert "its graph is not the model's" in message
    assert "the first node that diverges is" in message
    assert "don't release it" in message
    assert not found.verdicts[0].wrong_outputs, "float32 doesn't show it"


def test_a_right_graph_whose_runtime_errs_is_not_called_wrong(tmp_path: Path) -> None:
    exported(tmp_path, "gelu")
    found = check(tmp_path, "gelu", STRICT)
    message = str(parity_error(found.failed, tmp_path / "checkpoint", tmp_path / "s"))
    assert "although their graphs are the model's" in message
    assert "ONNX Runtime 1." in message and "of its range" in message
    assert "parity.tolerances" in message
    assert "don't release it" not in message


def test_a_graph_that_cannot_be_evaluated_says_so_and_is_judged_by_its_numbers(
    tmp_path: Path,
) -> None:
    exported(tmp_path, "gelu")
    file = tmp_path / "onnx" / ONNX.file
    model = onnx.load(file)
    *_, last = model.graph.node
    output = last.output[0]
    last.output[0] = "before"
    fused = helper.make_node("BiasGelu", ["before", "nothing"], [output])
    fused.domain = "com.microsoft"
    model.graph.node.append(fused)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    zeros = helper.make_tensor("nothing", onnx.TensorProto.FLOAT, [5], [0.0] * 5)
    model.graph.initializer.append(zeros)
    onnx.save(model, file)
    found = check(tmp_path, "gelu")
    assert not found.verdicts[0].passed
    assert "could not be evaluated in float64" in summary(found)


def test_why_a_graph_cannot_be_evaluated_is_kept_where_something_else_is_wrong(
    tmp_path: Path,
) -> None:
    opened = exported(tmp_path, "relu")
    cases = drawn(zoo.architecture("relu").signature, 0, 20)
    first = DoubleResult(failure="the evaluator lacks an operator")
    verdict = Verdict(opened.candidate, problem="a weight differs")
    reference = reference_of(opened.eager, cases)
    again = evaluate_again(
        verdict, first, opened.weights, reference, tmp_path / "checkpoint"
    )
    assert again == first


def test_a_file_that_has_several_hard_links_is_evaluated_all_the_same(
    tmp_path: Path,
) -> None:
    """As DVC's cache may give it; onnx's own reader takes that for an attack."""
    exported(tmp_path, "relu")
    for path in list(tmp_path.rglob("*.onnx")):
        path.with_suffix(".link").hardlink_to(path)
    verdict = check(tmp_path, "relu").verdicts[0]
    assert verdict.graph is not None and verdict.graph.evaluated


@pytest.mark.parametrize("operator", ["LayerNormalization", "RMSNormalization"])
def test_a_norm_that_states_the_type_it_computes_in_is_evaluated_in_double(
    operator: str, tmp_path: Path
) -> None:
    """As the dynamo exporter writes LayerNormalization."""
    x = np.linspace(-1, 2, 8, dtype=np.float32).reshape(1, 8)
    scale = helper.make_tensor("scale", onnx.TensorProto.FLOAT, [8], [0.1] * 8)
    norm = helper.make_node(operator, ["x", "scale"], ["y"], stash_type=1)
    value = partial(helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        [norm], "norm", [value("x", shape=[1, 8])], [value("y", shape=[1, 8])], [scale]
    )
    opset = helper.make_opsetid("", 23)
    onnx.save(helper.make_model(graph, opset_imports=[opset]), tmp_path / "norm.onnx")
    wide = x.astype(np.float64)
    centred = wide - wide.mean() if operator == "LayerNormalization" else wide
    expected = 0.1 * centred / np.sqrt((centred**2).mean() + 1e-5)

    (found,) = DoubleGraph(tmp_path / "norm.onnx").run({"x": x}).values()

    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_how_exact_a_graph_is_is_known(
    tmp_path: Path,
) -> None:
    exported(tmp_path, "relu")
    verdict = check(tmp_path, "relu").verdicts[0]
    assert verdict.graph is not None
    assert 0 <= verdict.graph.error < 1e-13
