"""Machines that lack what most have: a terminal in UTF-8, a home, caches, /tmp."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from checkpoint_release.core.files import read_json, write_json
from tests.support.project import ROOT, Project

NOWHERE = "/dev/null/nowhere"  # no folder can be made in a file, not even by root
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "an ASCII terminal": {"PYTHONIOENCODING": "ascii"},
    "no locale": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "warnings are errors": {"PYTHONWARNINGS": "error"},
    "no home": {"HOME": NOWHERE},
    "no caches": {
        "HOME": NOWHERE,
        "XDG_CACHE_HOME": NOWHERE,
        "HF_HOME": NOWHERE,
        "TORCH_HOME": NOWHERE,
        "TORCHINDUCTOR_CACHE_DIR": NOWHERE,
        "MPLCONFIGDIR": NOWHERE,
    },
    "nothing set": {},
}
"""What is different → the variables that the environment has beside PATH."""
STAGES = (
    "load",
    "export_safetensors",
    "export_onnx",
    "export_torchscript",
    "parity_check",
    "model_card",
    "publish",
)
# /tmp is there for everybody, so a mount of one's own has to hide it.
WITHOUT_TMP = """
for folder in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o ro none $folder; done
exec "$@"
"""


def run(
    folder: Path, environment: Mapping[str, str], *command: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with these variables and none of the test's own."""
    return subprocess.run(
        command,
        cwd=folder,
        env={
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **environment,
        },
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Project.checkout(tmp_path_factory.mktemp("checkout") / "project").path


@pytest.fixture(scope="module")
def described(tiny_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose description ASCII can't hold."""
    folder = tmp_path_factory.mktemp("described") / "onnx"
    shutil.copytree(tiny_release / "onnx", folder)
    config = read_json(folder / "config.json")
    config["signature"]["inputs"][0]["description"] = "x1 × y1 in Größe"
    write_json(folder / "config.json", config)
    return folder


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_command_prints_whatever_the_machine_lacks(
    described: Path, tmp_path: Path, name: str
) -> None:
    command = ("-m", "checkpoint_release", "run", str(described), "--describe")
    done = run(tmp_path, ENVIRONMENTS[name], sys.executable, *command)
    assert done.returncode == 0, done.stderr
    in_ascii = name in ("an ASCII terminal", "no locale")
    expected = r"x1 \xd7 y1 in Gr\xf6\xdfe" if in_ascii else "x1 × y1 in Größe"
    assert expected in done.stdout


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_error_prints_whatever_the_machine_lacks(tmp_path: Path, name: str) -> None:
    command = ("-m", "checkpoint_release", "inspect", "größe.pth")
    done = run(tmp_path, ENVIRONMENTS[name], sys.executable, *command)
    assert done.returncode == 1 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_stage_prints_whatever_the_machine_lacks(checkout: Path, name: str) -> None:
    done = run(checkout, ENVIRONMENTS[name], sys.executable, "-m", "pipeline.load")
    assert done.returncode == 0, done.stderr
    assert "left out" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_stage_runs_whatever_the_machine_lacks(checkout: Path, name: str) -> None:
    for stage in STAGES:
        command = ("-m", f"pipeline.{stage}")
        done = run(checkout, ENVIRONMENTS[name], sys.executable, *command)
        assert done.returncode == 0, f"{stage}: {done.stderr}"


@pytest.mark.slow
def test_every_stage_runs_without_tmp_and_leaves_nothing_behind(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hide = ("unshare", "--mount", "sh", "-c", WITHOUT_TMP, "sh")
    if run(checkout, {}, *hide, "true").returncode:
        pytest.skip("mounting isn't permitted here")
    # The fixture's checkout is below /tmp, which is hidden.
    project = ROOT / ".pytest_cache" / "without-tmp"
    if ROOT.is_relative_to("/tmp") or ROOT.is_relative_to("/var/tmp"):
        pytest.skip("the project itself lies where nothing will be")
    shutil.rmtree(project, ignore_errors=True)
    shutil.copytree(checkout, project)
    try:
        before = set(project.iterdir())
        for stage in STAGES:
            command = (sys.executable, "-m", f"pipeline.{stage}")
            done = run(project, {"PYTHONPATH": ""}, *hide, *command)
            assert done.returncode == 0, f"{stage}: {done.stderr}"
        assert set(project.iterdir()) == before
    finally:
        shutil.rmtree(project)


@pytest.mark.slow
def test_a_stage_leaves_no_temporary_folder(checkout: Path, tmp_path: Path) -> None:
    # ONNX Runtime's telemetry keeps a file there
    environment = {"TMPDIR": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"}
    for stage in STAGES:
        command = ("-m", f"pipeline.{stage}")
        done = run(checkout, environment, sys.executable, *command)
        assert done.returncode == 0, f"{stage}: {done.stderr}"
        assert list(tmp_path.iterdir()) == [], stage
