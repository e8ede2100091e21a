"""The table of runtimes is written in its place, and its verdicts are the judge's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release.parity.candidates import NOISE, Candidate
from checkpoint_release.parity.judge import judge
from checkpoint_release.parity.other_runtimes import OtherRuntime
from checkpoint_release.parity.workers import JobResult
from tests.runtime_rows.__main__ import is_changed, report
from tests.runtime_rows.arm64 import PACKAGES, Arm64
from tests.runtime_rows.environments import (
    EnvironmentLackingError,
    Here,
    Lacking,
    Npm,
    Pip,
)
from tests.runtime_rows.measuring import NOT_RUN, Outcome, describe, kind
from tests.runtime_rows.rows import FAILS, PASSES, ROWS, WRONG, Row
from tests.runtime_rows.table import BEGIN, END, Line, table, with_table
from tests.support.parity_world import LIMITS, World, stick_figure_architecture
from tests.support.project import ROOT

LINE = Line("Tract | Rust", "0.23", "`model.onnx`", "3", "passes")


def test_only_what_is_between_the_marks_changes() -> None:
    document = f"# Title\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
    text = table([LINE], "By a machine.")
    changed = with_table(document, text)
    assert changed == f"# Title\n\n{BEGIN}\n{text}\n{END}\n\nAfter.\n"
    assert with_table(changed, text) == changed
    assert "| Tract \\| Rust | 0.23 |" in changed


@pytest.mark.parametrize("document", ["", BEGIN, END + BEGIN, BEGIN + END + END])
def test_a_document_without_the_marks_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        with_table(document, "text")


def test_the_document_has_a_row_for_every_runtime_and_none_by_hand() -> None:
    document = (ROOT / "docs/deployment.md").read_text()
    between = document.partition(BEGIN)[2].partition(END)[0]
    rows = [line for line in between.splitlines() if line.startswith("| ")][1:]
    titles = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert titles == [row.title for row in ROWS]
    for line, row in zip(rows, ROWS, strict=True):
        result = line.removesuffix(" |").rpartition(" | ")[2]
        if not result.startswith("not run: ") and row.expected is not None:
            assert row.expected in result, line


def test_every_row_has_what_runs_it() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        if not isinstance(row.environment, Lacking):
            assert row.adapter is not None or row.package
        if row.adapter is not None:
            assert row.adapter.is_file()
        if isinstance(row.environment, Pip | Npm | Arm64):
            assert all("=" in each or "@" in each[1:] for each in pins(row.environment))


def pins(environment: Pip | Npm | Arm64) -> tuple[str, ...]:
    if isinstance(environment, Npm):
        return environment.packages
    return environment.requirements


def test_what_cannot_be_had_says_so() -> None:
    with pytest.raises(EnvironmentLackingError, match="no no-such-program here"):
        Here("no-such-program").make()
    with pytest.raises(EnvironmentLackingError, match="no GPU"):
        Lacking("no GPU here").make()


def test_an_environment_that_pip_cannot_make_is_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []

    def run(command: list[str], **options: Any) -> Any:
        made.append(command)
        fails = "install" in command
        return subprocess.CompletedProcess(command, fails, "", "ERROR: no package\n")

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        with pytest.raises(EnvironmentLackingError, match="no package"):
            Pip(("nothing==1",)).make()
    assert len(made) == 4  # the second attempt starts anew


def test_arm_without_its_packages_says_what_apt_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    printed = "W: a warning\nE: Unable to locate package qemu-user-static\n"

    def run(command: list[str], **options: Any) -> Any:
        fails = PACKAGES[0] in command
        return subprocess.CompletedProcess(command, fails, "", printed)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(EnvironmentLackingError, match=r"^apt-get: E: Unable to locate"):
        Arm64(("nothing==1",)).make()
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(EnvironmentLackingError, match="no apt-get here"):
        Arm64(("nothing==1",)).make()
    assert not list(tmp_path.rglob("ready"))


def verdict_on(world: World, change: float) -> Any:
    """On what eager float32 computes, with a number changed."""
    outputs = []
    for case in world.reference.cases:
        arrays = {name: each.eager for name, each in case.outputs.items()}
        arrays["pose"] = (arrays["pose"] * np.float32(1 + change)).astype(np.float32)
        outputs.append(arrays)
    candidate = Candidate("onnx", "onnx", world.checkpoint, NOISE).on("tract")
    return judge(candidate, JobResult(outputs), world.reference, LIMITS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return World.create(folder, stick_figure_architecture())


def test_a_verdict_reads_as_what_it_is(world: World) -> None:
    right, wrong = verdict_on(world, 0.0), verdict_on(world, 1e-3)
    assert (kind(right), kind(wrong)) == (PASSES, WRONG)
    assert describe(right).startswith("passes: 1.0× the noise floor")
    assert describe(wrong).startswith("**WRONG**: pose errs by")
    failed = replace(right, outputs={}, problem="it ended with 1: no kernel")
    assert kind(failed) == FAILS
    assert describe(failed) == "**fails**: it ended with 1: no kernel"


def test_a_change_of_what_is_known_is_seen() -> None:
    tract, default = (row_of("tract"), row_of("openvino-default"))
    passes, wrong = Outcome(PASSES, LINE), Outcome(WRONG, LINE)
    assert not is_changed(tract, passes) and is_changed(tract, wrong)
    assert not is_changed(tract, Outcome(NOT_RUN, LINE))
    assert not is_changed(default, passes) and not is_changed(default, wrong)
    assert report([]) == 0 and report([tract]) == 1


def row_of(name: str) -> Row:
    (row,) = [row for row in ROWS if row.name == name]
    return row


def test_an_unknown_row_is_refused_with_those_that_there_are() -> None:
    command = [sys.executable, "-m", "tests.runtime_rows", "tracts"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no rows ['tracts']; there are onnxruntime, " in done.stderr


def test_a_script_for_node_is_run_by_node() -> None:
    runtime = OtherRuntime("any", "package", Path("adapter.mjs"))
    command = runtime.command(Path("model.onnx"), Path("cases"))
    assert command == ["node", "adapter.mjs", "package", "model.onnx", "cases"]
