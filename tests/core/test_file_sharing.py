"""Files that share their bytes, where nobody can write through them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from checkpoint_release.core import file_sharing
from checkpoint_release.core.file_sharing import give_back, share_file
from checkpoint_release.core.files import FileEntry

PROTECTED, WRITABLE = 0o444, 0o644


@pytest.fixture(autouse=True)
def a_few_bytes_are_worth_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_sharing, "_WORTH_SHARING", 1000)


def weights(folder: Path, mode: int, size: int = 5000) -> Path:
    path = folder / "weights"
    path.write_bytes(bytes(range(256)) * (size // 256 + 1))
    path.chmod(mode)
    return path


def share_blocks(one: Path, other: Path) -> bool:
    return one.stat().st_ino == other.stat().st_ino


def test_a_file_that_nobody_may_write_to_gets_a_second_name(tmp_path: Path) -> None:
    source = weights(tmp_path, PROTECTED)
    entry = share_file(source, tmp_path / "copy")
    assert entry == FileEntry.of(source) == FileEntry.of(tmp_path / "copy")
    if not file_sharing._reflink(source, tmp_path / "by_blocks"):
        assert share_blocks(source, tmp_path / "copy")


@pytest.mark.parametrize(
    ("mode", "size"), [(WRITABLE, 5000), (0o464, 5000), (PROTECTED, 500)]
)
def test_any_other_file_is_copied_so_that_an_edit_changes_one_of_them(
    tmp_path: Path, mode: int, size: int
) -> None:
    source = weights(tmp_path, mode, size)
    before = source.read_bytes()
    entry = share_file(source, tmp_path / "copy")
    assert entry == FileEntry.of(source)
    assert not share_blocks(source, tmp_path / "copy")
    with (tmp_path / "copy").open("r+b") as file:
        file.write(b"edited")
    assert source.read_bytes() == before


def test_what_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    source = weights(tmp_path, PROTECTED)
    (tmp_path / "copy").write_text("somebody's")
    with pytest.raises(FileExistsError):
        share_file(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "somebody's"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux frees parts of files")
def test_blocks_that_are_given_back_leave_the_disk_and_the_rest_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"x" * (3 << 20))
    before = path.stat().st_blocks
    with path.open("r+b") as file:
        give_back(file, 1 << 20, 2 << 20)
    assert path.stat().st_size == 3 << 20
    assert path.stat().st_blocks * 512 == before * 512 - (1 << 20)
    content = path.read_bytes()
    assert content[: 1 << 20] == content[2 << 20 :] == b"x" * (1 << 20)
    assert not any(content[1 << 20 : 2 << 20])
