"""The command line, started in the folder of somebody else's model: modules that lie
there don't take the place of installed ones, and its params.yaml grants nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hostile_models import (
    change_models,
    write_honest_model,
)
from tests.support.hostile_names import CANARY, OWN
from tests.support.project import ROOT

COMMAND = (str(Path(sys.executable).with_name("checkpoint-release")),)
MODULE = (sys.executable, "-m", "checkpoint_release")
LEAVES = "import pathlib; pathlib.Path(__file__).with_suffix('.mark').touch()\n"
# what the library and torch import, or would if it were installed
SHADOWS = (
    *("numpy", "torch", "safetensors", "msgspec", "onnx", "onnxruntime", "ml_dtypes"),
    *("huggingface_hub", "model_signing", "cryptography", "OpenSSL", "packaging"),
    *("dill", "opt_einsum", "pandas", "triton", "torch_xla", "numba", "scipy", "yaml"),
    *("sitecustomize", "usercustomize"),
)
STANDARD = tuple(sorted(sys.stdlib_module_names - {"__main__", "antigravity", "this"}))


@dataclass(frozen=True)
class TheirFolder:
    """A model with modules beside it, each of which leaves a mark when it is run."""

    path: Path

    def marks(self) -> list[str]:
        """The modules that ran since they were last asked for."""
        found = sorted(self.path.glob("*.mark"))
        for mark in found:
            mark.unlink()
        return [mark.stem for mark in found]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the folder."""
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPATH", None)
        if command[:3] == MODULE:
            environment["PYTHONPATH"] = str(ROOT)
        return subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True
        )


def theirs(path: Path, shadows: Sequence[str]) -> TheirFolder:
    """A folder whose model is the canary."""
    write_honest_model(path)
    change_models(path, lambda model: model.update(factory=CANARY, kwargs={}))
    for name in (*shadows, "canary"):
        (path / f"{name}.py").write_text(LEAVES)
    (path / "canary.py").write_text(LEAVES + "def build():\n    return None\n")
    (path / "params.yaml").write_text(f"model: {{factory: {CANARY}}}\n")
    (path / "dvc.yaml").write_text("stages: {load: {cmd: touch dvc.mark}}\n")
    (path / "release.json").write_text("{}")
    return TheirFolder(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> TheirFolder:
    return theirs(tmp_path_factory.mktemp("downloaded") / "model", SHADOWS)


# what isn't the name of a factory whose module lies in that folder
OTHER_TRUST = (
    "--trust",
    "canary",
    "--trust",
    "torchscript",
    "--trust",
    "missing:build",
)
COMMANDS = [
    ("run", "checkpoint.pth", "--describe"),
    ("run", ".", "--describe", *OTHER_TRUST),
    ("inspect", "checkpoint.pth"),
    ("verify", "."),
    ("verify", ".", "--trust", "torch.nn:Identity", "--public-key", "theirs.pub"),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_module_of_that_folder_is_imported(
    folder: TheirFolder, arguments: tuple[str, ...]
) -> None:
    done = folder.run(*COMMAND, *arguments)
    assert folder.marks() == []
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if arguments[0] == "inspect" else 1)


def test_python_m_does_not_import_them_either(folder: TheirFolder) -> None:
    done = folder.run(*MODULE, "run", ".", "--describe")
    assert folder.marks() == []
    assert f"name {CANARY} in --trust" in done.stderr


def test_not_even_modules_called_as_those_of_the_standard_library(
    tmp_path: Path,
) -> None:
    folder = theirs(tmp_path / "model", STANDARD)
    done = folder.run(*COMMAND, "run", ".", "--describe")
    assert folder.marks() == []
    assert f"name {CANARY} in --trust" in done.stderr


def test_python_itself_would_import_them(folder: TheirFolder) -> None:
    """The control."""
    folder.run(sys.executable, "-c", "import numpy, torch, dill")
    assert folder.marks() == ["dill", "numpy", "torch"]


def test_trust_in_an_installed_factory_is_no_trust_in_the_folder(
    folder: TheirFolder,
) -> None:
    """torch imports dill, pandas and others on the chance that they are there."""
    change_models(
        folder.path, lambda model: model.update(factory="torch.nn:Identity", kwargs={})
    )
    done = folder.run(
        *COMMAND, "run", ".", "--describe", "--trust", "torch.nn:Identity"
    )
    change_models(folder.path, lambda model: model.update(factory=CANARY, kwargs={}))
    assert folder.marks() == []
    assert "forward of Identity takes ['input']" in done.stderr


def test_a_trusted_module_of_the_folder_runs_and_replaces_nothing_installed(
    tmp_path: Path,
) -> None:
    folder = theirs(tmp_path / "model", ("numpy", "torch", "safetensors", "msgspec"))
    done = folder.run(*COMMAND, "run", ".", "--describe", "--trust", CANARY)
    assert "canary:build returned a NoneType" in done.stderr
    assert folder.marks() == ["canary"]


def test_a_family_of_the_library_is_looked_for_in_the_library_alone(
    tmp_path: Path,
) -> None:
    folder = theirs(tmp_path / "model", ())
    package = folder.path / "checkpoint_release/models"
    package.mkdir(parents=True)
    for inner in (package.parent, package):
        (inner / "__init__.py").write_text(LEAVES)
    (package / "theirs.py").write_text(LEAVES)
    factory = f"{OWN.rpartition('.')[0]}.theirs:build"
    change_models(folder.path, lambda model: model.update(factory=factory, kwargs={}))
    done = folder.run(*COMMAND, "run", ".", "--describe", "--trust", CANARY)
    assert list(folder.path.rglob("*.mark")) == []
    assert "No module named 'checkpoint_release.models.theirs'" in done.stderr
