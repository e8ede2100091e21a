"""The attestations of a signed release, as others' tools read them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement as TheirStatement
from ruamel.yaml import YAML
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from sigstore import dsse
from sigstore.errors import VerificationError as SigstoreVerificationError

from checkpoint_release.core.artifacts.attestation import (
    PROOF,
    PROVENANCE,
    Making,
    Statement,
    Subject,
)
from checkpoint_release.core.artifacts.checkpoint import CheckpointFacts
from checkpoint_release.core.artifacts.receipt import Checkout
from checkpoint_release.core.artifacts.release import read_release
from checkpoint_release.core.params import PublishParams, parse_section
from checkpoint_release.core.run_record import read_run_record, without_places
from checkpoint_release.core.signing_keys import (
    SigningKey,
    fingerprint,
    load_public_key,
    load_signing_key,
    named_fingerprint,
)
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.checkouts import sources_checkout
from checkpoint_release.release.envelopes import write_attestation
from checkpoint_release.release.verify import Check, verify
from pipeline.publish import publish
from tests.release.test_assemble import make_keys
from tests.release.test_verify_order import Opened
from tests.support.project import Project, tree
from tests.support.publishing import PARAMS, fake_artifacts

MAKING = Making(
    parameters={"onnx": {"opset": 17}},
    stages={"load": {"cmd": "python -m pipeline.load", "deps": {}, "outs": {}}},
    packages={"checkpoint-release": "0.2.0", "torch": "2.13.0+cpu"},
    checkpoint="c" * 64,
    adapter=None,
    checkout=Checkout(commit="a" * 40, dirty=False),
)
FILES = (PROVENANCE, PROOF)


def made(facts: CheckpointFacts) -> Making:
    assert facts.origin.sha256 == "0" * 64
    return MAKING


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def release(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    artifacts = fake_artifacts(tmp_path / "artifacts")
    return assemble(artifacts, signing_key=keys[0], making=made)


def statement_of(path: Path) -> dict[str, Any]:
    envelope = json.loads(path.read_text())
    return json.loads(base64.b64decode(envelope["payload"]))


def failed(checks: list[Check]) -> list[str]:
    return [f"{check.name}: {check.message}" for check in checks if not check.passed]


# Others' verifiers


def accepted_by_securesystemslib(path: Path, public: Path) -> bool:
    envelope = json.loads(path.read_text())
    (signature,) = envelope["signatures"]
    key = SSlibKey.from_crypto(
        load_pem_public_key(public.read_bytes()), keyid=signature["keyid"]
    )
    try:
        Envelope.from_dict(envelope).verify([key], 1)
    except VerificationError:
        return False
    return True


def accepted_by_openssl(path: Path, public: Path) -> bool:
    """By the specification alone: what is signed is written out here."""
    envelope = json.loads(path.read_text())
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
    head = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode()
    signed, signature = path.with_suffix(".signed"), path.with_suffix(".sig")
    signed.write_bytes(head + payload)
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "dgst", "-sha256", "-verify", str(public)]
    done = subprocess.run(
        [*command, "-signature", str(signature), str(signed)], capture_output=True
    )
    return done.returncode == 0


def accepted_by_sigstore(path: Path, public: Path) -> bool:
    """Its verifier of DSSE, and its model of an in-toto statement.

    Both have public names for bundles alone, which name a certificate and a log.
    """
    envelope = dsse.Envelope._from_json(path.read_bytes())
    key = load_pem_public_key(public.read_bytes())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        payload = dsse._verify(key, envelope)
    except SigstoreVerificationError:
        return False
    subjects = dsse.Statement(payload)._inner.subjects
    return {each.name for each in subjects} >= {"model.safetensors", "README.md"}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "accepted",
    [accepted_by_securesystemslib, accepted_by_openssl, accepted_by_sigstore],
)
def test_others_accept_the_signature_and_no_other(
    release: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    name: str,
    accepted: Callable[[Path, Path], bool],
) -> None:
    path = release / name
    assert accepted(path, keys[1])
    assert not accepted(path, make_keys(tmp_path)[1])
    envelope = json.loads(path.read_text())
    changed = base64.b64decode(envelope["payload"]).replace(b"PASSED", b"FAILED")
    changed = changed.replace(b"2.13.0", b"2.14.0")
    envelope["payload"] = base64.b64encode(changed).decode()
    path.write_text(json.dumps(envelope))
    assert not accepted(path, keys[1])


@pytest.mark.parametrize("name", FILES)
def test_in_toto_s_library_takes_each_statement(release: Path, name: str) -> None:
    statement = json_format.ParseDict(
        statement_of(release / name), statement_pb2.Statement()
    )
    TheirStatement.copy_from_pb(statement).validate()
    (release / "other.json").write_text("{}")
    statement.subject[0].ClearField("digest")
    with pytest.raises(ValueError, match="digest"):
        TheirStatement.copy_from_pb(statement).validate()


def test_the_predicates_are_slsa_s_provenance_and_in_toto_s_test_result(
    release: Path,
) -> None:
    provenance, proof = (statement_of(release / name) for name in FILES)
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    assert proof["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    # the libraries' own types refuse a key that they don't know
    read = json_format.ParseDict(provenance["predicate"], provenance_pb2.Provenance())
    assert read.run_details.builder.version["checkpoint-release"] == "0.2.0"
    result = json_format.ParseDict(proof["predicate"], test_result_pb2.TestResult())
    assert result.result == "PASSED" and len(result.passed_tests) == 3
    provenance["predicate"]["buildDefinition"]["colour"] = "blue"
    with pytest.raises(json_format.ParseError, match="colour"):
        json_format.ParseDict(provenance["predicate"], provenance_pb2.Provenance())


# What they say


def test_the_provenance_names_checkpoint_commit_parameters_and_versions(
    release: Path,
) -> None:
    definition = statement_of(release / PROVENANCE)["predicate"]["buildDefinition"]
    dependencies = {each["name"]: each for each in definition["resolvedDependencies"]}
    assert dependencies["checkpoint"]["digest"] == {"sha256": "c" * 64}
    assert dependencies["sources"]["digest"] == {"gitCommit": "a" * 40}
    assert dependencies["torch"]["uri"] == "pkg:pypi/torch@2.13.0+cpu"
    assert definition["externalParameters"]["parameters"] == MAKING.parameters
    assert definition["internalParameters"]["stages"] == MAKING.stages
    predicate = statement_of(release / PROVENANCE)["predicate"]
    assert Making.from_predicate(predicate, "here") == MAKING


def test_they_are_about_every_file_but_themselves(release: Path) -> None:
    described = read_release(release)
    assert set(FILES) <= described.evidence.files.keys()
    for name in FILES:
        subjects = statement_of(release / name)["subject"]
        named = {each["name"]: each["digest"]["sha256"] for each in subjects}
        others = described.files.keys() - set(FILES)
        assert named == {name: described.files[name].sha256 for name in others}


def test_the_same_release_and_key_make_the_same_bytes(
    release: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    again = fake_artifacts(tmp_path / "again")
    assert tree(assemble(again, signing_key=keys[0], making=made)) == tree(release)


def test_an_unsigned_release_has_none(tmp_path: Path) -> None:
    artifacts = fake_artifacts(tmp_path / "artifacts")
    assert not (assemble(artifacts, making=made) / "attestations").exists()


# verify


def test_verify_reports_who_signed_them_and_what_they_say(
    release: Path, keys: tuple[Path, Path]
) -> None:
    checks = verify(release, public_key=keys[1], opener=Opened())
    assert failed(checks) == []
    rows = {check.name: check.message for check in checks}
    assert rows["provenance"] == (
        "signed by prime256v1.pub: made from the checkpoint cccccccccccc…, by the"
        " sources of git commit aaaaaaaaaaaa"
    )
    assert rows["proof"].startswith("signed by prime256v1.pub: the formats compute")
    unchecked = verify(release, opener=Opened())
    assert failed(unchecked) == []
    rows = {check.name: check.message for check in unchecked}
    assert rows["provenance"].startswith("signature not checked: made from")


def about_another_file(statement: dict[str, Any]) -> None:
    statement["subject"][0]["digest"]["sha256"] = "0" * 64


def about_fewer_files(statement: dict[str, Any]) -> None:
    del statement["subject"][0]


def about_more_files(statement: dict[str, Any]) -> None:
    statement["subject"].append({"name": "extra", "digest": {"sha256": "0" * 64}})


def of_another_type(statement: dict[str, Any]) -> None:
    statement["predicateType"] = "https://example.org/other"


def failed_proof(statement: dict[str, Any]) -> None:
    statement["predicate"]["result"] = "FAILED"


def without_a_checkpoint(statement: dict[str, Any]) -> None:
    statement["predicate"]["buildDefinition"]["resolvedDependencies"] = []


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (PROVENANCE, about_another_file, "it is about another README.md"),
        (PROVENANCE, about_fewer_files, "it says nothing of README.md"),
        (PROOF, about_more_files, "it is about extra, which is not there"),
        (PROOF, of_another_type, "it is of the type 'https://example.org/other'"),
        (PROOF, failed_proof, "its result is 'FAILED'"),
        (PROVENANCE, without_a_checkpoint, "names no checkpoint"),
    ],
)
def test_a_statement_that_does_not_fit_fails_though_it_is_signed(
    tmp_path: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    """By whoever holds the key: everything else about the release is right."""

    def wrong(path: Path, statement: Statement, key: Any) -> None:
        value = statement.to_json()
        if path.as_posix().endswith(name):
            change(value)
        subject = [Subject(**each) for each in value["subject"]]
        other = Statement(
            subject=subject,
            predicate_type=value["predicateType"],
            predicate=value["predicate"],
        )
        write_attestation(path, other, key)

    monkeypatch.setattr("checkpoint_release.release.making.write_attestation", wrong)
    artifacts = fake_artifacts(tmp_path / "artifacts")
    release = assemble(artifacts, signing_key=keys[0], making=made)
    opened = Opened()
    (line,) = failed(verify(release, public_key=keys[1], opener=opened))
    assert message in line and opened.paths == []


def test_an_attestation_by_another_key_fails(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_signing_key(make_keys(tmp_path, "secp384r1")[0])

    def by_another(path: Path, statement: Statement, key: SigningKey) -> None:
        write_attestation(path, statement, other)

    monkeypatch.setattr(
        "checkpoint_release.release.making.write_attestation", by_another
    )
    artifacts = fake_artifacts(tmp_path / "artifacts")
    release = assemble(artifacts, signing_key=keys[0], making=made)
    lines = failed(verify(release, public_key=keys[1], opener=Opened()))
    assert lines == [
        "provenance: is not signed by prime256v1.pub",
        "proof: is not signed by prime256v1.pub",
    ]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"payload": "é"}', "\xff"])
def test_what_is_no_envelope_is_one_clear_finding(
    tmp_path: Path,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
) -> None:
    def write(path: Path, statement: Statement, key: Any) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("latin-1"))

    monkeypatch.setattr("checkpoint_release.release.making.write_attestation", write)
    artifacts = fake_artifacts(tmp_path / "artifacts")
    release = assemble(artifacts, signing_key=keys[0], making=made)
    lines = failed(verify(release, public_key=keys[1], opener=Opened()))
    assert [line.partition(":")[0] for line in lines] == ["provenance", "proof"]


def test_an_attestation_that_was_removed_or_changed_is_found(
    release: Path, keys: tuple[Path, Path]
) -> None:
    content = (release / PROOF).read_bytes()
    (release / PROOF).unlink()
    assert failed(verify(release)) == [f"files: {PROOF} is missing"]
    (release / PROOF).write_bytes(content + b"\n")
    assert "is not what was released" in failed(verify(release))[0]


# What the pipeline writes down


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A clone with its dvc.lock, in which artifacts lie."""
    project = Project.checkout(tmp_path / "project")
    monkeypatch.chdir(project.path)
    monkeypatch.setenv("DVC_STAGE", "publish")
    shutil.rmtree(project.path / "artifacts", ignore_errors=True)
    fake_artifacts(project.path / "artifacts")
    return project


