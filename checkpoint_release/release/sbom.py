"""The software bill of materials that can go with a release, in CycloneDX 1.6.

It is the same bytes for the same release: what the library would take from the clock or
from a random number is set here.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.files import FileEntry, checksums

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_NAMESPACE = uuid.UUID("d6c3ab2e-6d0f-5a55-8f0b-6f1f6f0f9a61")
"""Of the serial numbers, which are derived from the release's digests."""


def write_sbom(
    path: Path, files: Mapping[str, FileEntry], packages: Mapping[str, str]
) -> None:
    """Write the bill of materials: the model's files, and the packages that made them.

    Args:
        path: where to.
        files: path in the release → size and sha256.
        packages: name of a Python package → version.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    digests = {name: entry.sha256 for name, entry in files.items()}
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, checksums(digests)))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    bom.metadata.component = Component(
        name="release", type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref="release"
    )
    for name, entry in sorted(files.items()):
        bom.components.add(_file_component(name, entry))
    libraries = [_package_component(*package) for package in sorted(packages.items())]
    bom.components.update(libraries)
    bom.register_dependency(bom.metadata.component, libraries)
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n", encoding="utf-8")


def _file_component(name: str, entry: FileEntry) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=name,
        type=ComponentType.FILE,
        bom_ref=f"file:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256)],
        properties=[Property(name="size", value=str(entry.size))],
    )


def _package_component(name: str, version: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    url = PackageURL("pypi", name=name, version=version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
    )


def installed_versions(pins: Path) -> dict[str, str]:
    """The installed versions of the packages that a constraints file pins.

    A package that isn't installed, because it is pinned for another platform, is left
    out.

    Raises:
        PublishError: the file is missing.
    """
    try:
        lines = pins.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise PublishError(
            f"{pins} is missing, and {{publish.sbom}} needs it",
            "set {publish.sbom} to false",
            options=["publish.sbom"],
        ) from None
    versions = {}
    for line in lines:
        name, pinned, _ = line.partition("#")[0].partition("==")
        if not pinned:
            continue
        try:
            versions[name.strip()] = metadata.version(name.strip())
        except metadata.PackageNotFoundError:
            continue
    return versions
