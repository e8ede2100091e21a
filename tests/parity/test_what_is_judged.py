"""Which files are judged, on what, and what the checkpoint's own model has to give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.core.artifacts.checkpoint import WEIGHTS_FILE
from checkpoint_release.core.artifacts.manifest import Manifest
from checkpoint_release.core.errors import ModelError
from checkpoint_release.parity import check as check_module
from checkpoint_release.parity.candidates import (
    EXACT,
    KEEP,
    NOISE,
    REDUCED,
    Candidate,
    find_candidates,
)
from checkpoint_release.parity.cases import Case
from checkpoint_release.parity.computed_tables import in_their_place, sizes_of_tables
from checkpoint_release.parity.sample import sample_case
from checkpoint_release.parity.workers import Job, JobResult
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.references import case, output, reference

FOLDER = Path("artifacts")
ONNX = Candidate("onnx", "onnx", FOLDER / "onnx", NOISE)
CASES = [case("small", 1), case("large", 10**6)]


def manifest(**facts: Any) -> Manifest:
    return Manifest(format="any", enabled=True, files={}, made_from={}, facts=facts)


def test_every_file_that_computes_is_judged_its_variants_behind_it() -> None:
    variants = [{"precision": "float16", "file": "half.onnx"}]
    fixed = {"file": "fixed.onnx", "sizes": {"batch": 1}}
    manifests = {
        "onnx": manifest(variants=variants, fixed=fixed),
        "torchscript": manifest(),
    }
    folder = FOLDER / "onnx"
    assert find_candidates(FOLDER, manifests, KEEP) == [
        ONNX,
        Candidate(
            "onnx float16", "onnx", folder / "half.onnx", REDUCED, "float16", KEEP
        ),
        Candidate(
            "onnx fixed", "onnx", folder / "fixed.onnx", NOISE, sizes={"batch": 1}
        ),
        Candidate("torchscript", "torchscript", FOLDER / "torchscript", NOISE),
    ]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (KEEP, ("safetensors", EXACT, None, KEEP)),
        ("float32", ("safetensors", EXACT, None, "float32")),
        ("float16", ("safetensors float16", REDUCED, "float16", "float16")),
        ("bfloat16", ("safetensors bfloat16", REDUCED, "bfloat16", "bfloat16")),
    ],
)
def test_stored_weights_are_exact_unless_they_were_stored_in_half_precision(
    dtype: str, expected: Any
) -> None:
    (found,) = find_candidates(FOLDER, {"safetensors": manifest()}, dtype)
    described = (found.name, found.rule, found.precision, found.stored_dtype)
    assert described == expected and found.path == FOLDER / "safetensors"


def test_a_candidate_knows_its_file_and_whether_it_is_a_graph(tmp_path: Path) -> None:
    assert replace(ONNX, path=tmp_path).file == tmp_path / "model.onnx"
    assert ONNX.is_onnx_graph
    script = Candidate("torchscript", "torchscript", FOLDER / "torchscript", NOISE)
    assert script.is_graph and not script.is_onnx_graph
    stored = Candidate("safetensors", "safetensors", FOLDER / "safetensors", EXACT)
    assert stored.file == FOLDER / "safetensors" and not stored.is_graph
    half = replace(ONNX, rule=REDUCED, precision="float16")
    assert not half.is_graph and not half.is_onnx_graph
    elsewhere = ONNX.on("openvino")
    assert elsewhere.name == "onnx on openvino" and elsewhere.runtime == "openvino"
    assert replace(elsewhere, name="onnx", runtime=None) == ONNX


def test_a_plan_has_the_cases_that_fit_and_of_a_large_model_the_small_in_double() -> (
    None
):
    many = [case(str(size), size) for size in range(1, 11)]
    plan = check_module._Plan.of(ONNX, many, 10**12)
    assert plan.candidate is ONNX and plan.cases == many
    assert plan.in_double == many[:8]
    assert check_module._Plan.of(ONNX, many, 1).in_double == many
    sized = replace(ONNX, sizes={"batch": 1})
    fitting = replace(many[0], sizes={"batch": 1})
    assert check_module._Plan.of(sized, [fitting, many[1]], 1).cases == [fitting]


def test_every_candidate_runs_and_every_graph_in_double_too() -> None:
    stored = Candidate("safetensors", "safetensors", FOLDER / "safetensors", EXACT)
    script = Candidate("torchscript", "torchscript", FOLDER / "torchscript", NOISE)
    half = replace(ONNX, name="onnx float16", rule=REDUCED, precision="float16")
    checkpoint = Path("checkpoint")
    plans = []
    for each in (stored, ONNX, script, half):
        plans.append(check_module._Plan(each, CASES, CASES[:1]))
    jobs = check_module._jobs(checkpoint, plans)
    both, small = frozenset({"small", "large"}), frozenset({"small"})
    assert jobs == {
        "float64": Job("checkpoint", checkpoint, "float64"),
        "own": Job("checkpoint", checkpoint, "own"),
        "safetensors": Job("safetensors", stored.path, "own", both),
        "onnx": Job("onnx", ONNX.path, "own", both, checkpoint),
        "onnx in float64": Job("onnx", ONNX.path, "float64", small, checkpoint),
        "torchscript": Job("torchscript", script.path, "own", both, checkpoint),
        "torchscript in float64": Job("torchscript", script.path, "float64", small),
        "onnx float16": Job("onnx", ONNX.path, "own", both),
    }
    assert jobs["onnx"].chosen(CASES) == CASES
    assert jobs["onnx in float64"].chosen(CASES) == CASES[:1]
    assert jobs["own"].chosen(CASES) == CASES
    assert not jobs["onnx"].needs_torch and jobs["onnx in float64"].needs_torch
    assert jobs["torchscript"].needs_torch
    in_order = sorted(jobs, key=lambda name: jobs[name].priority)
    assert in_order[:2] == ["onnx", "onnx float16"]
    assert in_order[2] == "onnx in float64" and in_order[-2:] == ["own", "safetensors"]


def ran(*values: float, dtype: Any = np.float64, **more: Any) -> JobResult:
    return JobResult([{"y": np.array([each], dtype)} for each in values], **more)


def own_reference(double: JobResult, own: JobResult) -> Any:
    return check_module._reference({"float64": double, "own": own}, CASES)


def test_the_reference_is_what_the_model_gives_in_both_precisions() -> None:
    double, own = ran(1.0, 2.0), ran(1.5, 2.0, dtype=np.float32)
    found = own_reference(double, own)
    assert [each.case for each in found.cases] == CASES
    y = found.cases[0].outputs["y"]
    assert y.expected is double.outputs[0]["y"] and y.eager is own.outputs[0]["y"]


@pytest.mark.parametrize(
    ("double", "own", "problem"),
    [
        (
            ran(1.0, failure="no memory", failed_case="large"),
            ran(1.0, 2.0),
            "the checkpoint's own model, in float64, fails in the case 'large':"
            " no memory",
        ),
        (
            ran(1.0, 2.0),
            ran(failure="killed"),
            "the checkpoint's own model, in its own dtypes, fails: killed",
        ),
        (
            ran(1.0, np.nan),
            ran(1.0, 2.0),
            "the checkpoint's own model, in float64, gives NaN or infinity for ['y']"
            " in the case 'large'",
        ),
        (
            ran(1.0, 2.0),
            ran(np.inf, 2.0),
            "the checkpoint's own model, in its own dtypes, gives NaN or infinity for"
            " ['y'] in the case 'small'",
        ),
    ],
)
def test_a_model_that_fails_or_gives_no_numbers_is_one_error(
    double: JobResult, own: JobResult, problem: str
) -> None:
    with pytest.raises(ModelError) as caught:
        own_reference(double, own)
    assert caught.value.problem == problem
    option = "magnitudes" if "NaN" in problem else "signature"
    assert option in caught.value.remedy


def test_a_missing_case_is_no_reference() -> None:
    with pytest.raises(ValueError, match="shorter"):
        own_reference(ran(1.0), ran(1.0, 2.0))


def test_the_sample_is_the_middle_one_of_the_nominal_drawn_cases() -> None:
    def of(*cases: Case) -> Any:
        found = reference({each.name: {"y": output(np.ones(1))} for each in cases})
        changed = []
        for own, each in zip(found.cases, cases, strict=True):
            changed.append(replace(own, case=each))
        return replace(found, cases=changed)

    one, two, three, four = (case(str(size), size) for size in (1, 2, 3, 4))
    assert sample_case(of(three, one, two)).case is two
    assert sample_case(of(four, three, one, two)).case is three
    assert sample_case(of(one)).case is one
    extreme = replace(two, drawn=False)
    tiny = replace(three, kind="zeros")
    assert sample_case(of(extreme, tiny, four)).case is four
    meant = replace(one, is_sample=True)
    assert sample_case(of(two, three, meant)).case is meant


def test_a_table_takes_its_place_as_it_lies_or_transposed() -> None:
    wide = np.linspace(0, 1, 6)
    narrow = wide.astype(np.float32)
    tables: Any = {narrow.tobytes(): wide}

    def placed(array: Any) -> Any:
        return in_their_place(array.astype(np.float64), tables)

    assert placed(narrow).tolist() == wide.tolist()
    assert placed(narrow.reshape(2, 3)).tolist() == wide.reshape(2, 3).tolist()
    turned = placed(narrow.reshape(2, 3).T)
    assert turned.tolist() == wide.reshape(2, 3).T.tolist()
    assert placed(narrow[::-1]) is None and placed(narrow[::-1].reshape(2, 3)) is None


def test_tables_have_a_few_numbers_at_least() -> None:
    arrays = {str(size): np.zeros(size) for size in range(1, 40)}
    sizes = sizes_of_tables(arrays)
    assert sizes == set(range(2, 40))


def test_stored_weights_are_held_to_the_checkpoint_s_by_name(tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "safetensors"
    numbers = np.array([0.1, 2.0], np.float32)
    held = {"w": Tensor.of_numpy(numbers), "v": Tensor.of_numpy(numbers + 1)}
    known = {"w": Tensor.of_numpy(numbers), "v": Tensor.of_numpy(numbers)}
    for path, tensors in ((checkpoint / WEIGHTS_FILE, known), (folder, held)):
        file = path if path.suffix else path / "model.safetensors"
        file.parent.mkdir()
        write_safetensors(file, tensors, {"format": "pt"})
    stored = Candidate("safetensors", "safetensors", folder, EXACT)
    found = check_module._with_stored_weights(ran(1.0), stored, checkpoint)
    assert found.outputs == ran(1.0).outputs and found.weights is not None
    assert (found.weights.found, found.weights.total) == (1, 2)
    assert "v differs in 2 of 2" in found.weights.wrong[0]
    unchanged = ran(1.0)
    assert check_module._with_stored_weights(unchanged, ONNX, checkpoint) is unchanged
