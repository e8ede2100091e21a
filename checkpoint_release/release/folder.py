"""What a release holds: exactly the files of a Hub repository, assembled from artifacts
that parity-check passed.

release.json is its manifest (path → size, sha256), SHA256SUMS says the same to
`sha256sum -c`. Neither holds a version, a time or a commit: the same artifacts make the
same bytes, and the Hub's tag names the version.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from checkpoint_release.core.artifacts.manifest import MANIFEST, Manifest, read_manifest
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import (
    FileEntry,
    artifact_folder,
    copy_file,
    read_json,
    sha256,
    write_json,
)
from checkpoint_release.release.signing import SBOM, SIGNATURE, sign, write_sbom

CARD = "README.md"
RELEASE = "release.json"
SUMS = "SHA256SUMS"
PARITY = "parity.json"
FORMATS = {
    "safetensors": "",
    "onnx": "onnx",
    "torchscript": "torchscript",
    "torch_export": "torch_export",
}
"""Format → folder in the release ("" is the root, where transformers looks)."""
SAMPLE = ("sample/inputs.safetensors", "sample/outputs.safetensors")
"""Random inputs and what the checkpoint makes of them in float64, rounded to float32.
"""
OF_TOOLS = (".git", ".cache/huggingface")
"""Folders that may lie in a release and are no part of it: of a git clone, and of `hf
download --local-dir`.
"""

_REBUILD = "run `dvc repro`, which rebuilds and checks what changed"
Copy = Callable[[Path, Path], FileEntry]


@dataclass(frozen=True)
class Runnable:
    """Something in a release that computes: a format, and its folder or file in the
    release.
    """

    format: str
    path: str


@dataclass(frozen=True)
class Release:
    """A release's own description, from its release.json.

    Attributes:
        formats: name in parity.json (such as "onnx" or "onnx float16") → what to run.
        files: path → size and sha256; release.json, SHA256SUMS and the signature are
            not among them.
        card: "replace" if the card is one of the files; "keep" if it is left to the
            people who edit it on the Hub.
    """

    formats: dict[str, Runnable]
    files: dict[str, FileEntry]
    card: str

    @property
    def unlisted(self) -> frozenset[str]:
        """Files that may be there without being listed."""
        return frozenset(
            {
                RELEASE,
                SUMS,
                SIGNATURE,
                ".gitattributes",
                *((CARD,) if self.card == "keep" else ()),
            }
        )


# Assembling


def assemble(
    artifacts: Path,
    *,
    card: str = "replace",
    sbom: Path | None = None,
    signing_key: Path | None = None,
    copy: Copy | None = None,
) -> Path:
    """Make artifacts/release, whole or not at all.

    Args:
        artifacts: the folder of all artifacts.
        card: "keep" leaves the card out of the manifest, for on the Hub people may edit
            it.
        sbom: a list of pinned packages (constraints.txt) to make a bill of materials
            of; None: no such paper.
        signing_key: a private key in PEM to sign with; None: no signature.
        copy: copies a file (source, destination) and digests it.

    Returns:
        The release's folder.

    Raises:
        ArtifactError: an artifact is missing, or isn't what its manifest says.
        PublishError: it wasn't checked by parity-check, or the release can't be
            written.
    """
    copy = copy or copy_file
    manifests = {name: read_manifest(artifacts / name) for name in FORMATS}
    formats = {
        name: manifest for name, manifest in manifests.items() if manifest.enabled
    }
    if not formats:
        raise PublishError(
            f"no format in {artifacts} is enabled",
            "set one of formats to true, then run `dvc repro`",
        )
    _require_parity(artifacts, list(formats))
    sources = _sources(artifacts, formats)
    folder = artifacts / "release"
    try:
        with artifact_folder(folder) as staging:
            files: dict[str, FileEntry] = {}
            for name, (source, promised) in sorted(sources.items()):
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                files[name] = copy(source, staging / name)
                if files[name] != promised:
                    raise ArtifactError(
                        f"{source} was changed after it was written: it has sha256"
                        f" {files[name].sha256[:12]}…, and its manifest says"
                        f" {promised.sha256[:12]}…",
                        _REBUILD,
                    )
            if sbom:
                write_sbom(staging / SBOM, files, pinned_packages(sbom))
                files[SBOM] = FileEntry.of(staging / SBOM)
            _describe(staging, _runnables(formats), files, card)
            if signing_key:
                sign(
                    staging,
                    signing_key,
                    ignored=frozenset({CARD}) if card == "keep" else frozenset(),
                )
    except FileNotFoundError as error:
        raise ArtifactError(f"{error.filename} is missing", _REBUILD) from None
    except OSError as error:
        problem = f"the release can't be written to {folder}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            problem += (
                f" (it takes {sum(promised.size for _, promised in sources.values()):,}"
                " bytes)"
            )
        raise PublishError(
            problem,
            "make room or mend the disk, then run `dvc repro`; nothing was changed",
        ) from None
    return folder


def _require_parity(artifacts: Path, formats: list[str]) -> None:
    path = artifacts / PARITY
    parity = read_json(path)
    if not isinstance(parity, Mapping) or parity.get("passed") is not True:
        raise PublishError(f"{path} does not say that parity-check passed", _REBUILD)
    checked = parity.get("checked")
    for name in formats:
        seen = checked.get(name) if isinstance(checked, Mapping) else None
        manifest = artifacts / name / MANIFEST
        if seen is None:
            raise PublishError(
                f"{artifacts / name} was not checked: {path} doesn't name it", _REBUILD
            )
        if seen != sha256(manifest):
            raise PublishError(
                f"{artifacts / name} is not what parity-check saw: {manifest} has"
                f" sha256 {sha256(manifest)[:12]}…, and {path} checked"
                f" {str(seen)[:12]}…",
                _REBUILD,
            )


def _require_current(artifacts: Path, folder: str, manifest: Manifest) -> None:
    """Raise unless the folder was made from the very artifacts that go out."""
    for name, digest in manifest.made_from.items():
        path = artifacts / name if name == PARITY else artifacts / name / MANIFEST
        if path.is_file() and sha256(path) != digest:
            raise PublishError(
                f"{artifacts / folder} was made from another {path} than the one"
                " there is",
                _REBUILD,
            )


def _sources(
    artifacts: Path, formats: Mapping[str, Manifest]
) -> dict[str, tuple[Path, FileEntry]]:
    """Path in the release → the artifact that it is copied from, and what it must be."""
    found: dict[str, tuple[Path, FileEntry]] = {}

    def add(name: str, source: Path, entry: FileEntry) -> None:
        if name in found or name in (RELEASE, SUMS, SIGNATURE, SBOM):
            taken = found[name][0] if name in found else "the release's own"
            raise PublishError(
                f"{source} would be {name} in the release, and so would {taken}",
                "rename the file",
            )
        found[name] = source, entry

    for format, manifest in formats.items():
        for name, entry in manifest.files.items():
            add(
                (PurePosixPath(FORMATS[format]) / name).as_posix(),
                artifacts / format / name,
                entry,
            )
    for folder, names in (("parity", SAMPLE), ("model-card", (CARD,))):
        manifest = read_manifest(artifacts / folder)
        _require_current(artifacts, folder, manifest)
        listed = manifest.files
        for name in names:
            if name not in listed:
                raise ArtifactError(
                    f"{artifacts / folder / MANIFEST} does not list {name}", _REBUILD
                )
            add(name, artifacts / folder / name, listed[name])
    add(PARITY, artifacts / PARITY, FileEntry.of(artifacts / PARITY))
    return found


def _runnables(formats: Mapping[str, Manifest]) -> dict[str, Runnable]:
    """What computes: each format, and the variants that its manifest names."""
    found: dict[str, Runnable] = {}
    for format, manifest in formats.items():
        found[format] = Runnable(format, FORMATS[format])
        for variant in manifest.facts.get("variants", []):
            name = f"{format} {variant['precision']}"
            found[name] = Runnable(format, f"{FORMATS[format]}/{variant['file']}")
    return found


def _describe(
    folder: Path,
    formats: Mapping[str, Runnable],
    files: Mapping[str, FileEntry],
    card: str,
) -> None:
    """Write release.json and SHA256SUMS."""
    listed = {
        name: entry
        for name, entry in sorted(files.items())
        if card != "keep" or name != CARD
    }
    described = {
        "formats": {name: asdict(runnable) for name, runnable in formats.items()},
        "sample": {"inputs": SAMPLE[0], "outputs": SAMPLE[1]},
        "card": card,
        "files": {name: asdict(entry) for name, entry in listed.items()},
    }
    write_json(folder / RELEASE, described)
    listed[RELEASE] = FileEntry.of(folder / RELEASE)
    lines = [f"{entry.sha256}  {name}\n" for name, entry in sorted(listed.items())]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def pinned_packages(constraints: Path) -> dict[str, str]:
    """The packages that a constraints file names, with the versions that are really
    installed.

    Raises:
        PublishError: the file is missing.
    """
    try:
        lines = constraints.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise PublishError(
            f"{constraints} is missing, and publish.sbom needs it",
            "set publish.sbom to false",
        ) from None
    names = [
        line.split("==")[0].strip()
        for line in lines
        if "==" in line and not line.lstrip().startswith("#")
    ]
    packages = {}
    for name in names:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue  # pinned for another platform
    return packages


# Reading


def read_release(folder: Path) -> Release:
    """Read a release's manifest, without looking at its files (see `differences`).

    Raises:
        ArtifactError: there is no release.json, or it isn't one.
    """
    path = folder / RELEASE
    if not path.is_file():
        raise ArtifactError(
            f"{folder} holds no {RELEASE}",
            "name the folder or the repository of a release",
        )
    value: Any = read_json(path)
    try:
        files = {
            _inside(name): FileEntry(**entry) for name, entry in value["files"].items()
        }
        formats = {
            name: Runnable(**runnable) for name, runnable in value["formats"].items()
        }
        for runnable in formats.values():
            _inside(runnable.path or RELEASE)
        return Release(formats, files, value["card"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is not the manifest of a release: {error!r}",
            "get the release again",
        ) from None


def _inside(name: str) -> str:
    """A path that stays in the folder; a release from elsewhere may say anything."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"{name!r} leads out of the release")
    # JSON can hold half a character, which no file name and no message can: a
    # ValueError too
    name.encode()
    return name


