"""A release signed with a certificate, and checked by whoever trusts the root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoint_release.card.render import TEMPLATE
from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.signing_keys import Signer, fingerprint, load_signing_key
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.policy import parse_policy
from checkpoint_release.release.signing import check_signature
from checkpoint_release.release.verify import verify
from tests.release.test_assemble import make_keys, openssl
from tests.release.test_attestations import failed, made
from tests.release.test_verify_order import Opened
from tests.support.project import tree
from tests.support.publishing import fake_artifacts


class Authority:
    """A root that vouches for keys.

    Attributes:
        root: its certificate.
        signer: a key, and its certificate, in one file.
    """

    def __init__(self, folder: Path, usage: str = "digitalSignature") -> None:
        folder.mkdir()
        self.root, self.signer = folder / "root.pem", folder / "signer.pem"
        root_key, key = folder / "root.key", folder / "signer.key"
        for path in (root_key, key):
            curve = ("-name", "prime256v1")
            openssl("ecparam", *curve, "-genkey", "-noout", "-out", path)
        request, leaf, usages = folder / "a.csr", folder / "a.pem", folder / "a.ext"
        usages.write_text(f"keyUsage=critical,{usage}\n")
        named = ("-key", root_key, "-subj", "/CN=Root", "-days", "30")
        openssl("req", "-x509", "-new", *named, "-out", self.root)
        openssl("req", "-new", "-key", key, "-subj", "/CN=Models", "-out", request)
        by = ("-CA", self.root, "-CAkey", root_key, "-CAcreateserial", "-days", "30")
        given = ("-req", "-in", request, "-extfile", usages)
        openssl("x509", *given, *by, "-out", leaf)
        self.leaf = leaf
        self.signer.write_bytes(key.read_bytes() + leaf.read_bytes())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "a")


@pytest.fixture
def release(tmp_path: Path, authority: Authority) -> Path:
    artifacts = fake_artifacts(tmp_path / "artifacts")
    return assemble(artifacts, signing_key=authority.signer, making=made)


def rows(release: Path, key: Path) -> list[str]:
    return failed(verify(release, public_key=key, opener=Opened()))


def test_the_root_vouches_for_the_signature_and_the_attestations(
    release: Path, authority: Authority
) -> None:
    checks = verify(release, public_key=authority.root, opener=Opened())
    assert failed(checks) == []
    messages = {check.name: check.message for check in checks}
    digest = fingerprint(load_signing_key(authority.signer).public_key)
    assert messages["signature"] == f"valid by root.pem (sha256 {digest})"
    assert messages["provenance"].startswith("signed by root.pem")
    (release / "config.json").write_text("{ }")
    assert "config.json" in str(check_signature(release, authority.root))


def test_the_same_release_has_the_same_bytes(
    release: Path, authority: Authority, tmp_path: Path
) -> None:
    again = fake_artifacts(tmp_path / "again")
    signed = assemble(again, signing_key=authority.signer, making=made)
    assert tree(signed) == tree(release)


def test_another_root_or_a_bare_key_does_not_vouch_for_it(
    release: Path, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    (line,) = rows(release, other.root)
    assert line.startswith("signature: ")
    (line,) = rows(release, make_keys(tmp_path)[1])
    assert "name the root certificate in place of a key" in line


def test_a_root_does_not_vouch_for_a_bare_key(
    authority: Authority, tmp_path: Path
) -> None:
    artifacts = fake_artifacts(tmp_path / "artifacts")
    release = assemble(artifacts, signing_key=make_keys(tmp_path)[0], making=made)
    (line,) = rows(release, authority.root)
    assert "it holds no certificate that root.pem could vouch for" in line


@pytest.mark.filterwarnings("ignore:The 'warn' method:DeprecationWarning")
def test_a_certificate_that_may_not_sign_does_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "a", usage="keyAgreement")
    artifacts = fake_artifacts(tmp_path / "artifacts")
    release = assemble(artifacts, signing_key=authority.signer)
    (line,) = rows(release, authority.root)
    assert "cannot be used for signing" in line


def test_a_policy_may_name_a_root(release: Path, authority: Authority) -> None:
    policy = parse_policy(f"signed-by={authority.root}")
    assert failed(verify(release, opener=Opened(), policy=policy)) == []


def test_the_certificate_of_another_key_is_one_clear_error(
    authority: Authority, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed.pem"
    key = make_keys(tmp_path)[0].read_bytes()
    mixed.write_bytes(key + authority.leaf.read_bytes())
    with pytest.raises(PublishError, match="that of another key") as caught:
        assemble(fake_artifacts(tmp_path / "artifacts"), signing_key=mixed)
    assert "the key's own first" in caught.value.remedy


def test_a_broken_certificate_is_one_clear_error(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.pem"
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    mixed.write_text(make_keys(tmp_path)[0].read_text() + broken)
    with pytest.raises(PublishError, match="holds a broken certificate"):
        Signer.of(mixed)


def test_the_card_s_command_checks_it(
    release: Path, authority: Authority, tmp_path: Path
) -> None:
    _, _, text = TEMPLATE.read_text(encoding="utf-8").partition("{% if certified %}")
    _, _, block = text.partition("```console\n")
    command = block.partition("```")[0].splitlines()[1].removeprefix("$ ")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def code() -> int:
        return subprocess.run(
            ["sh", "-c", command],
            cwd=release,
            env={**os.environ, "PATH": path},
            capture_output=True,
        ).returncode

    root = release.parent / "root.pem"
    shutil.copy(authority.root, root)
    assert code() == 0
    shutil.copy(Authority(tmp_path / "other").root, root)
    assert code() != 0
