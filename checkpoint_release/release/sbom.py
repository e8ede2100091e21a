"""The bill of materials that can go with a release, in CycloneDX 1.7.

It names the model with its model card, the checkpoint that it was made from, its files,
and the packages that computed it.

It is the same bytes for the same release: what the library would take from the clock or
from a random number is set here.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.artifacts.parity import ParityReport
from checkpoint_release.core.files import FileEntry, canonical_json, checksums
from checkpoint_release.core.signature import TensorSpec
from checkpoint_release.release.environment import LIBRARY, Package

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License, LicenseExpression

_NAMESPACE = uuid.UUID("d6c3ab2e-6d0f-5a55-8f0b-6f1f6f0f9a61")
"""Of the serial numbers, which are derived from the release's digests."""
_MODEL = "release"  # the model's bom-ref
_CHECKPOINT = "checkpoint"  # the checkpoint's


@dataclass(frozen=True)
class ModelFacts:
    """What a bill of materials says of the model.

    Attributes:
        checkpoint: what checkpoint.json holds.
        parity: the report of the parity check.
        front_matter: the model card's, as its YAML gives it.
    """

    checkpoint: CheckpointFacts
    parity: ParityReport
    front_matter: Mapping[str, Any]


def write_sbom(
    path: Path,
    files: Mapping[str, FileEntry],
    packages: Mapping[str, Package],
    facts: ModelFacts,
) -> None:
    """Write the bill of materials.

    Args:
        path: where to.
        files: path in the release → size and sha256.
        packages: that computed the release, by name.
        facts: about the model.
    """
    from cyclonedx.output.json import JsonV1Dot7

    bom = _bom(files, packages, facts)
    document: dict[str, Any] = json.loads(JsonV1Dot7(bom).output_as_string())
    # the library has no type for a model card
    document["metadata"]["component"]["modelCard"] = _model_card(facts)
    path.write_text(canonical_json(document), encoding="utf-8", newline="\n")


def _bom(
    files: Mapping[str, FileEntry], packages: Mapping[str, Package], facts: ModelFacts
) -> Bom:
    """Everything but the model card."""
    from cyclonedx.model.bom import Bom

    digests = {name: entry.sha256 for name, entry in files.items()}
    digests[_CHECKPOINT] = facts.checkpoint.origin.sha256
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, checksums(digests)))
    bom.metadata.timestamp = None  # type: ignore[assignment]
    model = _model_component(facts)
    bom.metadata.component = model
    checkpoint = _checkpoint_component(facts)
    bom.components.add(checkpoint)
    for name, entry in sorted(files.items()):
        bom.components.add(_file_component(name, entry))
    libraries = {name: _package_component(each) for name, each in packages.items()}
    bom.components.update(libraries.values())
    bom.register_dependency(model, [checkpoint, *_made_by(libraries)])
    for name, package in packages.items():
        needed = [libraries[need] for need in package.needs if need in libraries]
        bom.register_dependency(libraries[name], needed)
    return bom


def _made_by(libraries: Mapping[str, Component]) -> Iterable[Component]:
    """What the release depends on at first hand: the library that made it."""
    own = libraries.get(LIBRARY)
    return libraries.values() if own is None else [own]


def _model_component(facts: ModelFacts) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    licence = facts.front_matter.get("license")
    stated = licence if isinstance(licence, str) else ""
    if stated == "other":
        stated = str(facts.front_matter.get("license_name") or "other")
    name = facts.front_matter.get("model_name") or facts.checkpoint.architecture.factory
    return Component(
        name=str(name),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        licenses=_licences(stated),
    )


def _checkpoint_component(facts: ModelFacts) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType

    origin = facts.checkpoint.origin
    properties = [
        Property(name="size", value=str(origin.size)),
        Property(name="container", value=origin.container),
    ]
    if origin.adapter:
        properties.append(Property(name="adapter:sha256", value=origin.adapter))
    return Component(
        name=_CHECKPOINT,
        type=ComponentType.DATA,
        bom_ref=_CHECKPOINT,
        description="The checkpoint out of training that the release was made from",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=origin.sha256)],
        properties=properties,
    )


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


def _package_component(package: Package) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    url = PackageURL("pypi", name=package.name, version=package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=str(url),
        purl=url,
        licenses=_licences(package.licence),
    )


def _licences(stated: str) -> list[License | LicenseExpression]:
    """A licence as CycloneDX has it: by SPDX's identifier, as an expression of them, or
    by its name.

    Args:
        stated: what a package or a card says; empty: nothing.
    """
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(stated)] if stated else []


def _model_card(facts: ModelFacts) -> dict[str, Any]:
    """CycloneDX's model card: what the model is, takes and gives, and how exactly its
    formats compute it.
    """
    architecture = facts.checkpoint.architecture
    signature = architecture.signature
    parameters: dict[str, Any] = {
        "modelArchitecture": architecture.factory,
        "inputs": [{"format": _tensor_format(spec)} for spec in signature.inputs],
        "outputs": [{"format": _tensor_format(spec)} for spec in signature.outputs],
    }
    task = facts.front_matter.get("pipeline_tag")
    if isinstance(task, str):
        parameters["task"] = task
    datasets = facts.front_matter.get("datasets")
    if isinstance(datasets, list):
        named = [{"type": "dataset", "name": str(name)} for name in datasets]
        parameters["datasets"] = named
    metrics = [*_measured(facts.front_matter), *_parity_metrics(facts.parity)]
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }


def _tensor_format(spec: TensorSpec) -> str:
    """A tensor in one line, such as "motion: float32 [sequence, batch, 48]"."""
    shape = "" if spec.shape is None else f" [{', '.join(map(str, spec.shape))}]"
    return f"{spec.name}: {spec.dtype}{shape}"


def _measured(front_matter: Mapping[str, Any]) -> list[dict[str, str]]:
    """The card's results, as the Hub's model-index has them."""
    rows = []
    for model in _mappings(front_matter.get("model-index")):
        for result in _mappings(model.get("results")):
            dataset = result.get("dataset")
            data = dataset.get("name") if isinstance(dataset, dict) else None
            for metric in _mappings(result.get("metrics")):
                row = {name: str(metric.get(name)) for name in ("type", "value")}
                if data:
                    row["slice"] = str(data)
                rows.append(row)
    return rows


def _mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list; none of what isn't a list."""
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def _parity_metrics(report: ParityReport) -> list[dict[str, str]]:
    """How far each format's outputs are from the checkpoint's own, at most."""
    rows = []
    for name, figures in report.formats.items():
        for output, errors in figures.outputs.items():
            rows.append(
                {
                    "type": "largest absolute error against the checkpoint in float64",
                    "value": f"{errors.max_abs_error}",
                    "slice": f"{name}, output {output}",
                }
            )
    return rows
