"""A path that a JSON file names stays in that file's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.named_paths import require_inside
from checkpoint_release.tensors.safetensors import read_index


@pytest.mark.parametrize(
    "name",
    [
        "../elsewhere.safetensors",
        "a/../../elsewhere",
        "/etc/passwd",
        "//server/share",
        "..\\elsewhere",
        "a\\b",
        "C:elsewhere",
        "C:\\elsewhere",
        "",
        ".",
        "..",
    ],
)
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=r"a\.json names .* leads out of"):
        require_inside(name, tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 256, "a/" + "\u00e9" * 128])
def test_a_path_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match="no file can be called"):
        require_inside(name, tmp_path / "a.json")


@pytest.mark.parametrize(
    "name", ["a", "a/b.c", "...", "a..b", "\u00e9", "x" * 255, "a b", "./a"]
)
def test_a_path_inside_is_allowed_whether_it_is_there_or_not(
    tmp_path: Path, name: str
) -> None:
    require_inside(name, tmp_path / "a.json")


def index(folder: Path) -> Path:
    """An index whose only shard is "shard"."""
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"w": "shard"}}))
    return path


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (folder := tmp_path / "model").mkdir()
    (tmp_path / "private").write_bytes(b"")
    for target in (tmp_path / "private", Path("../private"), Path("shard")):
        (folder / "shard").unlink(missing_ok=True)
        (folder / "shard").symlink_to(target)
        with pytest.raises(ArtifactError, match="a link that leads out"):
            read_index(index(folder))
    (folder / "shard").unlink()
    (folder / "shard").symlink_to("other")
    assert read_index(index(folder)) == {"w": "shard"}


def test_links_into_the_caches_of_the_hub_and_of_dvc_are_followed(
    tmp_path: Path,
) -> None:
    snapshot = tmp_path / "models--lab--motion/snapshots/0123"
    blob = tmp_path / "models--lab--motion/blobs/abcd"
    cached = tmp_path / "cache/files/md5/ab/cdef"
    for folder in (snapshot, blob.parent, cached.parent):
        folder.mkdir(parents=True)
    for file in (blob, cached):
        file.write_bytes(b"")
    (snapshot / "shard").symlink_to("../../blobs/abcd")
    assert read_index(index(snapshot)) == {"w": "shard"}
    (folder := tmp_path / "artifacts").mkdir()
    (folder / "shard").symlink_to(cached)
    assert read_index(index(folder)) == {"w": "shard"}
    (snapshot / "shard").unlink()
    (snapshot / "shard").symlink_to("../../../private")
    with pytest.raises(ArtifactError, match="a link that leads out"):
        read_index(index(snapshot))
