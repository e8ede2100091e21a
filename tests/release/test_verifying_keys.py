"""The key that a release is checked with: each wrong file has a message of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.artifacts.release import SIGNATURE
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.signing import check_signature
from tests.release.test_assemble import make_keys
from tests.support.publishing import fake_artifacts


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    artifacts = fake_artifacts(tmp_path_factory.mktemp("world") / "artifacts")
    return assemble(artifacts, signing_key=keys[0])


def other_key(folder: Path, kind: str, own: Path) -> Path:
    """A file that is no ECDSA public key."""
    path = folder / "key"
    match kind:
        case "private":
            path.write_bytes(own.read_bytes())
        case "text":
            path.write_text("ssh-ed25519 AAAA\n")
        case "missing":
            pass
        case _:
            private = folder / "private.pem"
            options = ["-algorithm", kind, "-out", str(private)]
            subprocess.run(["openssl", "genpkey", *options], check=True)
            export = ["openssl", "pkey", "-in", str(private), "-pubout"]
            subprocess.run([*export, "-out", str(path)], check=True)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("private", "key is a private key"),
        ("text", "key is no public key in PEM"),
        ("missing", "key can't be read: No such file or directory"),
        ("RSA", "key is not an ECDSA key"),
        ("ED25519", "key is not an ECDSA key"),
    ],
)
def test_a_file_that_is_no_such_key_is_one_clear_error(
    release: Path,
    keys: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    message: str,
) -> None:
    key = other_key(tmp_path, kind, keys[0])
    for option in (["--public-key", str(key)], ["--require", f"signed-by={key}"]):
        assert main(["verify", str(release), *option]) == 1
        printed = capsys.readouterr()
        assert message in printed.err and "what to do: name" in printed.err
        assert "FAILED" not in printed.out and "Error" not in printed.err


def test_a_signature_by_another_key_is_reported_as_that(
    release: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    _, other = make_keys(tmp_path)
    problem = check_signature(release, other)
    assert problem == f"it is by another key than {other.name}"
    assert check_signature(release, keys[1]) is None


def test_a_signature_of_other_bytes_is_not_taken_for_another_key_s(
    release: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    copy = tmp_path / "release"
    subprocess.run(["cp", "-r", str(release), str(copy)], check=True)
    bundle = json.loads((copy / SIGNATURE).read_text())
    envelope = bundle["dsseEnvelope"]
    envelope["payload"] = envelope["payload"][:-8] + "fX0KfQo="
    (copy / SIGNATURE).write_text(json.dumps(bundle))
    problem = check_signature(copy, keys[1])
    assert problem and "another key" not in problem and "Error" not in problem


@pytest.mark.parametrize("option", ["--rebuilder", "--attestations"])
def test_what_only_a_policy_looks_at_is_refused_without_one(
    release: Path,
    keys: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    assert main(["verify", str(release), option, str(keys[1])]) == 1
    printed = capsys.readouterr()
    assert f"error: {option} " in printed.err and "rebuilt=1" in printed.err
    signed_by = ["--require", f"signed-by={keys[1]}"]
    assert main(["verify", str(release), option, str(keys[1]), *signed_by]) == 1
    assert f"error: {option} " in capsys.readouterr().err
