"""What the loader answers to archives of torch that aren't of the kinds it opens."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from checkpoint_release import load
from checkpoint_release.core.errors import CheckpointReleaseError

# The layout of torch 1.0 to 1.3: the modules in JSON, each tensor in a file.
OLD_TORCHSCRIPT = {
    "model/version": b"1\n",
    "model/model.json": b'{"protoVersion": "2", "mainModule": {}, "tensors": []}',
    "model/code/model.py": b"op_version_set = 0\n",
    "model/tensors/0": b"\0" * 8,
}
# What torch._inductor.aoti_compile_and_package writes: a library for dlopen.
COMPILED = {
    "model/archive_format": b"pt2",
    "model/archive_version": b"0",
    "model/version": b"3\n",
    "model/byteorder": b"little",
    "model/data/aotinductor/model/model.wrapper.so": b"\x7fELF",
    "model/data/aotinductor/model/model.wrapper_metadata.json": b"{}",
}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (OLD_TORCHSCRIPT, "is not a model.*zip archive of 4 files.*no data.pkl"),
        (COMPILED, "config.json is missing"),
    ],
)
def test_an_archive_of_another_layout_gives_one_error(
    members: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "model.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointReleaseError, match=message):
        load(file)