def published(key: Path) -> dict[str, Any]:
    """The provenance that the stage publish writes in the working folder."""
    own = {"repo_id": None, "version": None, "extra": "checkpoints/extra"}
    values = PARAMS | own | {"signing_key": str(key)}
    publish(parse_section(PublishParams, values), Path("artifacts"))
    return statement_of(Path("artifacts/release") / PROVENANCE)["predicate"]


def test_the_stage_names_the_commit_and_the_stages_of_dvc_lock(
    checkout: Project, keys: tuple[Path, Path]
) -> None:
    definition = published(keys[0])["buildDefinition"]
    making = Making.from_predicate({"buildDefinition": definition}, "here")
    head = checkout.git("rev-parse", "HEAD").strip()
    assert making.checkout == Checkout(commit=head, dirty=False)
    assert making.parameters["onnx"]["opset"] == 17
    assert making.parameters["publish"] == {
        "card": "replace",
        "page": True,
        "sbom": False,
    }
    assert making.checkpoint == "0" * 64
    assert {"torch", "onnx", "checkpoint-release"} <= making.packages.keys()
    assert "pytest" not in making.packages
    load = making.stages["load"]
    assert load["cmd"] == "python -m pipeline.load"
    assert load["deps"].keys() >= {"checkpoints/demo.pth", "constraints.txt"}
    assert load["outs"]["artifacts/checkpoint"].startswith("md5:")
    assert "publish" not in making.stages
    assert str(keys[0].parent) not in json.dumps(definition)