def differences(folder: Path, release: Release) -> list[str]:
    """Where the folder isn't what release.json and SHA256SUMS say, one line each.

    Whatever is there and isn't listed is told, not files alone: a folder or a link
    named `model` would be imported in the place of model.py. A listed file may be a
    link, as in the Hub client's and DVC's caches: its bytes count.

    Raises:
        ArtifactError: something in it can't be read.
    """
    try:
        return _differences(folder, release)
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or folder} can't be read: {error.strerror}",
            "make it readable, or get the release again",
        ) from None


def _differences(folder: Path, release: Release) -> list[str]:
    found: list[str] = []
    allowed = release.files.keys() | release.unlisted
    present = set(_present(folder, [*allowed, *OF_TOOLS]))
    for name, entry in release.files.items():
        if name not in present or not (folder / name).is_file():
            found.append(f"{name} is missing")
        elif (there := FileEntry.of(folder / name)) != entry:
            found.append(
                f"{name} is not what was released: {there.size} bytes with sha256"
                f" {there.sha256[:12]}…, and {RELEASE} says {entry.size} bytes with"
                f" {entry.sha256[:12]}…"
            )
    found += [_extra(folder, name) for name in sorted(present - allowed)]
    listed = {name: entry.sha256 for name, entry in release.files.items()}
    listed[RELEASE] = sha256(folder / RELEASE)
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(listed.items()))
    if not (folder / SUMS).is_file():
        found.append(f"{SUMS} is missing")
    elif (folder / SUMS).read_bytes() != sums.encode():
        found.append(f"{SUMS} and {RELEASE} do not agree")
    return found


def _present(folder: Path, expected: list[str], within: str = "") -> Iterator[str]:
    """The path of everything in the folder but OF_TOOLS; a folder that holds nothing
    expected is one, ending in /.
    """
    with os.scandir(folder / within) as entries:
        for entry in entries:
            name = f"{within}{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                yield name
            elif any(other.startswith(f"{name}/") for other in expected):
                yield from _present(folder, expected, f"{name}/")
            elif name not in OF_TOOLS:
                yield f"{name}/"


def _extra(folder: Path, name: str) -> str:
    shown = name if name.isprintable() else repr(name)
    if (folder / name).is_symlink():
        return (
            f"{shown} is not in {RELEASE} (a symbolic link to"
            f" {str((folder / name).readlink())!r})"
        )
    if PurePosixPath(name).name == "__pycache__":
        return (
            f"{shown} is not in {RELEASE}: Python leaves it where a module is imported,"
            " and runs what it holds in the module's place, so that it may be more"
            " than a leftover; delete it"
        )
    return f"{shown} is not in {RELEASE}"
