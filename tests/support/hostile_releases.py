"""Releases that a stranger made: their digests are right, as far as they can be, and
their model's code is the canary of tests.support.hostile_models.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from checkpoint_release.core.artifacts.release import (
    Listing,
    Release,
    Runnable,
    Sample,
    digest_of,
    read_release,
)
from checkpoint_release.core.files import FileEntry, sha256

Forge = Callable[[Path], None]
WHOLE = ("sub/config.json", "sub/model.safetensors")


def seal(release: Path, described: Release, more: tuple[str, ...] = ()) -> None:
    """Write release.json and the checksums anew.

    Args:
        release: the folder.
        described: what release.json is to say; its digests are computed again.
        more: further files to list.
    """
    listed = sorted({*described.built.files, *more})
    files = {
        name: FileEntry.of(release / name)
        for name in listed
        if (release / name).is_file()
    }
    built = Listing(sha256=digest_of(files), files=files)
    described = msgspec.structs.replace(described, built=built)
    described.write(release / "release.json")
    sums = described.checksums(sha256(release / "release.json"))
    (release / "SHA256SUMS").write_text(sums)


def as_it_is(release: Path) -> None:
    seal(release, read_release(release))


def pointing_at(name: str, format: str, path: str) -> Forge:
    """A format of release.json lies elsewhere, where there is a model, too."""

    def forge(release: Path) -> None:
        (release / "sub").mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(release / file, release / "sub" / file)
        formats = {name: Runnable(format=format, path=path)}
        described = msgspec.structs.replace(read_release(release), formats=formats)
        seal(release, described, WHOLE)

    return forge


def by_hand(change: Callable[[dict[str, Any]], object]) -> Forge:
    """The JSON of release.json, changed as no Release can say it."""

    def forge(release: Path) -> None:
        as_it_is(release)
        value = json.loads((release / "release.json").read_text())
        change(value)
        (release / "release.json").write_text(json.dumps(value))

    return forge


def with_sample(content: bytes | None = None, **arrays: Any) -> Forge:
    """The sample's outputs are other arrays, or no safetensors file at all."""

    def forge(release: Path) -> None:
        path = release / "sample/outputs.safetensors"
        if content is None:
            save_file(arrays, path)
        else:
            path.write_bytes(content)
        as_it_is(release)

    return forge


def of_dtype(dtype: str) -> bytes:
    """A safetensors file with one output of a dtype that numpy may not have."""
    entry = {"dtype": dtype, "shape": [4], "data_offsets": [0, 2]}
    header = json.dumps({"y": entry}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0"


def with_sample_elsewhere(release: Path) -> None:
    described = read_release(release)
    sample = Sample(outputs=".gitattributes")
    shutil.copy(release / "sample/outputs.safetensors", release / ".gitattributes")
    seal(release, msgspec.structs.replace(described, sample=sample))


def linked(name: str, target: str) -> Forge:
    """A file of the release becomes a link, to what is listed or to something else."""

    def forge(release: Path) -> None:
        (release / name).unlink()
        (release / name).symlink_to(target)
        as_it_is(release)

    return forge


def with_a_linked_folder(release: Path) -> None:
    other = release.parent / "other"
    other.mkdir()
    for file in ("config.json", "model.safetensors"):
        shutil.copy(release / file, other / file)
    (release / "sub").symlink_to(other)
    formats = {"safetensors": Runnable(format="safetensors", path="sub")}
    described = msgspec.structs.replace(read_release(release), formats=formats)
    seal(release, described, WHOLE)


def with_more(*names: str) -> Forge:
    """Files that aren't listed."""

    def forge(release: Path) -> None:
        as_it_is(release)
        for name in names:
            (release / name).parent.mkdir(exist_ok=True)
            shutil.copy(release / "config.json", release / name)

    return forge


def with_the_text(text: str) -> Forge:
    """release.json holds something else."""

    def forge(release: Path) -> None:
        (release / "release.json").write_text(text)

    return forge


def without_formats(release: Path) -> None:
    seal(release, msgspec.structs.replace(read_release(release), formats={}))


def _first_file(value: dict[str, Any]) -> dict[str, Any]:
    return value["built"]["files"]["config.json"]


FORGED: dict[str, Forge] = {
    "a checkpoint in a subfolder": pointing_at("safetensors", "checkpoint", "sub"),
    "a checkpoint in the root": pointing_at("safetensors", "checkpoint", ""),
    "a checkpoint by its name": pointing_at("checkpoint", "checkpoint", "sub"),
    "a pth": pointing_at("safetensors", "pth", "sub"),
    "a subfolder": pointing_at("safetensors", "safetensors", "sub"),
    "a subfolder in other words": pointing_at("safetensors", "safetensors", "./sub"),
    "a subfolder with a slash": pointing_at("safetensors", "safetensors", "sub/"),
    "a file": pointing_at("safetensors", "safetensors", "sub/model.safetensors"),
    "a variant in a subfolder": pointing_at("safetensors x", "safetensors", "sub"),
    "a variant that is a file of a subfolder": pointing_at(
        "safetensors x", "safetensors", "sub/model.safetensors"
    ),
    "another format's name": pointing_at("onnx", "safetensors", ""),
    "a name in capitals": pointing_at("Safetensors", "safetensors", ""),
    "a path outside": pointing_at("safetensors", "safetensors", "../other"),
    "a path outside and back": pointing_at("safetensors", "safetensors", "sub/.."),
    "an absolute path": pointing_at("safetensors", "safetensors", "/tmp"),
    "a path with NUL": pointing_at("safetensors", "safetensors", "sub\0"),
    "no format at all": pointing_at("", "", ""),
    "a linked folder": with_a_linked_folder,
    "a config that is a dangling link": linked("config.json", "no-such-file"),
    "a config that is a link in a circle": linked("config.json", "config.json"),
    "a config that is a device": linked("config.json", "/dev/null"),
    "a sha256 that is a number": by_hand(lambda value: value["built"].update(sha256=5)),
    "a file's sha256 that is a number": by_hand(
        lambda value: _first_file(value).update(sha256=5)
    ),
    "a file's sha256 that is null": by_hand(
        lambda value: _first_file(value).update(sha256=None)
    ),
    "a size that is a text": by_hand(lambda value: _first_file(value).update(size="1")),
    "a huge size": by_hand(lambda value: _first_file(value).update(size=1 << 200)),
    "formats that are a list": by_hand(lambda value: value.update(formats=[])),
    "formats that are a text": by_hand(
        lambda value: value.update(formats={"safetensors": "sub"})
    ),
    "a path that is a number": by_hand(
        lambda value: value["formats"]["safetensors"].update(path=0)
    ),
    "no formats": without_formats,
    "a sample that isn't listed": with_sample_elsewhere,
    "a sample without outputs": with_sample(),
    "a sample without values": with_sample(y=np.zeros((0, 2), np.float32)),
    "a sample of float4": with_sample(of_dtype("F4")),
    "a sample of no dtype": with_sample(of_dtype("os.system")),
    "a sample that is a pickle": with_sample(b"\x80\x04cos\nsystem\n."),
    "a config that isn't listed": with_more("onnx/tokenizer/config.json"),
    "facts of a checkpoint": with_more("checkpoint.json", "weights.safetensors"),
    "an index of shards": with_more("model.safetensors.index.json"),
    "a module": with_more("model.py", "__pycache__/model.pyc"),
    "a list": with_the_text("[]"),
    "null": with_the_text("null"),
    "brackets": with_the_text("[" * 100_000),
    "nothing": with_the_text(""),
    "digits": with_the_text("9" * 5_000),
}
