"""What a release folder holds, and the attestations that can go with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.parity import read_report
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import sha256
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.differences import differences
from checkpoint_release.release.environment import computing_packages
from checkpoint_release.release.signing import check_signature
from tests.support.parity_json import store_report, write_parity
from tests.support.project import ROOT, tree
from tests.support.publishing import fake_artifacts, weights_file, write_artifact


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return fake_artifacts(tmp_path / "artifacts")


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_keys(folder: Path, curve: str = "prime256v1") -> tuple[Path, Path]:
    """A private key and its public one."""
    private, public = folder / f"{curve}.pem", folder / f"{curve}.pub"
    openssl("ecparam", "-name", curve, "-genkey", "-noout", "-out", private)
    openssl("ec", "-in", private, "-pubout", "-out", public)
    return private, public


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key and its public one."""
    return make_keys(tmp_path_factory.mktemp("keys"))


def test_a_release_holds_the_formats_the_card_the_parity_and_a_sample(
    artifacts: Path,
) -> None:
    assert tree(assemble(artifacts)).keys() == {
        *("README.md", "parity.json", "release.json", "SHA256SUMS"),
        *("model.safetensors", "config.json"),
        *("onnx/model.onnx", "torchscript/model.pt"),
        *("sample/inputs.safetensors", "sample/outputs.safetensors"),
    }


def test_pictures_of_figures_are_evidence_and_others_are_built(
    artifacts: Path,
) -> None:
    own = {
        "model.safetensors": weights_file(b"w"),
        "config.json": b"{}",
        "pictures/logo.svg": b"<",
    }
    write_artifact(artifacts / "safetensors", "safetensors", own)
    card = {"README.md": b"# A", "pictures/proof.svg": b"<svg/>"}
    card["pictures/example.svg"] = b"<svg>what the family shows</svg>"
    write_artifact(artifacts / "model-card", "model-card", card)
    write_parity(artifacts)
    release = read_release(assemble(artifacts))
    assert release.evidence.files.keys() == {
        *("README.md", "parity.json", "pictures/proof.svg")
    }
    assert {"pictures/logo.svg", "pictures/example.svg"} <= release.built.files.keys()


def test_a_config_is_released_once_where_it_is_the_same(artifacts: Path) -> None:
    names = tree(assemble(artifacts)).keys()
    assert "config.json" in names and "onnx/config.json" not in names
    other = {"model.onnx": b"graph", "config.json": b'{"dtype": "float16"}\n'}
    write_artifact(artifacts / "onnx", "onnx", other)
    write_parity(artifacts)
    assert "onnx/config.json" in tree(assemble(artifacts))


def test_without_safetensors_each_format_has_its_config(artifacts: Path) -> None:
    shutil.rmtree(artifacts / "safetensors")
    write_artifact(artifacts / "safetensors", "safetensors", {}, enabled=False)
    write_parity(artifacts)
    names = tree(assemble(artifacts)).keys()
    assert "onnx/config.json" in names and "config.json" not in names


def test_a_picture_that_changed_since_stops_the_release(artifacts: Path) -> None:
    card = {"README.md": b"# A", "pictures/proof.svg": b"<svg/>"}
    write_artifact(artifacts / "model-card", "model-card", card)
    (artifacts / "model-card/pictures/proof.svg").write_bytes(b"<svg>better</svg>")
    with pytest.raises(ArtifactError, match=r"proof\.svg was changed"):
        assemble(artifacts)


def test_sha256sum_finds_every_file_as_it_is_listed(artifacts: Path) -> None:
    release = assemble(artifacts)
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count(": OK") == len(tree(release)) - 1
    (release / "onnx/model.onnx").write_bytes(b"changed")
    changed = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=release)
    assert changed.returncode == 1


def test_a_format_switched_off_leaves_the_release(artifacts: Path) -> None:
    assemble(artifacts)
    shutil.rmtree(artifacts / "onnx")
    write_artifact(artifacts / "onnx", "onnx", {}, enabled=False)
    write_parity(artifacts)
    release = assemble(artifacts)
    assert not [name for name in tree(release) if name.startswith("onnx")]
    assert "onnx" not in read_release(release).formats


