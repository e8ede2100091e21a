"""A release is opened only after its list of files, their hashes and its signature were
found right, and what holds nothing to compare doesn't pass.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_release.core.artifacts.release import (
    Listing,
    Release,
    Runnable,
    digest_of,
    read_release,
)
from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.core.trust import Trust
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.verify import Check, passed, report, verify
from tests.release.test_assemble import make_keys
from tests.support.publishing import fake_artifacts


class Opened:
    """What opens formats in place of a runtime, and notes that it did."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def __call__(self, format: str, path: Path, trust: Trust) -> Opened:
        self.paths.append(path)
        return self

    def run(self, inputs: object) -> dict[str, np.ndarray]:
        return {"y": np.ones((1, 2), np.float32)}


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    return fake_artifacts(tmp_path / "artifacts")


def failed(checks: list[Check]) -> list[str]:
    return [f"{check.name}: {check.message}" for check in checks if not check.passed]


# The signature


def test_a_signed_release_is_opened_once_its_signature_holds(
    artifacts: Path, keys: tuple[Path, Path], opened: Opened
) -> None:
    release = assemble(artifacts, signing_key=keys[0])
    assert passed(verify(release, public_key=keys[1], opener=opened))
    assert len(opened.paths) == 3


def unsigned(release: Path, keys: tuple[Path, Path]) -> Path:
    (release / "model.sig").unlink()
    return keys[1]


def broken(release: Path, keys: tuple[Path, Path]) -> Path:
    (release / "model.sig").write_text("{}")
    return keys[1]


def of_another_release(release: Path, keys: tuple[Path, Path]) -> Path:
    other = assemble(
        fake_artifacts(release.parent / "other", weights=b"other"),
        signing_key=keys[0],
    )
    shutil.copy(other / "model.sig", release / "model.sig")
    return keys[1]


def by_another_key(release: Path, keys: tuple[Path, Path]) -> Path:
    return make_keys(release.parent)[1]


def with_the_private_key(release: Path, keys: tuple[Path, Path]) -> Path:
    return keys[0]


def with_no_key(release: Path, keys: tuple[Path, Path]) -> Path:
    return release / "no-such-key.pub"


def with_what_is_no_key(release: Path, keys: tuple[Path, Path]) -> Path:
    path = release.parent / "key.pub"
    path.write_text("not a key")
    return path


@pytest.mark.parametrize(
    "break_it",
    [
        unsigned,
        broken,
        of_another_release,
        by_another_key,
    ],
)
def test_nothing_is_opened_after_a_signature_that_does_not_hold(
    artifacts: Path,
    keys: tuple[Path, Path],
    opened: Opened,
    break_it: Callable[[Path, tuple[Path, Path]], Path],
) -> None:
    release = assemble(artifacts, signing_key=keys[0])
    key = break_it(release, keys)
    checks = verify(release, public_key=key, opener=opened)
    assert [line.partition(":")[0] for line in failed(checks)] == ["signature"]
    assert opened.paths == []


@pytest.mark.parametrize(
    "wrong_key", [with_the_private_key, with_no_key, with_what_is_no_key]
)
def test_nothing_is_opened_where_no_key_can_check_the_signature(
    artifacts: Path,
    keys: tuple[Path, Path],
    opened: Opened,
    wrong_key: Callable[[Path, tuple[Path, Path]], Path],
) -> None:
    release = assemble(artifacts, signing_key=keys[0])
    key = wrong_key(release, keys)
    with pytest.raises(PublishError, match=re.escape(str(key))):
        verify(release, public_key=key, opener=opened)
    assert opened.paths == []


# What there is to compare


def seal(release: Path, described: Release) -> None:
    """Write release.json and the checksums anew, as whoever forges a release would."""
    files = {
        name: FileEntry.of(release / name)
        for name in described.built.files
        if (release / name).is_file()
    }
    described = msgspec.structs.replace(
        described, built=Listing(sha256=digest_of(files), files=files)
    )
    described.write(release / "release.json")
    text = described.checksums(sha256(release / "release.json"))
    (release / "SHA256SUMS").write_text(text)


def no_formats(release: Path) -> None:
    seal(release, msgspec.structs.replace(read_release(release), formats={}))


def no_outputs(release: Path) -> None:
    save_file({}, release / "sample/outputs.safetensors")
    seal(release, read_release(release))


def other_outputs(release: Path) -> None:
    arrays = {"z": np.ones((1, 2), np.float32)}
    save_file(arrays, release / "sample/outputs.safetensors")
    seal(release, read_release(release))


def failed_parity(release: Path) -> None:
    path = release / "parity.json"
    path.write_text(path.read_text().replace("true", "false", 1))
    described = read_release(release)
    files = {name: FileEntry.of(release / name) for name in described.evidence.files}
    evidence = msgspec.structs.replace(
        described.evidence, sha256=digest_of(files), files=files
    )
    seal(release, msgspec.structs.replace(described, evidence=evidence))


def in_another_place(format: str, path: str) -> Callable[[Path], None]:
    def move(release: Path) -> None:
        formats = {"onnx": Runnable(format=format, path=path)}
        seal(release, msgspec.structs.replace(read_release(release), formats=formats))

    return move


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (no_formats, "lists no format"),
        (no_outputs, "holds no output"),
        (failed_parity, "says that the check failed"),
        (in_another_place("checkpoint", "onnx"), "which no release has"),
        (in_another_place("safetensors", ""), "which no release has"),
        (in_another_place("onnx", "torchscript"), "releases have it at"),
        (in_another_place("onnx", ""), "releases have it at"),
        (in_another_place("onnx", "onnx/config.json"), "releases have it at"),
        (in_another_place("onnx", "onnx/deeper"), "releases have it at"),
    ],
)
def test_a_release_with_nothing_honest_to_compare_does_not_pass(
    artifacts: Path,
    opened: Opened,
    forge: Callable[[Path], None],
    message: str,
) -> None:
    release = assemble(artifacts)
    forge(release)
    (line,) = failed(verify(release, opener=opened))
    assert message in line
    assert opened.paths == []


def test_an_output_that_the_sample_leaves_out_fails(
    artifacts: Path, opened: Opened
) -> None:
    release = assemble(artifacts)
    other_outputs(release)
    lines = failed(verify(release, opener=opened))
    assert sum("the sample doesn't hold it" in line for line in lines) == 3


def test_the_forger_s_seal_is_right_where_nothing_was_forged(
    artifacts: Path, opened: Opened
) -> None:
    release = assemble(artifacts)
    seal(release, read_release(release))
    assert passed(verify(release, opener=opened))


def test_no_text_of_a_release_forges_a_line_of_the_report() -> None:
    forged = "onnx\x1b[2J\nok     signature  valid"
    lines = report([Check(forged, False, forged)]).splitlines()
    assert len(lines) == 2 and lines[0].startswith("FAILED ")
    assert "\x1b" not in lines[0] and r"\n" in lines[0]
