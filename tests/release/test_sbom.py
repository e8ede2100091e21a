"""The bill of materials of a release, by CycloneDX's own schema."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.environment import (
    Package,
    computing_packages,
)
from tests.support.project import tree
from tests.support.publishing import fake_artifacts

CARD = """---
datasets:
- acme/motion
license: other
license_name: Acme Research License
model_name: Restorer
pipeline_tag: other
model-index:
- name: Restorer
  results:
  - task: {type: other}
    dataset: {type: acme/motion, name: Acme motion}
    metrics:
    - {type: val_loss, value: 0.125}
---
# Restorer
"""


SOME = {"torch": Package("torch", "2.13.0", (), "BSD-3-Clause")}


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return fake_artifacts(tmp_path / "artifacts", card=CARD)


@pytest.fixture(scope="module")
def packages() -> dict[str, Package]:
    return computing_packages()


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory, packages: dict[str, Package]) -> Any:
    """A whole one, to read only."""
    artifacts = fake_artifacts(tmp_path_factory.mktemp("sbom") / "artifacts", card=CARD)
    return document(artifacts, packages)


def document(artifacts: Path, packages: dict[str, Package]) -> Any:
    release = assemble(artifacts, packages=packages)
    return json.loads((release / "sbom.cdx.json").read_text())


def schema_error(document: Any) -> str | None:
    """What CycloneDX's schema 1.7 says against a document; None: nothing."""
    # here, because each process that collects these tests would pay for the import
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_7).validate_str(json.dumps(document))
    return None if error is None else str(error)


def components(document: Any) -> dict[str, Any]:
    return {part["bom-ref"]: part for part in document["components"]}


def test_it_is_valid_by_the_schema_1_7(bill: Any) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.7")
    assert schema_error(bill) is None


@pytest.mark.parametrize(
    "place", ["model card", "licence", "digest", "reference", "unknown key"]
)
def test_the_schema_finds_what_is_wrong(artifacts: Path, place: str) -> None:
    bill = document(artifacts, SOME)
    part = bill["components"][0]
    match place:
        case "model card":
            bill["metadata"]["component"]["modelCard"]["modelParameters"]["task"] = 7
        case "licence":
            part["licenses"] = [{"license": {"id": "No-Such-Licence"}}]
        case "digest":
            part["hashes"] = [{"alg": "SHA-256", "content": "short"}]
        case "reference":
            bill["dependencies"][0]["ref"] = ""
        case "unknown key":
            bill["metadata"]["component"]["colour"] = "blue"
    assert schema_error(bill)


def test_it_names_the_packages_that_computed_and_none_that_only_tests(
    bill: Any,
) -> None:
    libraries = {
        part["name"]: part for part in bill["components"] if part["type"] == "library"
    }
    assert libraries["numpy"]["version"] == metadata.version("numpy")
    (licence,) = libraries["checkpoint-release"]["licenses"]
    assert licence["license"]["id"] == "Apache-2.0"
    assert {"torch", "onnx", "msgspec", "dvc"} <= libraries.keys()
    tools = ("pytest", "ruff", "mypy", "hypothesis", "uvicorn", "jsonschema")
    for tool in tools:
        assert metadata.version(tool)  # it is installed here
        assert tool not in libraries
    without = [name for name, part in libraries.items() if "licenses" not in part]
    assert len(without) <= 2, without


def test_what_needs_what_is_stated(bill: Any) -> None:
    needs = {row["ref"]: row.get("dependsOn", []) for row in bill["dependencies"]}
    (library,) = [ref for ref in needs if ref.startswith("pkg:pypi/checkpoint-release")]
    assert needs["release"] == sorted(["checkpoint", library])
    assert any(ref.startswith("pkg:pypi/safetensors@") for ref in needs[library])
    assert needs.keys() >= {ref for ref in components(bill) if ref.startswith("pkg:")}


def test_a_model_s_own_requirements_are_named_where_its_project_states_them(
    tmp_path: Path, packages: dict[str, Package]
) -> None:
    (tmp_path / "requirements.txt").write_text(
        "-c constraints.txt\n# a comment\ncheckpoint-release[pipeline]==0.2.0\n"
        "regex==2026.1  # of the tokenizer\n"
    )
    own = computing_packages(tmp_path / "requirements.txt")
    assert own["regex"].version == metadata.version("regex")
    assert own.keys() - {"regex"} == packages.keys()


def test_it_names_the_checkpoint_and_every_file_by_digest(artifacts: Path) -> None:
    parts = components(document(artifacts, SOME))
    (digest,) = parts["checkpoint"]["hashes"]
    assert digest == {"alg": "SHA-256", "content": "0" * 64}
    listed = read_release(artifacts / "release").files
    for name in ("model.safetensors", "onnx/model.onnx", "parity.json"):
        (digest,) = parts[f"file:{name}"]["hashes"]
        assert digest["content"] == listed[name].sha256


def test_its_model_card_says_what_the_card_and_the_check_say(artifacts: Path) -> None:
    model = document(artifacts, SOME)["metadata"]["component"]
    assert model["name"] == "Restorer"
    assert model["licenses"][0]["license"]["name"] == "Acme Research License"
    card = model["modelCard"]
    assert card["modelParameters"] == {
        "modelArchitecture": "net:build",
        "inputs": [{"format": "x: float32 [1, 2]"}],
        "outputs": [{"format": "y: float32 [1, 2]"}],
        "task": "other",
        "datasets": [{"type": "dataset", "name": "acme/motion"}],
    }
    first, *errors = card["quantitativeAnalysis"]["performanceMetrics"]
    assert first == {"type": "val_loss", "value": "0.125", "slice": "Acme motion"}
    assert [row["slice"] for row in errors] == [
        f"{name}, output y" for name in ("safetensors", "onnx", "torchscript")
    ]


@pytest.mark.parametrize("card", ["", "---\nlicense: [\n---\n", "---\n7\n---\n"])
def test_a_card_without_metadata_that_reads_leaves_its_part_out(
    tmp_path: Path, card: str
) -> None:
    bill = document(fake_artifacts(tmp_path / "artifacts", card=card), SOME)
    assert "licenses" not in bill["metadata"]["component"]
    assert schema_error(bill) is None


def test_it_is_evidence_of_one_environment_and_no_built_file(artifacts: Path) -> None:
    """Another build of torch is another environment, and makes the same weights."""
    assemble(artifacts, packages=SOME)
    first = read_release(artifacts / "release")
    other = Package("torch", "2.13.0+cu130", (), "BSD-3-Clause")
    assemble(artifacts, packages={"torch": other})
    second = read_release(artifacts / "release")
    assert first.built == second.built
    assert first.evidence.sha256 != second.evidence.sha256


def test_without_the_checkpoint_s_facts_there_is_one_clear_error(
    artifacts: Path,
) -> None:
    assemble(artifacts)
    before = tree(artifacts / "release")
    (artifacts / "checkpoint/checkpoint.json").unlink()
    with pytest.raises(ArtifactError, match=r"checkpoint\.json is missing"):
        assemble(artifacts, packages=SOME)
    assert tree(artifacts / "release") == before
