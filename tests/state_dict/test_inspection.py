"""What a file holds is listed without torch and without running anything in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint_release import inspect
from checkpoint_release.__main__ import main
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


def test_a_set_of_one_shard_is_called_by_its_format(tmp_path: Path) -> None:
    bias = Tensor.of_numpy(np.zeros(3, np.float32))
    write_safetensors(tmp_path / "model-00001-of-00001.safetensors", {"bias": bias}, {})
    index = {"weight_map": {"bias": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect(tmp_path).kind == "safetensors, 1 shard"


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


def saved(path: Path, value: Any) -> Path:
    import torch

    torch.save(value, path)
    return path


def test_exit_codes_tell_clean_unreadable_and_dangerous_files_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    weights = {"w": torch.ones(2)}
    clean = saved(tmp_path / "clean.pth", weights)
    dangerous = saved(tmp_path / "bad.pth", {"model": weights, "hook": os.system})
    broken = tmp_path / "broken.pth"
    broken.write_bytes(clean.read_bytes()[:-50])
    verdicts = {}
    for path in (clean, dangerous, broken):
        code = main(["inspect", "--json", str(path)])
        verdicts[path.name] = (code, json.loads(capsys.readouterr().out)["verdict"])
    assert verdicts == {
        "clean.pth": (0, "clean"),
        "bad.pth": (2, "dangerous"),
        "broken.pth": (1, "unreadable"),
    }


def test_json_describes_every_tensor_and_those_that_are_tied(tmp_path: Path) -> None:
    import torch

    shared = torch.zeros(3, 2, dtype=torch.float16)
    weights = {"embed.weight": shared, "head.weight": shared, "b": torch.ones(4)}
    found = inspect(saved(tmp_path / "tied.pth", {"model": weights, "epoch": 3}))
    described = json.loads(json.dumps(found.to_json()))
    assert described["state_dicts"]["model"] == {
        "tensors": {
            "embed.weight": {"dtype": "F16", "shape": [3, 2], "bytes": 12},
            "head.weight": {"dtype": "F16", "shape": [3, 2], "bytes": 12},
            "b": {"dtype": "F32", "shape": [4], "bytes": 16},
        },
        "bytes": 40,
        "tied": [["embed.weight", "head.weight"]],
    }
    assert described["training"] == {"epoch": 3}
    assert "the same as embed.weight" in str(found)


@pytest.mark.parametrize(
    ("facts", "tool"),
    [
        ({"pytorch-lightning_version": "2.5.1", "epoch": 1}, "PyTorch Lightning 2.5.1"),
        ({"ds_version": "0.16.4"}, "DeepSpeed 0.16.4"),
        ({"meta": {"mmengine_version": "0.10"}}, "MMEngine 0.10"),
        ({"epoch": 1}, "torch.save"),
    ],
)
def test_the_tool_is_known_by_what_it_leaves(
    tmp_path: Path, facts: dict[str, Any], tool: str
) -> None:
    import torch

    path = saved(tmp_path / "a.pth", {"state_dict": {"w": torch.ones(2)}, **facts})
    assert inspect(path).tool == tool


def test_the_family_that_fits_and_the_parameters_for_it_are_named() -> None:
    found = inspect(FIXTURES / "v3_lora_injected/checkpoint.pth")
    (fit,) = found.fits
    assert fit.factory == "checkpoint_release.models.stick_figure:build"
    assert found.params["model.factory"] == fit.factory
    assert "checkpoint.lora_alpha" not in found.params  # the file states it


def test_an_unknown_model_gets_what_only_its_author_can_state(tmp_path: Path) -> None:
    import torch

    found = inspect(saved(tmp_path / "mine.pth", {"conv.weight": torch.ones(2, 2)}))
    assert not found.fits
    assert found.params["model.factory"].startswith("<")
    assert found.params["model.inputs"] is None
    assert "  inputs: null" in str(found)


def test_only_the_directory_of_a_file_is_read(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "large.pth"
    weights = {"w": torch.empty(1 << 30, device="meta")}
    with torch.serialization.skip_data():
        torch.save({"model": {"w": torch.empty_like(weights["w"], device="cpu")}}, path)
    assert path.stat().st_size > 4 << 30  # with a hole for the weights
    begun = time.process_time()
    assert inspect(path).state_dicts["model"]["w"] == ("F32", (1 << 30,))
    assert time.process_time() - begun < 1
