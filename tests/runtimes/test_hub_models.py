"""Loading a model from a repository on a Hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.signature import Arrays
from checkpoint_release.tensors.safetensors import (
    open_safetensors,
    write_safetensors,
)
from checkpoint_release.tensors.tensor import Tensor
from tests.support.hub_server import HubServer
from tests.support.project import ROOT
from tests.support.stick_figure import stick_figure
from tests.support.tiny_release import (
    assert_close,
)


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    return stick_figure()


@pytest.fixture
def hub(tiny_release: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        names = (
            "config.json",
            "model.safetensors",
            "onnx/model.onnx",
            "onnx/config.json",
            "torchscript/model.pt",
        )
        repo = server.hub.create("ada/stick", private=False)
        repo.edit({name: (tiny_release / name).read_bytes() for name in names})
        yield server


def from_hub(
    hub: HubServer, folder: Path, *arguments: str, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own: huggingface_hub reads its address when
    it is imported.
    """
    environment = {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "NO_PROXY": "*",
    }
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    command = [sys.executable, "-m", "checkpoint_release", "run", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_repository_is_fetched_as_far_as_it_is_needed_and_then_kept(
    hub: HubServer, tmp_path: Path, tiny_inputs: Arrays, tiny_outputs: Arrays
) -> None:
    write_safetensors(
        tmp_path / "case",
        {name: Tensor.of_numpy(array) for name, array in tiny_inputs.items()},
    )
    done = from_hub(
        hub,
        tmp_path,
        "ada/stick",
        "--format",
        "onnx",
        "--inputs",
        "case",
        "--outputs",
        "out",
    )
    assert done.returncode == 0, done.stderr
    assert_close(
        {
            name: open_safetensors(tmp_path / "out")[name].numpy()
            for name in tiny_outputs
        },
        tiny_outputs,
    )
    fetched = {path.rpartition("/")[2] for _, path, _ in hub.requests}
    assert "model.onnx" in fetched and not {"model.safetensors", "model.pt"} & fetched

    offline = from_hub(
        hub, tmp_path, "ada/stick", "--format", "onnx", "--describe", offline=True
    )
    assert offline.returncode == 0, offline.stderr
    assert "motion" in offline.stdout


def test_a_revision_is_what_is_loaded(hub: HubServer, tmp_path: Path) -> None:
    first = hub.repo("ada/stick").history()[0].oid
    hub.repo("ada/stick").edit({"onnx/model.onnx": b"spoilt"})
    spoilt = from_hub(hub, tmp_path, "ada/stick", "--format", "onnx", "--describe")
    assert spoilt.returncode == 1 and "model.onnx can't be opened" in spoilt.stderr
    whole = from_hub(
        hub,
        tmp_path,
        "ada/stick",
        "--format",
        "onnx",
        "--revision",
        first,
        "--describe",
    )
    assert whole.returncode == 0, whole.stderr
    assert "ada/stick: onnx" in whole.stdout


def test_a_repository_that_is_not_there_is_one_clear_error(
    hub: HubServer, tmp_path: Path
) -> None:
    done = from_hub(hub, tmp_path, "ada/nothing", "--describe")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no ada/nothing on this machine")
    assert "Traceback" not in done.stderr
