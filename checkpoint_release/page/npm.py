"""onnxruntime-web from the npm registry: one pinned archive, fetched once and cached.

An archive is used only if it has the SHA-512 that is pinned, so that it doesn't matter
which registry or mirror it came from.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from checkpoint_release.core.artifacts.typed import Record, as_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry, artifact_folder, read_json
from checkpoint_release.page.files import page_files

REGISTRY = "https://registry.npmjs.org"
_REGISTRY_VARIABLE = "npm_config_registry"  # npm's own
_TIMEOUT = 60  # seconds without a byte
_LARGEST = 200_000_000  # bytes of an archive


class Package(Record, frozen=True, kw_only=True):
    """What of an npm package is used.

    Attributes:
        name, version: of the package.
        integrity: of its archive: sha512- and the digest in base64, as npm writes it.
        folder: in the package; the files are in it.
        files: name → size and sha256.
    """

    name: str
    version: str
    integrity: str
    folder: str
    files: dict[str, FileEntry]

    @property
    def archive(self) -> str:
        """The archive's file name."""
        return f"{self.name}-{self.version}.tgz"


def runtime_package() -> Package:
    """The onnxruntime-web that the page is made for."""
    path = page_files()["runtime.json"]
    return as_record(read_json(path)["package"], Package, str(path))


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where fetched packages are kept.

    Args:
        environment: XDG_CACHE_HOME in it comes before ~/.cache.
    """
    home = environment.get("XDG_CACHE_HOME")
    return Path(home or "~/.cache").expanduser() / "checkpoint-release"


def unpacked(package: Package, cache: Path, archive: Path | None = None) -> Path:
    """The folder that holds a package's files, each with the digest that is pinned.

    Args:
        package: which one.
        cache: folder for all packages; it may not exist yet.
        archive: the package's archive, on machines without internet. None: the registry
            gives it, unless the cache has the files.

    Raises:
        ArtifactError: it can't be had, or isn't what is pinned.
    """
    folder = cache / f"{package.name}-{package.version}"
    if _holds(folder, package):
        return folder
    content = _read(archive) if archive else _fetch(package)
    source = str(archive or package.archive)
    _require_integrity(content, package, source)
    with artifact_folder(folder) as staging:
        _extract(content, package, staging)
    return folder


def _holds(folder: Path, package: Package) -> bool:
    """Whether all files are there, as they are pinned."""
    for name, entry in package.files.items():
        path = folder / name
        if not path.is_file() or FileEntry.of(path) != entry:
            return False
    return True


def _read(archive: Path) -> bytes:
    """The bytes of an archive on the disk.

    Raises:
        ArtifactError: it can't be read.
    """
    try:
        return archive.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"{archive} can't be read: {error.strerror}",
            "name the package's archive, as `npm pack` writes it",
        ) from None


def _fetch(package: Package) -> bytes:
    """The archive from the registry, or from npm_config_registry.

    Raises:
        ArtifactError: it doesn't give it.
    """
    registry = os.environ.get(_REGISTRY_VARIABLE, REGISTRY)
    url = f"{registry.rstrip('/')}/{package.name}/-/{package.archive}"
    remedy = (
        f"connect to it, or get {package.archive} elsewhere and name it in {{runtime}}"
    )
    if not url.startswith(("https://", "http://")):
        raise ArtifactError(
            f"{_REGISTRY_VARIABLE} is {registry!r}, not the address of a registry",
            remedy,
            options=["runtime"],
        )
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # noqa: S310 above
            content: bytes = answer.read(_LARGEST)
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise ArtifactError(
            f"{url} can't be fetched: {reason}", remedy, options=["runtime"]
        ) from None
    return content


def _require_integrity(content: bytes, package: Package, source: str) -> None:
    """Require the pinned SHA-512.

    Raises:
        ArtifactError: it has another.
    """
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if f"sha512-{digest}" != package.integrity:
        raise ArtifactError(
            f"{source} has the integrity sha512-{digest[:12]}…, and {package.name}"
            f" {package.version} has {package.integrity[:19]}…",
            "get the package from the npm registry again",
        )


def _extract(content: bytes, package: Package, folder: Path) -> None:
    """Write the files that are used, by their names alone.

    Raises:
        ArtifactError: one is missing, or isn't what is pinned.
    """
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for name in package.files:
            path = PurePosixPath("package", package.folder, name).as_posix()
            (folder / name).write_bytes(_member(archive, path, package))
    if not _holds(folder, package):
        raise ArtifactError(
            f"the files in {package.archive} are not those that are pinned",
            "install checkpoint-release again",
        )


def _member(archive: tarfile.TarFile, path: str, package: Package) -> Any:
    """The bytes of one file of an archive.

    Raises:
        ArtifactError: it isn't there.
    """
    try:
        file = archive.extractfile(path)
    except KeyError:
        file = None
    if file is None:
        raise ArtifactError(
            f"{package.archive} holds no {path}", "install checkpoint-release again"
        )
    return file.read()
