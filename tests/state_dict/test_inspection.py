"""What a file holds is listed without torch and without running anything in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release import inspect
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.tensors.safetensors import write_safetensors
from checkpoint_release.tensors.tensor import Tensor
from tests.support.project import ROOT

FIXTURES = ROOT / "tests/fixtures"


def test_a_training_checkpoint_has_state_dicts_and_facts() -> None:
    found = inspect(FIXTURES / "legacy20_training_checkpoint/checkpoint.pth")
    assert found.kind == "pth"
    assert list(found.state_dicts) == ["model_state_dict"]
    tensors = found.state_dicts["model_state_dict"]
    assert tensors["pose_decoder.0.weight"][0] == "F32"
    assert "epoch" in found.training
    assert "model_state_dict" not in found.training
    assert not found.unsafe_globals


def test_a_bare_state_dict_lies_at_the_top() -> None:
    found = inspect(str(FIXTURES / "v3_48_state_dict/checkpoint.pth"))
    assert list(found.state_dicts) == [""]
    assert not found.training


def test_safetensors_are_listed_with_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    bias = Tensor.of_numpy(np.zeros((2, 3), np.float16))
    write_safetensors(path, {"bias": bias}, {"format": "pt"})
    found = inspect(path)
    assert found.kind == "safetensors"
    assert found.state_dicts == {"": {"bias": ("F16", (2, 3))}}
    assert found.training == {"format": "pt"}
    assert "bias  F16 [2, 3]" in str(found)


def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "canary"),)

    weights = {"w": torch.ones(2)}
    torch.save({"model": weights, "config": Payload()}, tmp_path / "evil.pth")
    found = inspect(tmp_path / "evil.pth")
    (name,) = found.unsafe_globals
    assert name.endswith(".mkdir")
    assert found.state_dicts == {"model": {"w": ("F32", (2,))}}
    assert f"{name} ×1" in str(found)
    assert not (tmp_path / "canary").exists()


def test_tensors_that_cannot_be_released_are_a_note(tmp_path: Path) -> None:
    import torch

    sparse = torch.eye(3).to_sparse()
    torch.save({"state_dict": {"w": sparse}}, tmp_path / "sparse.pth")
    found = inspect(tmp_path / "sparse.pth")
    assert not found.state_dicts
    assert "w: a sparse tensor" in found.notes[0]


@pytest.mark.parametrize("content", [b"", b"notes", b"PK\x03\x04 and no more"])
def test_another_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        inspect(path)
    with pytest.raises(CheckpointError, match="can't be read"):
        inspect(tmp_path / "missing.pth")


def test_the_command_prints_the_report_without_torch() -> None:
    path = FIXTURES / "v3_lora_injected/checkpoint.pth"
    code = (
        "import sys\n"
        "from checkpoint_release.__main__ import main\n"
        f"assert main(['inspect', {str(path)!r}]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "lora_A" in done.stdout