def test_variants_of_a_format_are_listed_as_what_can_be_run(artifacts: Path) -> None:
    (artifacts / "onnx/model_float16.onnx").write_bytes(b"half")
    variants = [{"file": "model_float16.onnx", "precision": "float16"}]
    write_manifest(artifacts / "onnx", "onnx", facts={"variants": variants})
    write_parity(artifacts)
    runnable = read_release(assemble(artifacts)).formats["onnx float16"]
    assert (runnable.format, runnable.path) == ("onnx", "onnx/model_float16.onnx")


def test_the_same_artifacts_make_the_same_bytes_anywhere(
    artifacts: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    """Another folder, another process, another hash seed: the signature and the bill of
    materials too.
    """
    packages = computing_packages()
    here = tree(assemble(artifacts, packages=packages, signing_key=keys[0]))
    shutil.copytree(artifacts, tmp_path / "elsewhere/artifacts")
    code = (
        "import sys; from pathlib import Path; from checkpoint_release.release.assemble"
        " import assemble; from checkpoint_release.release.environment import"
        " computing_packages\nassemble(Path(sys.argv[1]), signing_key="
        "Path(sys.argv[2]), packages=computing_packages())"
    )
    there = tmp_path / "elsewhere/artifacts"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    subprocess.run(
        [sys.executable, "-c", code, there, keys[0]],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    assert tree(there / "release") == here
    assert {"sbom.cdx.json", "model.sig"} <= here.keys()


def test_a_signature_holds_until_a_file_changes(
    artifacts: Path, keys: tuple[Path, Path]
) -> None:
    release = assemble(artifacts, signing_key=keys[0])
    assert check_signature(release, keys[1]) is None
    (release / "config.json").write_text("{}")
    assert "config.json" in str(check_signature(release, keys[1]))


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_a_signature_holds_on_any_curve_of_the_specification(
    artifacts: Path, tmp_path: Path, curve: str
) -> None:
    private, public = make_keys(tmp_path, curve)
    assert check_signature(assemble(artifacts, signing_key=private), public) is None


def test_a_signature_by_another_key_does_not_hold(
    artifacts: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    other, _ = make_keys(tmp_path, "secp384r1")
    assert check_signature(assemble(artifacts, signing_key=other), keys[1])


def test_a_card_left_to_people_is_not_signed_for(
    artifacts: Path, keys: tuple[Path, Path]
) -> None:
    release = assemble(artifacts, card="keep", signing_key=keys[0])
    (release / "README.md").write_text("edited on the Hub")
    assert check_signature(release, keys[1]) is None
    assert differences(release, read_release(release)).problems == []


def downloaded(release: Path, folder: Path) -> Path:
    """As `hf download --local-dir` leaves it."""
    shutil.copytree(release, folder)
    notes = folder / ".cache/huggingface"
    notes.mkdir(parents=True)
    (notes / ".gitignore").write_text("*")
    return folder


def cached(release: Path, folder: Path) -> Path:
    """As the Hub client's cache has it: links to files elsewhere."""
    for file in sorted(release.rglob("*")):
        if file.is_file():
            link = folder / file.relative_to(release)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    return folder


@pytest.mark.parametrize("way", [downloaded, cached])
def test_a_signed_release_passes_however_it_was_downloaded(
    artifacts: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    way: Callable[[Path, Path], Path],
) -> None:
    release = assemble(artifacts, signing_key=keys[0])
    folder = way(release, tmp_path / "here")
    (folder / "LICENSE").write_text("people's own")
    found = differences(folder, read_release(folder))
    assert found.problems == [] and found.people_files == ["LICENSE"]
    assert check_signature(folder, keys[1]) is None
    (folder / "config.json").unlink()
    (folder / "config.json").write_text("{ }")
    assert "config.json" in str(check_signature(folder, keys[1]))


@pytest.mark.parametrize("name", ["evil.py", "docs/evil.so", "tokenizer.json"])
def test_code_and_configuration_of_people_are_no_documents(
    artifacts: Path, name: str
) -> None:
    release = assemble(artifacts)
    (release / name).parent.mkdir(exist_ok=True)
    (release / name).write_text("x")
    found = differences(release, read_release(release))
    assert found.people_files == [] and len(found.problems) == 1


@pytest.mark.parametrize(
    "key", ["missing", "not a key", "RSA", "another curve", "with a password"]
)
def test_a_key_that_cannot_sign_is_one_clear_error(
    artifacts: Path, tmp_path: Path, key: str
) -> None:
    path = tmp_path / "key.pem"
    match key:
        case "not a key":
            path.write_text("-----BEGIN NOTHING-----\n")
        case "RSA":
            openssl("genrsa", "-out", path, "2048")
        case "another curve":
            path, _ = make_keys(tmp_path, "secp256k1")
        case "with a password":
            unprotected, _ = make_keys(tmp_path)
            password = ("-aes256", "-passout", "pass:secret")
            openssl("ec", "-in", unprotected, "-out", path, *password)
    with pytest.raises(PublishError, match="signing_key") as caught:
        assemble(artifacts, signing_key=path)
    assert caught.value.remedy and not (artifacts / "release").exists()


def test_a_public_key_in_place_of_the_private_one_is_reported_as_that(
    artifacts: Path, keys: tuple[Path, Path]
) -> None:
    with pytest.raises(PublishError, match="is a public key, which can't sign"):
        assemble(artifacts, signing_key=keys[1])


@pytest.mark.parametrize("asked", ["keyless", "sigstore"])
def test_a_signature_without_a_key_is_not_offered_and_names_why(
    artifacts: Path, asked: str
) -> None:
    with pytest.raises(PublishError, match=r"without a key .*isn't offered") as caught:
        assemble(artifacts, signing_key=asked)
    assert "Sigstore's log in reach" in caught.value.problem
    assert "docs/trust.md" in caught.value.remedy


def test_two_artifacts_that_want_one_name_are_an_error(artifacts: Path) -> None:
    (artifacts / "safetensors/release.json").write_text("{}")
    write_manifest(artifacts / "safetensors", "safetensors")
    write_parity(artifacts)
    with pytest.raises(PublishError, match=r"safetensors/release\.json"):
        assemble(artifacts)


def test_a_card_made_from_another_parity_does_not_go_out(artifacts: Path) -> None:
    path = artifacts / "parity/report.json"
    made_from = {"parity/report.json": sha256(path)}
    write_manifest(artifacts / "model-card", "model-card", made_from=made_from)
    assemble(artifacts)
    report = read_report(path)
    rule = msgspec.structs.replace(report.rule, noise_multiple=9.0)
    store_report(artifacts, msgspec.structs.replace(report, rule=rule))
    with pytest.raises(
        ArtifactError, match=r"model-card was made from another .*report\.json"
    ):
        assemble(artifacts)


@pytest.mark.parametrize(
    "name",
    ["onnx/model.onnx", "parity/sample/inputs.safetensors", "model-card/README.md"],
)
def test_a_missing_artifact_is_one_clear_error(artifacts: Path, name: str) -> None:
    assemble(artifacts)
    before = tree(artifacts / "release")
    (artifacts / name).unlink()
    with pytest.raises(ArtifactError, match="missing"):
        assemble(artifacts)
    assert tree(artifacts / "release") == before


def test_a_release_without_any_format_is_an_error(artifacts: Path) -> None:
    for name in ("safetensors", "onnx", "torchscript"):
        shutil.rmtree(artifacts / name)
        write_artifact(artifacts / name, name, {}, enabled=False)
    write_parity(artifacts)
    with pytest.raises(PublishError, match="no format"):
        assemble(artifacts)