def test_a_commit_of_documents_and_parameters_leaves_the_release_as_it_is(
    checkout: Project, keys: tuple[Path, Path]
) -> None:
    published(keys[0])
    before = tree(checkout.path / "artifacts/release")
    (checkout.path / "docs/more.md").write_text("more")
    checkout.commit("Documents")
    published(keys[0])
    assert tree(checkout.path / "artifacts/release") == before
    (checkout.path / "pipeline/load.py").write_text("# other\n")
    sources = read_run_record().sources
    changed = sources_checkout(sources)
    assert changed is not None and changed.dirty
    checkout.commit("Code")
    committed = sources_checkout(sources)
    head = checkout.git("rev-parse", "HEAD").strip()
    assert committed == Checkout(commit=head, dirty=False)


@pytest.mark.parametrize("lacking", ["dvc.lock", "DVC"])
def test_where_dvc_did_not_run_the_stages_its_record_of_another_run_is_not_stated(
    checkout: Project,
    keys: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    lacking: str,
) -> None:
    if lacking == "DVC":
        monkeypatch.delenv("DVC_STAGE")
    else:
        (checkout.path / "dvc.lock").unlink()
    making = Making.from_predicate(published(keys[0]), "here")
    assert (making.stages, making.checkout) == ({}, None)
    assert making.parameters["onnx"]["opset"] == 17


