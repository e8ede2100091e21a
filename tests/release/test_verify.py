"""verify: a release as somebody downloads it, whole or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save_file

from checkpoint_release.core.architecture import Architecture
from checkpoint_release.core.artifacts.config import ModelConfig
from checkpoint_release.core.artifacts.manifest import write_manifest
from checkpoint_release.core.artifacts.parity import NoiseFloor, SampleFloor
from checkpoint_release.core.artifacts.release import (
    Listing,
    Release,
    Runnable,
    digest_of,
    read_release,
)
from checkpoint_release.core.errors import ArtifactError, PublishError
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.core.signature import Signature, TensorSpec
from checkpoint_release.core.trust import NO_TRUST, Trust
from checkpoint_release.release.assemble import assemble
from checkpoint_release.release.fetched import download
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.verify import report, verify
from tests.support.hub_server import Account
from tests.support.parity_json import store_report, write_parity
from tests.support.project import ROOT, Project
from tests.support.publishing import (
    REPO,
    SENDING,
    TOKEN,
    Publisher,
    fake_artifacts,
)

pytestmark = pytest.mark.filterwarnings(SENDING)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return assemble(fake_artifacts(tmp_path / "artifacts"))


class Fixed:
    """A runtime that returns given outputs, whatever its inputs."""

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self.outputs = {
            name: np.asarray(value, np.float32) for name, value in outputs.items()
        }
        self.opened: list[str] = []

    def __call__(self, format: str, path: Path, trust: Trust) -> Fixed:
        assert path.exists()
        self.opened.append(format)
        return self

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        assert inputs.keys() == {"x"}
        return self.outputs


def failures(
    folder: Path, outputs: Mapping[str, Any] | None = None, **options: Any
) -> list[str]:
    opener = Fixed(outputs if outputs is not None else {"y": [[1.0, 1.0]]})
    return [
        f"{check.name}: {check.message}"
        for check in verify(folder, opener=opener, **options)
        if not check.passed
    ]


def test_a_good_release_passes_in_every_format(release: Path) -> None:
    opener = Fixed({"y": [[1.0, 1.0 + 5e-7]]})
    checks = verify(release, opener=opener)
    assert all(check.passed for check in checks)
    assert opener.opened == ["safetensors", "onnx", "torchscript"]
    assert report(checks).endswith("the release is what was published")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"y": [[1.0, 1.1]]}, "largest error 0.1, allowed 1.6e-06"),
        ({"y": [[1.0, float("nan")]]}, "NaN"),
        ({"y": [1.0]}, "of shape [1]"),
        ({}, "missing"),
    ],
)
def test_a_format_that_computes_something_else_fails(
    release: Path, outputs: dict[str, Any], message: str
) -> None:
    assert len(found := failures(release, outputs)) == 3
    assert all(message in line for line in found)


def test_a_changed_file_fails_and_nothing_of_it_is_run(release: Path) -> None:
    (release / "onnx/model.onnx").write_bytes(b"changed")
    opener = Fixed({"y": [[1.0, 1.0]]})
    assert not all(check.passed for check in verify(release, opener=opener))
    assert opener.opened == []
    assert "onnx/model.onnx is not what was released" in failures(release)[0]


def test_a_missing_and_an_extra_file_are_named(release: Path) -> None:
    (release / "torchscript/model.pt").unlink()
    (release / "evil.py").write_text("")
    assert [line.partition(": ")[2] for line in failures(release)] == [
        "torchscript/model.pt is missing",
        "evil.py is not in release.json",
    ]


def test_a_name_in_a_release_cannot_write_a_row_of_the_report(release: Path) -> None:
    described = read_release(release)
    forged = "x is missing\nok     signature  valid by publisher.pub\x1b[2J"
    files = described.built.files | {forged: FileEntry(1, "0" * 64)}
    built = Listing(sha256=digest_of(files), files=files)
    redescribe(release, msgspec.structs.replace(described, built=built))
    printed = report(verify(release))
    rows = printed.splitlines()
    assert not any(row.startswith("ok") and "signature" in row for row in rows)
    assert r"x is missing\nok     signature" in printed and "\x1b" not in printed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".gitignore", ".gitignore is not in release.json"),
        ("onnx/.gitignore", "onnx/.gitignore is not in release.json"),
        ("onnx/.gitattributes", "onnx/.gitattributes is not in release.json"),
        ("onnx/.cache/huggingface/x", "onnx/.cache/ is not in release.json"),
        (".cache/evil.py", ".cache/evil.py is not in release.json"),
        ("model/__init__.py", "model/ is not in release.json"),
        ("line\nbreak", r"'line\nbreak' is not in release.json"),
        ("\udcff", r"'\udcff' is not in release.json"),
    ],
)
def test_whatever_is_added_to_a_release_is_reported(
    release: Path, name: str, message: str
) -> None:
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_text("")
    assert [line.partition(": ")[2] for line in failures(release)] == [message]


@pytest.mark.parametrize("name", ["model", "onnx/model", ".cache", ".git"])
@pytest.mark.parametrize("target", ["folder", "missing"])
def test_a_link_is_reported_wherever_it_leads(
    release: Path, tmp_path: Path, name: str, target: str
) -> None:
    """A folder `model` would be imported in place of model.py."""
    (tmp_path / "folder").mkdir()
    (release / name).symlink_to(tmp_path / target)
    (line,) = failures(release)
    assert f"{name} is not in release.json (a symbolic link to " in line
    assert target in line


def test_a_folder_of_the_release_that_became_a_link_is_reported(
    release: Path, tmp_path: Path
) -> None:
    (release / "onnx").rename(tmp_path / "onnx")
    (release / "onnx").symlink_to(tmp_path / "onnx")
    assert any(
        "onnx is not in release.json (a symbolic link" in line
        for line in failures(release)
    )


def test_what_tools_leave_beside_a_release_is_no_part_of_it(release: Path) -> None:
    for name in (
        ".gitattributes",
        ".git/HEAD",
        ".cache/huggingface/.gitignore",
        ".cache/huggingface/download/a.lock",
    ):
        (release / name).parent.mkdir(parents=True, exist_ok=True)
        (release / name).write_text("")
    assert failures(release) == []


def test_a_listed_file_may_be_a_link_as_in_the_caches_of_the_hub_and_of_dvc(
    release: Path, tmp_path: Path
) -> None:
    (release / "model.safetensors").rename(tmp_path / "blob")
    (release / "model.safetensors").symlink_to(tmp_path / "blob")
    assert failures(release) == []
    (tmp_path / "blob").write_bytes(b"changed")
    assert "model.safetensors is not what was released" in failures(release)[0]
    (tmp_path / "blob").unlink()
    assert "model.safetensors is missing" in failures(release)[0]


def test_compiled_code_fails_and_the_message_says_what_it_is(release: Path) -> None:
    """A .pyc with the time of model.py in it runs in its place; whether it is only a
    leftover can't be seen from outside.
    """
    (release / "__pycache__").mkdir()
    (release / "__pycache__/model.cpython-311.pyc").write_bytes(b"")
    (line,) = failures(release)
    assert "__pycache__/ is not in release.json: Python leaves it" in line
    assert line.endswith("delete it")


def test_sums_that_are_no_text_are_reported(release: Path) -> None:
    (release / "SHA256SUMS").write_bytes(b"\xff\xfe\x00")
    assert any(
        "SHA256SUMS and release.json do not agree" in line for line in failures(release)
    )


def accepted(
    artifacts: Path, error: float, value: float, in_sample: float | None = None
) -> Path:
    """A release of which parity-check accepted an error, and whose sample expects the
    value; its report may state the noise floor in the sample.
    """
    fake_artifacts(artifacts)
    save_file(
        {"y": np.full((1, 2), value, np.float32)},
        artifacts / "parity/sample/outputs.safetensors",
    )
    write_manifest(artifacts / "parity", "parity")
    report = write_parity(artifacts)
    for figures in report.formats.values():
        y = figures.outputs["y"]
        figures.outputs["y"] = msgspec.structs.replace(y, max_abs_error=error)
    report.noise_floor["y"] = NoiseFloor(typical=1e-9, worst=1e-9)
    if in_sample is not None:
        floor = SampleFloor(typical=in_sample, worst=in_sample)
        report.sample_floor["y"] = floor
    store_report(artifacts, report)
    return assemble(artifacts)


def test_an_error_that_parity_json_rounded_down_does_not_fail_a_release(
    tmp_path: Path,
) -> None:
    release = accepted(tmp_path / "artifacts", 0.011, 1.0)
    assert failures(release, {"y": [[1.0, 1.01149]]}) == []
    assert len(failures(release, {"y": [[1.0, 1.01151]]})) == 3


def test_an_error_of_other_cases_allows_none_in_the_sample(tmp_path: Path) -> None:
    """The largest accepted error is often that of inputs a thousand times as large."""
    release = accepted(tmp_path / "artifacts", 0.5, 1.0, in_sample=1e-4)
    multiple = 8  # of the noise floor, by this report
    assert failures(release, {"y": [[1.0, 1.0 + multiple * 1e-4]]}) == []
    assert len(failures(release, {"y": [[1.0, 1.001]]})) == 3


def test_the_rounding_of_the_sample_itself_does_not_fail_a_release(
    tmp_path: Path,
) -> None:
    """What was 99999.9961 in float64 is 100000 in the sample: 0.012 below it, float32
    gives two steps of 0.0078.
    """
    release = accepted(tmp_path / "artifacts", 0.012, 100_000.0)
    assert failures(release, {"y": [[100_000.0, 99_999.984375]]}) == []
    assert len(failures(release, {"y": [[100_000.0, 99_999.9765625]]})) == 3


def test_a_manifest_changed_with_its_file_is_seen_by_its_sums(release: Path) -> None:
    changed = release / "config.json"
    changed.write_text('{"changed": true}\n')
    described = read_release(release)
    files = described.built.files | {"config.json": FileEntry.of(changed)}
    built = Listing(sha256=digest_of(files), files=files)
    msgspec.structs.replace(described, built=built).write(release / "release.json")
    assert any(
        "SHA256SUMS and release.json do not agree" in line for line in failures(release)
    )


def test_model_code_that_a_release_names_is_called_only_when_it_is_trusted(
    tmp_path: Path,
) -> None:
    release = assemble(naming_other_code(tmp_path / "artifacts"))
    rows = {check.name: check for check in verify(release)}
    assert not rows["safetensors"].passed
    message = rows["safetensors"].message
    assert message.startswith("not run: 'subprocess:run' is named as its model code")
    assert "name subprocess:run in trust" in message


def test_the_grant_reaches_what_opens_the_formats(release: Path) -> None:
    grants: list[Trust] = []

    def opener(format: str, path: Path, trust: Trust) -> Fixed:
        grants.append(trust)
        return Fixed({"y": [[1.0, 1.0]]})

    verify(release, opener=opener)
    verify(release, trust=["theirs:build"], opener=opener)
    assert grants == [*[NO_TRUST] * 3, *[Trust.of(["theirs:build"])] * 3]


@pytest.mark.parametrize(
    ("format", "path"),
    [("safetensors", "onnx"), ("safetensors", "onnx/model.onnx"), ("checkpoint", "")],
)
def test_no_other_place_in_a_release_names_model_code_that_is_called(
    tmp_path: Path, format: str, path: str
) -> None:
    """release.json may list anything: a folder that is no format's own, or what is run
    as a checkpoint is, by the code that it names.
    """
    release = assemble(naming_other_code(tmp_path / "artifacts", "onnx"))
    described = read_release(release)
    hostile = Runnable(format=format, path=path)
    redescribe(
        release, msgspec.structs.replace(described, formats={"safetensors": hostile})
    )
    opener = Fixed({"y": [[1.0, 1.0]]})
    checks = verify(release, opener=opener)
    assert [check.name for check in checks if not check.passed] == ["safetensors"]
    assert opener.opened == []


def naming_other_code(artifacts: Path, format: str = "safetensors") -> Path:
    """Artifacts with a config.json that names any callable as the model."""
    fake_artifacts(artifacts)
    signature = Signature((TensorSpec("x", shape=(1, 2)),), (TensorSpec("y"),), {})
    architecture = Architecture("subprocess:run", {}, signature)
    ModelConfig(architecture).write(artifacts / format)
    write_manifest(artifacts / format, format)
    write_parity(artifacts)
    return artifacts


def redescribe(release: Path, described: Release) -> None:
    """Another release.json, and the checksums that belong to it."""
    described.write(release / "release.json")
    checksums = described.checksums(sha256(release / "release.json"))
    (release / "SHA256SUMS").write_text(checksums)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", ""])
def test_a_manifest_that_leads_out_of_the_release_is_refused(
    release: Path, path: str
) -> None:
    described = read_release(release)
    described.built.files[path] = FileEntry(1, "0" * 64)
    described.write(release / "release.json")
    with pytest.raises(ArtifactError, match="leads out of the folder"):
        verify(release)


@pytest.mark.parametrize("text", ["[]", "null", "{}", "[" * 100_000])
def test_a_release_json_that_is_none_is_one_clear_error(
    release: Path, text: str
) -> None:
    (release / "release.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"release\.json"):
        verify(release)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("formats", []),
        ("formats", {"onnx": {"format": "onnx", "path": "../x"}}),
        ("sample", {"inputs": "/x"}),
        ("sample", {"inputs": "\ud800"}),
        ("card", "burn"),
        ("built", {"sha256": "", "files": {"a": 1}}),
        ("built", {"sha256": "", "files": {"a": {"size": "1"}}}),
        ("built", {"sha256": "0" * 64, "files": {}}),
        ("evidence", None),
    ],
)
def test_a_wrong_value_in_release_json_is_one_clear_error(
    release: Path, key: str, value: object
) -> None:
    path = release / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ArtifactError, match=r"release\.json"):
        verify(release)


def test_a_release_of_a_form_to_come_is_not_taken_for_a_broken_one_alone(
    release: Path,
) -> None:
    path = release / "release.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"formats": [{"name": "onnx"}]}))
    with pytest.raises(ArtifactError) as caught:
        verify(release)
    assert "a newer checkpoint-release" in caught.value.remedy


def test_a_file_listed_as_built_and_as_evidence_is_an_error(release: Path) -> None:
    described = read_release(release)
    files = described.built.files | described.evidence.files
    built = Listing(sha256=digest_of(files), files=files)
    redescribe(release, msgspec.structs.replace(described, built=built))
    with pytest.raises(ArtifactError, match="as built and as evidence"):
        verify(release)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "checkpoint_release", "verify", *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_what_was_published_is_what_anybody_downloads(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.hub.hub.page_size = 4
    publisher.publish()
    publisher.repo.edit({"config.json": b"changed on main after the tag\n"})
    folder = tmp_path / "download"
    download(Hub(publisher.hub.url, TOKEN), REPO, "v1.0.0", folder)
    assert failures(folder) == []
    download(Hub(publisher.hub.url, TOKEN), REPO, None, tmp_path / "main")
    assert any(
        "config.json is not what was released" in line
        for line in failures(tmp_path / "main")
    )


def test_the_command_finds_bytes_that_the_hub_serves_wrong(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish()
    publisher.hub.hub.lies["model.safetensors"] = "served"
    home = {
        "HF_ENDPOINT": publisher.hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
    }
    done = run(REPO, **home)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "model.safetensors is not what was released" in done.stdout
    assert "checks failed" in done.stdout


def test_somebody_without_access_gets_one_clear_error(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish()
    with pytest.raises(PublishError, match="401") as caught:
        download(Hub(publisher.hub.url, None), REPO, None, tmp_path / "download")
    assert caught.value.remedy
    with pytest.raises(ArtifactError, match="neither a folder nor"):
        download(Hub(publisher.hub.url, None), "nowhere", None, tmp_path / "download")


def test_a_release_that_is_given_on_request_alone_names_what_to_do(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.publish(private=False)
    publisher.repo.gated = True
    publisher.hub.add_token("hf_bobsToken", Account("bob"))
    with pytest.raises(PublishError) as caught:
        download(Hub(publisher.hub.url, "hf_bobsToken"), REPO, None, tmp_path / "bobs")
    assert "it is given on request alone, and the token of bob" in caught.value.problem
    assert "ask for access" in caught.value.remedy
    download(Hub(publisher.hub.url, TOKEN), REPO, None, tmp_path / "adas")
    assert (tmp_path / "adas/release.json").is_file()


def test_the_release_that_the_pipeline_builds_passes(built: Project) -> None:
    done = built.run(
        "python", "-m", "checkpoint_release", "verify", "artifacts/release"
    )
    assert "the release is what was published" in done.stdout
    assert all(
        f"ok     {name}" in done.stdout
        for name in ("files", "safetensors", "onnx", "torchscript")
    )
