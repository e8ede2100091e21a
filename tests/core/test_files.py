"""Folders appear whole or not at all, and digests are those of the bytes on disk."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from checkpoint_release.core.artifacts.manifest import (
    digests,
    read_manifest,
    read_verified,
    write_manifest,
)
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import (
    DigestedFile,
    FileEntry,
    artifact_folder,
    copy_file,
)


@pytest.mark.parametrize(
    "sizes",
    [[], [0], [1], [1 << 20], [300_000] * 20, [5 << 20, 1], [7, (1 << 20) - 7, 0, 9]],
)
def test_a_file_is_digested_as_it_is_written_whatever_the_pieces(
    tmp_path: Path, sizes: list[int]
) -> None:
    pieces = [random.Random(n).randbytes(size) for n, size in enumerate(sizes)]
    with DigestedFile(tmp_path / "file") as file:
        for piece in pieces:
            assert file.write(memoryview(piece)) == len(piece)
    content = b"".join(pieces)
    assert (tmp_path / "file").read_bytes() == content
    assert file.entry == FileEntry(len(content), hashlib.sha256(content).hexdigest())
    assert copy_file(tmp_path / "file", tmp_path / "copy") == file.entry
    assert (tmp_path / "copy").read_bytes() == content


def test_an_error_while_writing_comes_out_and_leaves_no_thread_waiting(
    tmp_path: Path,
) -> None:
    with pytest.raises(ZeroDivisionError), DigestedFile(tmp_path / "file") as file:
        file.write(b"begun")
        raise ZeroDivisionError
    assert file.entry.size == 5


def write_folder(folder: Path, content: str) -> Path:
    with artifact_folder(folder) as new:
        (new / "file").write_text(content)
        (new / "below").mkdir()
        (new / "below/file").write_text(content * 2)
        write_manifest(new, "test")
    return folder


def test_a_manifest_lists_every_file_and_verify_finds_each_kind_of_change(
    tmp_path: Path,
) -> None:
    folder = write_folder(tmp_path / "a", "x")
    manifest = read_manifest(folder)
    assert manifest.sha256s == {
        "below/file": hashlib.sha256(b"xx").hexdigest(),
        "file": hashlib.sha256(b"x").hexdigest(),
    }
    (folder / ".gitignore").write_text("/file")  # DVC's own
    manifest.verify(folder)
    (folder / "more").touch()
    with pytest.raises(ArtifactError, match=r"more is not in"):
        manifest.verify(folder)
    (folder / "more").unlink()
    (folder / "below/file").write_text("xy")
    with pytest.raises(
        ArtifactError, match=r"below/file was changed after it was written: 2 bytes"
    ):
        manifest.verify(folder)
    (folder / "below/file").unlink()
    with pytest.raises(ArtifactError, match=r"below/file is missing"):
        manifest.verify(folder)


def test_several_folders_are_verified_together_and_the_damaged_one_is_named(
    tmp_path: Path,
) -> None:
    for name in "abc":
        write_folder(tmp_path / name, name)
    assert list(read_verified(tmp_path, "abc")) == ["a", "b", "c"]
    (tmp_path / "b/file").write_text("B")
    with pytest.raises(ArtifactError, match="b/file was changed"):
        read_verified(tmp_path, "abc")


def test_a_file_digested_when_it_was_written_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    known = FileEntry(1, "0" * 64)
    assert digests(tmp_path, {"file": known}) == {"file": known}


def test_a_folder_that_fails_leaves_the_old_one_and_nothing_else(
    tmp_path: Path,
) -> None:
    write_folder(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), artifact_folder(tmp_path / "a") as new:
        (new / "file").write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a/file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "a", "old")
    rename, calls = Path.rename, []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "a", "new")
    assert len(calls) == 3 and (tmp_path / "a/file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
