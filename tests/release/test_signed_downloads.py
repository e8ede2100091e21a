"""A signed release, published to a Hub and checked by somebody who downloaded it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from checkpoint_release.card.render import TEMPLATE
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.signing_keys import (
    fingerprint,
    fingerprint_line,
    load_public_key,
    load_signing_key,
)
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.verify import Check, verify
from tests.release.test_assemble import make_keys
from tests.release.test_verify_order import Opened
from tests.support.project import ROOT
from tests.support.publishing import CARD, REPO, SENDING, TOKEN, Publisher

pytestmark = pytest.mark.filterwarnings(SENDING)
Download = Callable[[Publisher, Path], Path]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def signed(publisher: Publisher, keys: tuple[Path, Path]) -> Publisher:
    """Ada, after she published a signed release."""
    shutil.copy(ROOT / "params.yaml", "params.yaml")  # which the provenance states
    publisher.publish(signing_key=str(keys[0]))
    return publisher


def to_a_folder(publisher: Publisher, target: Path) -> Path:
    """As `hf download --local-dir`, which leaves notes in .cache."""
    folder = target / "release"
    snapshot_download(
        REPO, endpoint=publisher.hub.url, token=TOKEN, local_dir=str(folder)
    )
    assert (folder / ".cache/huggingface").is_dir()
    return folder


def to_the_cache(publisher: Publisher, target: Path) -> Path:
    """As `hf download`: links to files elsewhere."""
    cache = str(target / "cache")
    folder = Path(
        snapshot_download(
            REPO, endpoint=publisher.hub.url, token=TOKEN, cache_dir=cache
        )
    )
    assert (folder / "README.md").is_symlink()
    return folder


def edit(path: Path) -> None:
    """Change a downloaded file, of which a cache holds only a link."""
    content = path.read_bytes() + b"\n"
    path.unlink()
    path.write_bytes(content)


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


WAYS = pytest.mark.parametrize("way", [to_a_folder, to_the_cache])


@WAYS
def test_it_passes_and_a_changed_file_fails(
    signed: Publisher, keys: tuple[Path, Path], tmp_path: Path, way: Download
) -> None:
    folder = way(signed, tmp_path)
    checks = verify(folder, public_key=keys[1], opener=Opened())
    assert failed(checks) == []
    rows = {check.name: check.message for check in checks}
    digest = fingerprint(load_public_key(keys[1]))
    assert rows["signature"] == f"valid by prime256v1.pub (sha256 {digest})"
    assert rows["provenance"].startswith("signed by prime256v1.pub: made from")
    edit(folder / "README.md")
    assert failed(verify(folder, public_key=keys[1], opener=Opened())) == ["files"]


# The commands of the card


def commands() -> tuple[str, str, str]:
    """The ones that the card prints below Signature, for a key without certificate."""
    _, _, section = TEMPLATE.read_text(encoding="utf-8").partition("## Signature")
    _, _, of_a_key = section.partition("{% else %}")
    _, _, block = of_a_key.partition("```console\n")
    lines = block.partition("```")[0].splitlines()
    openssl, pip, check = (line.removeprefix("$ ") for line in lines)
    return openssl, pip, check


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )


@WAYS
def test_the_card_s_commands_hold_on_a_download_and_fail_on_another_file_or_key(
    signed: Publisher, keys: tuple[Path, Path], tmp_path: Path, way: Download
) -> None:
    folder = way(signed, tmp_path)
    public = folder.parent / "publisher.pub"
    shutil.copy(keys[1], public)
    printed, _, check = commands()
    digest = fingerprint(load_public_key(keys[1]))
    assert run(printed, folder).stdout.split() == [digest, "-"]
    done = run(check, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copy(make_keys(tmp_path)[1], public)
    assert run(check, folder).returncode != 0
    shutil.copy(keys[1], public)
    edit(folder / "README.md")
    assert run(check, folder).returncode != 0


def test_the_card_s_packages_are_what_its_command_needs() -> None:
    _, pip, _ = commands()
    assert pip == "pip install model-signing pyOpenSSL"
    code = "import model_signing, OpenSSL"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1"])
def test_the_fingerprint_is_the_same_of_both_keys(tmp_path: Path, curve: str) -> None:
    private, public = make_keys(tmp_path, curve)
    digest = fingerprint(load_signing_key(private).public_key)
    assert digest == fingerprint(load_public_key(public))


# A card that names another key


def test_a_card_that_names_another_key_is_not_signed(
    publisher: Publisher, keys: tuple[Path, Path]
) -> None:
    readme = publisher.artifacts / "model-card/README.md"
    signer = fingerprint(load_public_key(keys[1]))
    readme.write_text(f"{CARD}\n{fingerprint_line(signer)}\n")
    write_manifest(readme.parent, "model-card")
    assemble(publisher.artifacts, signing_key=keys[0])
    readme.write_text(f"{CARD}\n{fingerprint_line('0' * 64)}\n")
    write_manifest(readme.parent, "model-card")
    with pytest.raises(ArtifactError, match="names the signing key 000000") as caught:
        assemble(publisher.artifacts, signing_key=keys[0])
    assert "model-card" in caught.value.remedy


@pytest.mark.parametrize("content", [None, "not a key", "private"])
def test_what_is_no_public_key_is_one_clear_error(
    tmp_path: Path, keys: tuple[Path, Path], content: str | None
) -> None:
    path = tmp_path / "key.pub"
    if content is not None:
        path.write_text(keys[0].read_text() if content == "private" else content)
    with pytest.raises(PublishError, match=r"key\.pub") as caught:
        load_public_key(path)
    assert "PEM" in caught.value.remedy