@pytest.mark.parametrize(
    ("value", "without"),
    [
        ("checkpoints/demo.pth", "checkpoints/demo.pth"),
        ("/home/ada/runs/best.pth", "best.pth"),
        ("../../ada/best.pth", "best.pth"),
        (r"C:\Users\ada\best.pth", "best.pth"),
        ("~/best.pth", "best.pth"),
        ({"/home/ada/a": ["/home/ada/b", 7, None]}, {"a": ["b", 7, None]}),
        ("package.module:build", "package.module:build"),
        ("/", "/"),
    ],
)
def test_no_path_of_one_machine_is_stated(value: Any, without: Any) -> None:
    assert without_places(value) == without


@pytest.mark.slow
def test_under_dvc_the_record_is_of_the_run_that_made_the_release(
    project: Project, keys: tuple[Path, Path]
) -> None:
    """Stages that were not run again are those of dvc.lock, and publish isn't one."""
    project.set(publish__signing_key=str(keys[0]))
    done = project.dvc("repro")
    assert project.ran(done.stdout) == ["model-card", "publish"]
    predicate = statement_of(project.path / "artifacts/release" / PROVENANCE)[
        "predicate"
    ]
    making = Making.from_predicate(predicate, "here")
    lock = YAML(typ="safe").load(project.path / "dvc.lock")["stages"]
    assert making.stages.keys() == lock.keys() - {"publish"}
    for name, stage in making.stages.items():
        recorded = {each["path"]: f"md5:{each['md5']}" for each in lock[name]["outs"]}
        assert stage["outs"] == recorded
    first = project.git("rev-list", "--max-parents=0", "HEAD").strip()
    assert making.checkout == Checkout(commit=first, dirty=False)
    card = (project.path / "artifacts/release/README.md").read_text()
    assert named_fingerprint(card) == fingerprint(load_public_key(keys[1]))

    before = tree(project.path / "artifacts/release")
    project.commit("Signed")
    project.dvc("repro", "--force", "--single-item", "publish")
    assert tree(project.path / "artifacts/release") == before
