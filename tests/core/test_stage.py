"""However a stage ends, its last good outputs are there, and one message says what went
wrong.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from ruamel.yaml import YAML

from tests.support.project import ROOT, Project, tree

SCRIPT = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from checkpoint_release.core import stage
from checkpoint_release.core.errors import ExportError

def main():
    exec(pathlib.Path("how").read_text())
    pathlib.Path("out").mkdir()
    pathlib.Path("out/file").write_text("good")

stage.run(main)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A pipeline of one stage that ran once; its next run executes what `how` holds."""
    project = Project(tmp_path_factory.mktemp("stage"))
    (project.path / "stage.py").write_text(SCRIPT)
    (project.path / "how").write_text("pass")
    stages = {"only": {"cmd": "python stage.py", "deps": ["how"], "outs": ["out"]}}
    YAML().dump({"stages": stages}, project.path / "dvc.yaml")
    project.git("init", "-q")
    project.dvc("init", "-q")
    run(project)
    return project


def run(project: Project, check: bool = True) -> str:
    return project.dvc(
        "repro", check=check, environment={"PYTHONPATH": str(ROOT)}
    ).stderr


def slow(how: str, message: str) -> ParameterSet:
    return pytest.param(how, message, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "raise ExportError('there is no such opset', 'choose another')",
            "exited with 1",
        ),
        slow("raise KeyboardInterrupt", "exited with 130"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "exited with 143"),
        # while a model's code runs, which may exit
        slow(
            "try: os.kill(os.getpid(), signal.SIGTERM)\nexcept (Exception, SystemExit):"
            " raise ExportError('the model failed', 'mend it')",
            "exited with 143",
        ),
        slow("sys.exit(3)", "exited with 3"),
        ("raise KeyError('a bug')", "KeyError: 'a bug'"),
        # stopped inside an import
        slow(
            "sys.modules['asyncio'] = None; raise KeyboardInterrupt", "exited with 130"
        ),
        ("signal.raise_signal(signal.SIGINT)", "exited with 130"),
    ],
)
def test_the_last_good_outputs_survive_however_a_stage_fails(
    project: Project, how: str, message: str
) -> None:
    before = tree(project.path / "out")
    assert before == {"file": b"good"}
    (project.path / "how").write_text(how)
    output = run(project, check=False)
    assert message in output and "out restored from the last good run" in output
    assert tree(project.path / "out") == before
    assert ("Traceback" in output) == ("a bug" in how)


def test_an_error_of_the_system_has_its_place_and_a_remedy(
    project: Project,
) -> None:
    (project.path / "how").write_text("open('nowhere/file', 'w')")
    output = run(project, check=False)
    assert (
        "error: [Errno 2] No such file or directory: 'nowhere/file'\n  what to do: "
        in output
    )
    assert "out restored from the last good run" in output


def test_what_can_not_be_restored_is_named(project: Project, tmp_path: Path) -> None:
    project = project.copy(tmp_path / "emptied")
    for folder in (".dvc/cache", ".dvc/tmp"):
        project.run("rm", "-r", folder)
    (project.path / "how").write_text("raise ExportError('there is no such opset')")
    output = run(project, check=False)
    assert (
        "error: there is no such opset" in output
        and "out could not be restored" in output
    )
    assert "Traceback" not in output


def test_a_first_run_that_fails_has_nothing_to_restore(
    project: Project, tmp_path: Path
) -> None:
    project = project.copy(tmp_path / "first")
    (project.path / "dvc.lock").unlink()
    (project.path / "how").write_text("raise ExportError('there is no such opset')")
    output = run(project, check=False)
    assert (
        "error: there is no such opset" in output
        and "last good" not in output
        and "restored" not in output
    )
