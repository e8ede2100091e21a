"""The package installs by itself, and the two lists of pins hold what they say."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.project import ROOT, Project

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = canonicalize_name(PROJECT["name"])


def pins(name: str) -> dict[str, str]:
    """Canonical name → version, of a list of pins."""
    lines = (ROOT / name).read_text().splitlines()
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(package): version for package, version in pairs}


def needed(extra: str) -> set[str]:
    """All distributions that the package needs with an extra, by canonical names."""
    found: set[str] = set()
    todo = [Requirement(f"{PROJECT['name']}[{extra}]")]
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        found.add(canonicalize_name(requirement.name))
        todo += requirements_of(requirement)
    return found - {OWN}


def requirements_of(requirement: Requirement) -> list[Requirement]:
    """What a distribution needs on this machine, with the extras that are asked for."""
    if canonicalize_name(requirement.name) == OWN:
        optional = PROJECT["optional-dependencies"]
        texts = [*PROJECT["dependencies"]]
        for extra in requirement.extras:
            texts += optional[extra]
        return [Requirement(text) for text in texts]
    declared = importlib.metadata.requires(requirement.name) or []
    extras = ["", *requirement.extras]
    return [each for each in map(Requirement, declared) if applies(each, extras)]


def applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def test_the_run_time_pins_are_what_the_pipeline_needs_and_nothing_else() -> None:
    assert set(pins("constraints.txt")) == needed("pipeline")


def test_the_development_pins_are_the_rest() -> None:
    assert set(pins("constraints-dev.txt")) == needed("dev") - needed("pipeline")


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-dev.txt"])
def test_what_is_installed_is_what_is_pinned(name: str) -> None:
    for package, version in pins(name).items():
        installed = importlib.metadata.version(package).partition("+")[0]
        assert installed == version, package


@pytest.mark.slow
def test_a_wheel_alone_reads_a_release_and_says_which_extra_is_missing(
    built: Project, tmp_path: Path
) -> None:
    """In an environment that holds the package's own dependencies and nothing else."""
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    options = ["--no-build-isolation", "-w", str(tmp_path)]
    subprocess.run([*build, *options, str(built.path)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
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

    subprocess.run([*pip, f"{wheel}[onnx]"], check=True)
    ran = command("run", str(built.path / "artifacts/onnx"), "--describe")
    assert ran.returncode == 0, ran.stderr
    assert "motion" in ran.stdout
