"""Keys that never leave a token (PKCS#11) sign a release; the token is SoftHSM's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from huggingface_hub import snapshot_download
from pkcs11 import Attribute, KeyType, ObjectClass

from checkpoint_release.core.artifacts.attestation import PROOF, PROVENANCE
from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.core.errors import CheckpointReleaseError, PublishError
from checkpoint_release.core.key_uri import MODULE_VARIABLE, PIN_VARIABLE
from checkpoint_release.core.signing_keys import (
    Signer,
    fingerprint,
    load_public_key,
    load_signing_key,
    named_fingerprint,
)
from checkpoint_release.core.token_keys import TokenKey
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.envelopes import signatures_in
from checkpoint_release.release.signing import check_signature
from checkpoint_release.release.verify import verify
from tests.release.test_assemble import make_keys
from tests.release.test_attestations import failed, made
from tests.release.test_verify_order import Opened
from tests.support.certificates import issued
from tests.support.project import ROOT, Project, tree
from tests.support.publishing import REPO, SENDING, TOKEN, Publisher, fake_artifacts
from tests.support.token import LABEL, NEEDS_SOFTHSM, PIN, SoftToken

pytestmark = [NEEDS_SOFTHSM, pytest.mark.filterwarnings(SENDING)]


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftToken]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", "")  # set anew, and undone in the end
        yield SoftToken.made(
            tmp_path_factory.mktemp("token"), "another", "twin", "twin"
        )


@pytest.fixture(scope="module")
def public(token: SoftToken) -> Path:
    """The key that signs, in PEM; the private one is called release on the token."""
    return token.make_key()


@pytest.fixture(autouse=True)
def pin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIN_VARIABLE, PIN)
    monkeypatch.delenv(MODULE_VARIABLE, raising=False)


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return fake_artifacts(tmp_path / "artifacts")


def signed_by(named: str, artifacts: Path) -> Path:
    return assemble(artifacts, signing_key=named, making=made)


# A release that a token signed


def test_it_passes_as_any_other_and_a_changed_byte_or_another_key_fails(
    token: SoftToken, public: Path, artifacts: Path, tmp_path: Path
) -> None:
    release = signed_by(token.uri(), artifacts)
    checks = verify(release, public_key=public, opener=Opened())
    assert failed(checks) == []
    messages = {check.name: check.message for check in checks}
    digest = fingerprint(load_public_key(public))
    assert messages["signature"] == f"valid by release.pub (sha256 {digest})"
    assert messages["provenance"].startswith("signed by release.pub")
    assert messages["proof"].startswith("signed by release.pub")
    other = make_keys(tmp_path)[1]
    assert failed(verify(release, public_key=other, opener=Opened()))
    (release / "config.json").write_text("{ }")
    assert failed(verify(release, public_key=public, opener=Opened()))


@pytest.mark.slow
def test_openssf_s_own_tool_accepts_it(
    token: SoftToken, public: Path, artifacts: Path
) -> None:
    release = signed_by(token.uri(), artifacts)
    tool = Path(sys.executable).parent / "model_signing"
    asked = ("--signature", release / SIGNATURE, "--public_key", public)
    command = [str(each) for each in (tool, "verify", "key", release, *asked)]
    assert subprocess.run(command, capture_output=True).returncode == 0
    (release / "config.json").write_text("{ }")
    assert subprocess.run(command, capture_output=True).returncode != 0


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_the_other_curves_sign_as_well(
    token: SoftToken, artifacts: Path, curve: str
) -> None:
    public = token.make_key(curve, curve)
    release = signed_by(token.uri(curve), artifacts)
    assert failed(verify(release, public_key=public, opener=Opened())) == []


def test_a_key_that_asks_for_its_pin_each_time_signs(
    token: SoftToken, artifacts: Path
) -> None:
    public = token.make_key("careful", ALWAYS_AUTHENTICATE=True)
    release = signed_by(token.uri("careful"), artifacts)
    assert check_signature(release, public) is None


# The same release again


def test_assembled_again_it_has_the_same_bytes_and_the_token_is_not_asked(
    token: SoftToken, public: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tree(signed_by(token.uri(), artifacts))
    monkeypatch.delenv(PIN_VARIABLE)
    assert tree(signed_by(token.uri(), artifacts)) == first


def test_without_the_last_release_the_token_draws_other_signatures(
    token: SoftToken, public: Path, artifacts: Path
) -> None:
    """Which is why they are looked for; also where what is there is broken."""
    release = signed_by(token.uri(), artifacts)
    first = tree(release)
    (release / PROVENANCE).write_text('{"payload": 7}')
    (release / PROOF).write_bytes(b"\xff")
    (release / SIGNATURE).unlink()
    again = tree(signed_by(token.uri(), artifacts))
    assert {name for name in first if first[name] != again[name]} >= {
        *(PROVENANCE, PROOF, SIGNATURE)
    }
    assert check_signature(artifacts / "release", public) is None


def test_a_signature_of_another_key_is_not_used_again(
    token: SoftToken, public: Path, artifacts: Path
) -> None:
    other = token.make_key("other")
    signed_by(token.uri("other"), artifacts)
    release = signed_by(token.uri(), artifacts)
    assert check_signature(release, public) is None
    assert check_signature(release, other)


def test_a_changed_artifact_is_signed_anew(
    token: SoftToken, public: Path, artifacts: Path
) -> None:
    signed_by(token.uri(), artifacts)
    fake_artifacts(artifacts, weights=b"other weights")
    release = signed_by(token.uri(), artifacts)
    assert failed(verify(release, public_key=public, opener=Opened())) == []


# Publishing


@pytest.fixture
def ada(publisher: Publisher) -> Publisher:
    """Who publishes with a key on a token."""
    shutil.copy(ROOT / "params.yaml", "params.yaml")  # which the provenance states
    return publisher


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False], ids=["here", "on the Hub alone"])
def test_a_publication_that_was_interrupted_is_finished_with_the_same_signatures(
    ada: Publisher, token: SoftToken, public: Path, tmp_path: Path, *, kept: bool
) -> None:
    """After the tag, and before the receipt: other bytes would be another version."""
    ada.publish(signing_key=token.uri())
    commits = len(ada.repo.commits)
    (ada.artifacts / "publish.json").unlink()
    if not kept:
        shutil.rmtree(ada.artifacts / "release")
    ada.publish(signing_key=token.uri())
    assert ada.receipt.published and len(ada.repo.commits) == commits
    folder = tmp_path / "downloaded"
    snapshot_download(REPO, endpoint=ada.hub.url, token=TOKEN, local_dir=str(folder))
    assert failed(verify(folder, public_key=public, opener=Opened())) == []


@pytest.mark.slow
def test_without_the_earlier_signatures_it_would_be_another_version(
    ada: Publisher,
    token: SoftToken,
    public: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ada.publish(signing_key=token.uri())
    monkeypatch.setattr(
        "checkpoint_release.release.assemble.remembering", lambda key, *_: key
    )
    with pytest.raises(PublishError, match=r"v1\.0\.0"):
        ada.publish(signing_key=token.uri())


@pytest.mark.slow
def test_dvc_repro_signs_by_the_token_and_its_pin_is_written_nowhere(
    project: Project, token: SoftToken, public: Path
) -> None:
    """Neither in what is printed, nor in a file; the card names the key."""
    project.set(publish__signing_key=token.uri())
    wrong = project.dvc("repro", check=False, environment={PIN_VARIABLE: "000000"})
    assert wrong.returncode and "has another PIN" in wrong.stderr
    assert "Traceback" not in wrong.stderr and "000000" not in wrong.stderr
    done = project.dvc("repro", environment={PIN_VARIABLE: PIN})
    release = project.path / "artifacts/release"
    assert check_signature(release, public) is None
    card = (release / "README.md").read_text()
    assert named_fingerprint(card) == fingerprint(load_public_key(public))
    assert PIN not in done.stdout + done.stderr
    for folder in ("artifacts", ".dvc", "checkpoints"):
        for path in (project.path / folder).rglob("*"):
            assert not path.is_file() or PIN.encode() not in path.read_bytes(), path
    for name in ("params.yaml", "dvc.lock"):
        assert PIN not in (project.path / name).read_text()
    for name in (PROVENANCE, PROOF, SIGNATURE):
        assert token.library.encode() not in payload(release / name)
    assert project.ran(project.dvc("repro").stdout) == []


def payload(path: Path) -> bytes:
    """What is signed, of a file that holds one signature."""
    ((data, _),) = signatures_in(path.read_bytes())
    return data


# Certificates on the token


def test_certificates_on_the_token_go_along_and_their_root_vouches(
    token: SoftToken, artifacts: Path, tmp_path: Path
) -> None:
    """The key's own, and one between it and the root. The private key is found by the
    id that it shares with its certificate, as on cards, where labels differ.
    """
    key = load_public_key(token.make_key("card key", object_id=b"\x09"))
    root_key, between_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    between = issued(
        "Between", between_key.public_key(), "Root", root_key, is_authority=True
    )
    root = issued("Root", root_key.public_key(), "Root", root_key, is_authority=True)
    own = issued("Models", key, "Between", between_key, is_authority=False)
    token.write_certificate(own, "card certificate", b"\x09")
    token.write_certificate(between, "between")
    token.write_certificate(root, "root")
    named = token.uri("card%20certificate;type=cert")
    assert Signer.of(named) == Signer(fingerprint(key), certified=True)
    release = signed_by(named, artifacts)
    path = tmp_path / "root.pem"
    path.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    assert failed(verify(release, public_key=path, opener=Opened())) == []
    other = issued(
        "Root", between_key.public_key(), "Root", between_key, is_authority=True
    )
    path.write_bytes(other.public_bytes(serialization.Encoding.PEM))
    assert failed(verify(release, public_key=path, opener=Opened()))


def test_a_card_without_public_keys_is_read_by_its_certificate(
    token: SoftToken, artifacts: Path
) -> None:
    public = token.make_key("only certified", object_id=b"\x0a")
    root = ec.generate_private_key(ec.SECP256R1())
    key = load_public_key(public)
    own = issued("Models", key, "Root", root, is_authority=False)
    token.write_certificate(own, "only certified", b"\x0a")
    token.remove(ObjectClass.PUBLIC_KEY, "only certified")
    release = signed_by(token.uri("only%20certified"), artifacts)
    assert check_signature(release, public) is None


# What can't be used


def refused(named: str, artifacts: Path) -> CheckpointReleaseError:
    """The error; nothing of a release is left."""
    with pytest.raises(CheckpointReleaseError) as caught:
        signed_by(named, artifacts)
    assert not (artifacts / "release").exists()
    error = caught.value
    assert "publish.signing_key" in error.problem and error.remedy
    assert PIN not in f"{error.problem} {error.remedy}"
    return error


@pytest.mark.parametrize("wrong", ["000000", "1"])
def test_a_wrong_pin_is_tried_once(
    token: SoftToken,
    public: Path,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    wrong: str,
) -> None:
    monkeypatch.setenv(PIN_VARIABLE, wrong)
    logins = []
    signed = TokenKey._signed

    def counted(key: TokenKey, digest: bytes, pin: str) -> bytes:
        logins.append(pin)
        return signed(key, digest, pin)

    monkeypatch.setattr(TokenKey, "_signed", counted)
    assert "PIN" in refused(token.uri(), artifacts).problem
    assert logins == [wrong]


def test_without_a_pin_nothing_is_signed(
    token: SoftToken, public: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(PIN_VARIABLE)
    error = refused(token.uri(), artifacts)
    assert "needs its PIN" in error.problem and PIN_VARIABLE in error.remedy


@pytest.mark.parametrize("written", ["file:{}", "file://{}", "{}"])
def test_a_file_may_hold_the_pin(
    token: SoftToken,
    public: Path,
    artifacts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
) -> None:
    monkeypatch.setenv(PIN_VARIABLE, "wrong")
    path = tmp_path / "pin"
    named = token.uri(**{"pin-source": written.format(path)})
    assert "can't be read" in refused(named, artifacts).problem
    path.write_text(f"{PIN}\n")
    assert check_signature(signed_by(named, artifacts), public) is None


def test_the_environment_may_name_the_library(
    token: SoftToken, public: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = f"pkcs11:token={LABEL};object=release"
    error = refused(named, artifacts)
    assert "names no library" in error.problem and MODULE_VARIABLE in error.remedy
    monkeypatch.setenv(MODULE_VARIABLE, token.library)
    assert check_signature(signed_by(named, artifacts), public) is None


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("pkcs11:token=models;object=nothing?{}", "token doesn't show"),
        ("pkcs11:token=nothing;object=release?{}", "fits no token; .*'models'"),
        ("pkcs11:token=twin;object=release?{}", "fits 2 tokens"),
        ("pkcs11:token=models;object=release;type=cert?{}", "names a certificate"),
        ("pkcs11:token=models;object=release;type=data?{}", "has type=data"),
        ("pkcs11:token=models;object=RSA?{}", "is not an ECDSA key"),
        ("pkcs11:token=models;object=double?{}", "fits 2 objects"),
        ("pkcs11:token=models;object=mixed?{}", "don't belong together"),
        ("pkcs11:token=models;object=odd?{}", "is a key over secp256k1"),
        ("pkcs11:token=models?{}", "names no key"),
        ("pkcs11:token=models;object=a;object=b?{}", "has object twice"),
        ("pkcs11:token=models;object=a;colour=red?{}", "'colour'"),
        ("pkcs11:token=models;object=a;slot-id=1?{}", "'slot-id'"),
        ("pkcs11:object=a?{}&pin-value=" + PIN, "holds a PIN"),
        ("pkcs11:object=a?{}&pin-source=|cat", "from a program"),
        ("pkcs11:object=a?module-path=/nowhere.so", "can't be loaded"),
        ("pkcs11:object=a?module-path=/etc/passwd", "can't be loaded"),
    ],
)
def test_what_the_uri_lacks_or_the_token_is_one_clear_error(
    token: SoftToken, artifacts: Path, public: Path, named: str, message: str
) -> None:
    _make_what_fails(token)
    error = refused(named.format(f"module-path={token.library}"), artifacts)
    with pytest.raises(PublishError, match=message):
        raise error


def _make_what_fails(token: SoftToken) -> None:
    """Keys that can't sign, once."""
    if (token.folder / "mixed.pub").exists():
        return
    with token.session() as session:
        session.generate_keypair(KeyType.RSA, 1024, store=True, label="RSA", id=b"\x20")
    for _ in range(2):
        token.make_key("double")
    token.make_key("odd", "secp256k1")
    token.make_key("mixed")
    token.remove(ObjectClass.PUBLIC_KEY, "mixed")
    token.make_key("stray")
    with token.session() as session:
        wanted = {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY,
            Attribute.LABEL: "stray",
        }
        (stray,) = list(session.get_objects(wanted))
        stray[Attribute.LABEL] = "mixed"


def test_a_file_of_that_name_is_no_key(artifacts: Path) -> None:
    with pytest.raises(PublishError, match="names no key"):
        load_signing_key("pkcs11:")


def test_without_the_library_for_tokens_the_extra_is_named(
    token: SoftToken, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    error = refused(token.uri(), artifacts)
    assert "checkpoint-release[pkcs11]" in error.remedy
