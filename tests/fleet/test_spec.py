"""fleet.yaml: what is refused, and that the message names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.fleet.patterns import Pattern, fill
from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.points import merged
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import Fleet, small_project


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return small_project(tmp_path_factory.mktemp("spec") / "project")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nmae": "x"}, "nmae: unknown key"),
        ({"name": "Not a ref"}, "expected lower-case letters"),
        ({"source": []}, "at least one source"),
        (
            {"source": [{"file": "a.pth"}]},
            "expected exactly one of files, dvc, s3, hub",
        ),
        ({"source": [{"files": "a", "s3": "s3://b/c"}]}, "exactly one of"),
        (
            {"source": [{"s3": "bucket/path"}]},
            "s3: found 'bucket/path': expected s3://",
        ),
        ({"source": [{"hub": "a/b", "file": "c"}]}, "revisions: missing"),
        ({"source": [{"files": "runs/{step"}]}, "runs/{step"),
        ({"source": [{"files": "runs/{a}{a}.pth"}]}, "each once"),
        ({"source": [{"files": "runs/no-*.pth"}]}, "stands for no checkpoint"),
        ({"params": {"onnx": {"opset": 99}}}, "onnx.opset: found 99"),
        ({"params": {"onnx": {"opsett": 17}}}, "onnx.opsett: unknown key"),
        ({"params": {"checkpoint": {"path": "a"}}}, "checkpoint.path"),
        ({"params": {"publish": {"signing_key": "a"}}}, "publish.signing_key"),
        ({"params": {"publish": {"space": "a/b"}}}, "a Space shows one model"),
        ({"params": {"benchmark": {"enabled": True}}}, "members share a machine"),
        ({"params": {"card": {"title": "At {stpe}"}}}, "the names here are: step"),
        ({"matrix": {"onnx.opset": []}}, "onnx.opset has no values"),
        ({"matrix": {"opset": [17]}}, "opset is no option"),
        ({"matrix": {"onnx.opset": [17, 99]}}, "onnx.opset: found 99"),
        ({"matrix": {"formats.torchscript": [True]}}, "is set in params as well"),
        ({"publish": {"repo_id": "a/b"}}, "repo_id: unknown key"),
        ({"publish": {"repository": "a/b"}}, "both be published to a/b, branch main"),
        ({"publish": {"repository": "a/{name}", "tag": "{seed}"}}, "needs {seed}"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name(
    fleet: Fleet, changes: dict[str, Any], problem: str
) -> None:
    fleet.spec(**changes)
    with pytest.raises(ParamsError) as caught:
        make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    assert problem in str(caught.value)
    assert "what to do: " in str(caught.value)


def test_a_missing_file_is_reported_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"fleet\.yaml is missing"):
        load_spec(tmp_path / "fleet.yaml")


def test_steps_come_in_the_order_of_their_numbers_with_their_values() -> None:
    pattern = Pattern("runs/{seed}/step-{step}.pth")
    found = pattern.matches(["runs/a/step-10.pth", "runs/a/step-9.pth", "runs/step-1"])
    assert list(found) == ["runs/a/step-9.pth", "runs/a/step-10.pth"]
    assert found["runs/a/step-9.pth"] == {"seed": "a", "step": "9"}
    assert pattern.fixed == "runs"


def test_placeholders_are_filled_and_keys_of_the_matrix_have_dots() -> None:
    values = {"step": "7", "onnx.opset": "17"}
    assert fill("step-{step}-opset-{onnx.opset}", values) == "step-7-opset-17"


def test_members_measure_nothing_and_have_no_space_whatever_the_project_has() -> None:
    project = {"publish": {"space": "a/b"}, "benchmark": {"enabled": True}}
    member = merged(project, {"onnx.opset": 17})
    assert member["publish"]["space"] is None
    assert member["benchmark"]["enabled"] is False and member["onnx"]["opset"] == 17
