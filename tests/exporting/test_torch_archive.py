"""torch's archives in their canonical form: the same bytes whatever the process did
before.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from checkpoint_release.core.artifacts.checkpoint import CheckpointFolder
from checkpoint_release.core.errors import ExportError
from checkpoint_release.core.trust import OWN_ARTIFACTS
from checkpoint_release.exporting.torch_archive import check_archive, rewrite
from checkpoint_release.exporting.torchscript import is_debugging, trace
from checkpoint_release.exporting.torchscript_classes import rename_classes
from checkpoint_release.exporting.tracing import Traceable, silence_known_warnings
from tests.support import models


def test_a_path_in_the_archive_is_caught(
    torch_files: dict[str, Path], tmp_path: Path
) -> None:
    source = torch_files["torchscript"]
    check_archive(source)

    def leak(records: dict[str, bytes]) -> dict[str, bytes]:
        code = records["code/__torch__.py"] + b"# /home/someone/model.py\n"
        return {**records, "code/__torch__.py": code}

    rewrite(source, tmp_path / "model.pt", edit=leak)
    with pytest.raises(
        ExportError, match=r"__torch__.py holds '/home/someone/model.py'"
    ):
        check_archive(tmp_path / "model.pt")


def test_classes_of_equal_text_become_one_and_others_are_numbered() -> None:
    def module(body: str) -> bytes:
        return f"class Linear(Module):\n  {body}\n".encode()

    top = (
        b"class Top(Module):\n  a : __torch__.x.Linear\n  b :"
        b" __torch__.x.___torch_mangle_1.Linear\n  c :"
        b" __torch__.x.___torch_mangle_2.Linear\n"
    )
    records = {
        "data.pkl": (
            b"\x80\x02c__torch__.x.___torch_mangle_1\nLinear\n"
            b"c__torch__.x.___torch_mangle_2\nLinear\n0."
        ),
        "code/__torch__/y/___torch_mangle_9.py": top,
        "code/__torch__/x.py": module("weight : Tensor"),
        "code/__torch__/x/___torch_mangle_1.py": module("bias : Tensor"),
        "code/__torch__/x/___torch_mangle_2.py": module("weight : Tensor"),
    }
    renamed = rename_classes(records)
    assert (
        renamed["data.pkl"] == b"\x80\x02c__torch__\nLinear_1\nc__torch__\nLinear\n0."
    )
    assert (
        renamed["code/__torch__.py"].decode()
        == "class Linear(Module):\n  weight : Tensor\nclass Linear_1(Module):\n  bias :"
        " Tensor\nclass Top(Module):\n  a : __torch__.Linear\n  b :"
        " __torch__.Linear_1\n  c : __torch__.Linear\n"
    )


def test_an_archive_is_the_same_whatever_was_traced_before_and_the_file_s_name(
    tmp_path: Path,
) -> None:
    raw_files, files = [], []
    for number in range(2):
        raw, file = tmp_path / f"name{number}.pt", tmp_path / f"{number}.pt"
        checkpoint = models.checkpoint(
            tmp_path / f"checkpoint{number}", models.TiedLanguageModel
        )
        traceable = Traceable.open(CheckpointFolder.open(checkpoint, OWN_ARTIFACTS))
        with silence_known_warnings():
            torch.jit.save(trace(traceable), raw)
        rewrite(raw, file, drop=is_debugging, edit=rename_classes)
        raw_files.append(raw.read_bytes())
        files.append(file.read_bytes())
    assert (
        raw_files[0] != raw_files[1]
    )  # torch's own differ, or this would show nothing
    assert files[0] == files[1]
