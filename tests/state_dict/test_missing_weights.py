"""Where a path leads to no weights, the error names the likely cause."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from checkpoint_release import inspect
from checkpoint_release.core.errors import CheckpointError
from checkpoint_release.state_dict.find import find_state_dict
from checkpoint_release.state_dict.sources import read_source


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        read_source(path)
    return caught.value


def test_a_file_that_dvc_has_not_fetched_is_described_as_that(tmp_path: Path) -> None:
    (tmp_path / "run.dvc").write_text("outs:\n- path: run\n")
    for path in (tmp_path / "run", tmp_path / "run" / "model.pth"):
        assert refusal(path).remedy == f"run dvc pull {tmp_path / 'run.dvc'}"
    assert "dvc" not in refusal(tmp_path / "other.pth").remedy


def test_a_link_that_leads_nowhere_is_named_with_its_target(tmp_path: Path) -> None:
    link = tmp_path / "model.pth"
    link.symlink_to("blobs/1234")
    assert "a link to blobs/1234" in refusal(link).problem
    link.unlink()
    link.symlink_to("model.pth")
    assert "symbolic links; it is a link to model.pth" in refusal(link).problem


def test_a_folder_whose_link_leads_nowhere_is_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").symlink_to("../blobs/1234")
    error = refusal(tmp_path)
    assert "model.safetensors is a link to ../blobs/1234" in error.problem


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tf_model.h5", b"\x89HDF\r\n\x1a\n", "tf_model.h5 is an HDF5 file"),
        ("saved_model.pb", b"\x08\x01", "is a model of TensorFlow"),
        ("model.gguf", b"GGUF", "model.gguf is a GGUF file"),
        ("notes.md", b"# Notes", "it holds notes.md"),
    ],
)
def test_a_folder_with_another_library_s_weights_says_so(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem in refusal(tmp_path).problem


def test_a_checkpoint_of_an_unusual_name_in_a_folder_is_pointed_to(
    tmp_path: Path,
) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "model_best.pth.tar")
    assert "model_best.pth.tar, if that is it" in refusal(tmp_path).remedy


def test_blocks_of_ranks_in_safetensors_are_no_whole_weights(tmp_path: Path) -> None:
    place = {"DCP_SHARDING_INFO": '{"w": {"saved_offsets": [2]}}', "format": "pt"}
    for rank in (1, 2):
        path = tmp_path / f"shard-0000{rank}-model-00001-of-00001.safetensors"
        save_file({"w": torch.ones(2)}, path, place)
    for given in (path, tmp_path):
        error = refusal(given)
        assert "holds one rank's blocks of tensors" in error.problem
        assert "consolidate_safetensors_files" in error.remedy
    save_file({"w": torch.ones(4)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert read_source(tmp_path / "model.safetensors").value.keys() == {"w"}


@pytest.mark.parametrize(
    ("value", "problem", "remedy"),
    [
        ([{"w": 1}, 3], r"a list \(dict with 1 keys, int\)", "the state dict alone"),
        (3, "it is a int", "the state dict alone"),
        ({"state": {}, "param_groups": []}, "state of an optimizer", "beside it"),
        ({"epoch": 3}, "its keys are epoch", "name the key"),
    ],
)
def test_what_holds_no_state_dict_gets_a_remedy_that_helps(
    value: Any, problem: str, remedy: str
) -> None:
    with pytest.raises(CheckpointError, match=problem) as caught:
        find_state_dict(value, None)
    assert remedy in caught.value.remedy


def test_weights_that_were_never_loaded_are_not_to_be_made_dense(
    tmp_path: Path,
) -> None:
    torch.save({"w": torch.ones(2, device="meta")}, tmp_path / "meta.pth")
    torch.save({"w": torch.eye(2).to_sparse()}, tmp_path / "sparse.pth")
    for name, remedy in (("meta", "the device meta have none"), ("sparse", "dense")):
        value = read_source(tmp_path / f"{name}.pth").value
        with pytest.raises(CheckpointError) as caught:
            find_state_dict(value, None)
        assert remedy in caught.value.remedy


def test_inspect_notes_that_there_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    (note,) = inspect(tmp_path / "list.pth").notes
    assert note == "there is no state dict: it is a list (Tensor)"
