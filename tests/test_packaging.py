"""The package installs by itself, and the two lists of pins hold what they say."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from packaging.utils import canonicalize_name

from tests.support.installed import needed
from tests.support.project import ROOT, Project


def pins(name: str) -> dict[str, str]:
    """Canonical name → version, of a list of pins."""
    lines = (ROOT / name).read_text().splitlines()
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(package): version for package, version in pairs}


def test_the_run_time_pins_are_what_the_pipeline_needs_and_nothing_else() -> None:
    assert set(pins("constraints.txt")) == needed("pipeline")


def test_the_development_pins_are_the_rest() -> None:
    assert set(pins("constraints-dev.txt")) == needed("dev") - needed("pipeline")


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-dev.txt"])
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    for package, version in pins(name).items():
        installed = importlib.metadata.version(package).partition("+")[0]
        assert installed == version, package


def build_wheel(source: Path, folder: Path) -> Path:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    options = ["--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, *options, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_a_wheel_makes_a_project_in_an_empty_folder_that_gives_a_release(
    built: Project, tmp_path: Path
) -> None:
    """In an environment with the wheel and what constraints.txt pins."""
    source = built.copy(tmp_path / "source").path
    sdist = subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist"], cwd=source, check=False
    )
    assert sdist.returncode == 0
    (archive,) = (source / "dist").glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = build_wheel(unpacked, tmp_path)

    environment = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    dependencies = Path(torch.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = [str(environment / "bin/pip"), "install", "-q", "--no-deps", str(wheel)]
    subprocess.run(pip, check=True)
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)

    def run(folder: Path, *command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    library = run(tmp_path, "python", "-c", "import checkpoint_release as c; print(c)")
    assert str(site) in library
    factory = "checkpoint_release.models.stick_figure:build"
    asked = ("--checkpoint", str(ROOT / "checkpoints/demo.pth"), "--factory", factory)
    same = ("--set", "model.inputs=[motion, text_embedding, action_sequence]")
    run(tmp_path, "checkpoint-release", "new", "mine", *asked, *same)
    mine = tmp_path / "mine"
    assert "checkpoint-release[pipeline]==" in (mine / "requirements.txt").read_text()
    assert "not published" in run(mine, "python", "-m", "dvc", "repro")
    ours = built.path / "artifacts/release"
    assert (mine / "artifacts/release/onnx/model.onnx").read_bytes() == (
        (ours / "onnx/model.onnx").read_bytes()
    )
    assert "up to date" in run(mine, "python", "-m", "dvc", "status")


@pytest.mark.slow
def test_a_wheel_alone_reads_a_release_and_says_which_extra_is_missing(
    built: Project, tmp_path: Path
) -> None:
    """In an environment that holds the package's own dependencies and nothing else."""
    wheel = build_wheel(built.path, tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    programs = tmp_path / "env" / "bin"
    pip = [str(programs / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, str(wheel)], check=True)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(programs / "checkpoint-release"), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )

    read = command("inspect", str(built.path / "checkpoints/demo.pth"))
    assert read.returncode == 0, read.stderr
    assert "model_state_dict" in read.stdout

    missing = command("run", str(built.path / "artifacts/onnx"), "--describe")
    assert missing.returncode == 1
    assert "checkpoint-release[onnx]" in missing.stderr
    assert "Traceback" not in missing.stderr

    release = str(built.path / "artifacts/release")
    fleet = str(tmp_path / "fleet.yaml")
    Path(fleet).write_text("checkpoints: runs/*.pth\n")
    for arguments in (
        ("new", "release"),
        ("verify", release),
        ("diff", release, release),
        ("fleet", "--file", fleet, "plan"),
    ):
        without = command(*arguments)
        assert without.returncode == 1
        assert "checkpoint-release[pipeline]" in without.stderr
        assert "Traceback" not in without.stderr
    assert not (tmp_path / "release").exists()

    subprocess.run([*pip, f"{wheel}[onnx]"], check=True)
    ran = command("run", str(built.path / "artifacts/onnx"), "--describe")
    assert ran.returncode == 0, ran.stderr
    assert "motion" in ran.stdout
