"""Other runtimes are judged as formats are, each by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint_release.core.errors import ParamsError
from checkpoint_release.core.params import Params, ParityParams, parse_section
from checkpoint_release.core.yaml_text import parse_yaml
from checkpoint_release.parity.check import ParityCheck, check_parity
from checkpoint_release.parity.failure import parity_error
from checkpoint_release.parity.other_runtimes import (
    OTHER_RUNTIMES,
    OtherRuntime,
    other_runtimes,
    run_elsewhere,
)
from checkpoint_release.parity.report import parity_metrics, summary
from tests.support.fake_openvino import (
    ENDS,
    FAILS,
    HANGS,
    WRONG,
    fake_openvino,
)
from tests.support.parity_world import LIMITS, World
from tests.support.project import ROOT

OPENVINO = OTHER_RUNTIMES["openvino"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which modules are found."""
    monkeypatch.syspath_prepend(tmp_path / "installed")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    return tmp_path / "installed"


def checked(world: World, exported: dict[str, Path], *names: str) -> ParityCheck:
    candidate = world.candidate("onnx", exported["onnx"])
    cases, runtimes = world.cases[:4], other_runtimes(["onnxruntime", *names])
    return check_parity(world.checkpoint, [candidate], cases, LIMITS, runtimes)


@pytest.mark.slow
def test_a_right_runtime_is_a_row_that_passes(
    world: World, exported: dict[str, Path], installed: Path
) -> None:
    fake_openvino(installed)
    check = checked(world, exported, "openvino")
    own, other = check.verdicts
    assert (own.candidate.name, other.candidate.name) == ("onnx", "onnx on openvino")
    assert own.passed and other.passed
    assert check.versions == {"openvino": "2999.1"}
    assert set(parity_metrics(check).share_of_limit) == {"onnx", "onnx on openvino"}
    for name, output in other.outputs.items():
        assert output.worst.error_ratio == own.outputs[name].worst.error_ratio


def test_a_wrong_runtime_fails_and_is_told_from_a_wrong_graph(
    world: World, exported: dict[str, Path], installed: Path, tmp_path: Path
) -> None:
    fake_openvino(installed, WRONG)
    check = checked(world, exported, "openvino")
    (failed,) = check.failed
    assert failed.candidate.name == "onnx on openvino"
    assert [output.name for output in failed.wrong_outputs] == ["pose"]
    assert failed.graph is not None and failed.graph.passed
    error = str(parity_error(check.failed, world.checkpoint, tmp_path / "scratch"))
    assert "onnx on openvino: pose" in error
    assert "ONNX Runtime does by the same file" in error
    assert "take it out of parity.runtimes: openvino" in error


def run(
    world: World, exported: dict[str, Path], runtime: OtherRuntime
) -> tuple[int, str | None, str | None]:
    file = world.candidate("onnx", exported["onnx"]).file
    outputs = world.reference.outputs
    cases = world.cases[:3]
    found = run_elsewhere(runtime, file, cases, outputs)
    assert not found.took_too_long
    result = found.result
    return len(result.outputs), result.failure, result.failed_case


def test_a_failure_is_reported_with_its_case(
    world: World, exported: dict[str, Path], installed: Path
) -> None:
    fake_openvino(installed, FAILS)
    count, failure, case = run(world, exported, OPENVINO)
    assert count == 1
    assert failure == "it ended with 1: RuntimeError: no kernel for Gemm"
    assert case == world.cases[1].name


@pytest.mark.slow
def test_a_process_that_ends_is_reported(
    world: World, exported: dict[str, Path], installed: Path
) -> None:
    fake_openvino(installed, ENDS)
    count, failure, case = run(world, exported, OPENVINO)
    assert (count, failure) == (1, "it ended with 7: it printed nothing")
    assert case == world.cases[1].name


@pytest.mark.slow
def test_a_runtime_that_never_ends_is_ended(
    world: World, exported: dict[str, Path], installed: Path
) -> None:
    fake_openvino(installed, HANGS)
    file = world.candidate("onnx", exported["onnx"]).file
    outputs = world.reference.outputs
    found = run_elsewhere(OPENVINO, file, world.cases[:1], outputs, patience=2)
    assert found.took_too_long and found.result.outputs == []
    assert found.result.failure == "it took longer than 2 seconds"


def test_what_is_not_installed_is_not_run_and_stated(
    world: World, exported: dict[str, Path], tmp_path: Path
) -> None:
    node = replace(OTHER_RUNTIMES["onnxruntime-node"], folder=tmp_path)
    check = check_parity(
        world.checkpoint,
        [world.candidate("onnx", exported["onnx"])],
        world.cases[:2],
        LIMITS,
        [OPENVINO, node],
    )
    assert [verdict.candidate.name for verdict in check.verdicts] == ["onnx"]
    assert not check.failed
    assert "openvino: not run, for openvino isn't installed" in summary(check)
    assert "onnxruntime-node: not run, for node" in summary(check)


@pytest.mark.parametrize(
    ("runtimes", "problem"),
    [
        ("[openvino]", "parity.runtimes: found .* expected onnxruntime among them"),
        ("[onnxruntime, tract, tract]", "expected each runtime once"),
        ("[onnxruntime, tensorrt]", r"found .*'tensorrt'\]: expected .*'openvino'"),
        ("onnxruntime", "parity.runtimes: found 'onnxruntime'"),
    ],
)
def test_a_choice_that_cannot_be_had_is_refused_with_its_key(
    runtimes: str, problem: str
) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "runtimes: [onnxruntime] " in text
    changed = text.replace("runtimes: [onnxruntime] ", f"runtimes: {runtimes} ")
    with pytest.raises(ParamsError, match=problem):
        parse_section(Params, parse_yaml(changed.encode()))


def test_without_the_option_formats_have_their_own_runtimes_alone() -> None:
    params = parse_yaml((ROOT / "params.yaml").read_bytes())["parity"]
    del params["runtimes"]
    assert parse_section(ParityParams, params).runtimes == ["onnxruntime"]
    assert other_runtimes(["onnxruntime"]) == []


def test_every_adapter_is_there() -> None:
    assert set(OTHER_RUNTIMES) == {
        "onnxruntime-node",
        "onnxruntime-web",
        "openvino",
        "tract",
    }
    for runtime in OTHER_RUNTIMES.values():
        command = runtime.command(Path("model.onnx"), Path("cases"))
        scripts = [part for part in command if part.endswith((".py", ".mjs"))]
        assert scripts
        assert all(Path(script).is_file() for script in scripts)
