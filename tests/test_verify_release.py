"""verify_release: a release as a stranger gets it, whole or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ArtifactError, PublishError
from pipeline.files import write_json, write_manifest
from pipeline.hub import Hub
from pipeline.release import assemble, read_release
from pipeline.verify_release import download, report, verify
from tests.project import ROOT, Project
from tests.publishing import REPO, SENDING, TOKEN, Publisher, fake_artifacts, write_parity

pytestmark = pytest.mark.filterwarnings(SENDING)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return assemble(fake_artifacts(tmp_path / "artifacts"))


class Fixed:
    """A runtime that gives what it was told to, whatever it is asked."""

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self.outputs = {name: np.asarray(value, np.float32) for name, value in outputs.items()}
        self.opened: list[str] = []

    def __call__(self, format: str, path: Path) -> Fixed:
        assert path.exists()
        self.opened.append(format)
        return self

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        assert inputs.keys() == {"x"}
        return self.outputs


def failures(folder: Path, outputs: Mapping[str, Any] | None = None, **options: Any) -> list[str]:
    opener = Fixed(outputs if outputs is not None else {"y": [[1.0, 1.0]]})
    return [f"{check.name}: {check.told}" for check in verify(folder, opener=opener, **options) if not check.passed]


def test_a_good_release_passes_in_every_format(release: Path) -> None:
    opener = Fixed({"y": [[1.0, 1.0 + 5e-7]]})
    checks = verify(release, opener=opener)
    assert all(check.passed for check in checks)
    assert opener.opened == ["safetensors", "onnx", "torchscript"]
    assert report(checks).endswith("the release is what was published")


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        ({"y": [[1.0, 1.1]]}, "largest error 0.1, allowed 1.6e-06"),
        ({"y": [[1.0, float("nan")]]}, "NaN"),
        ({"y": [1.0]}, "of shape [1]"),
        ({}, "missing"),
    ],
)
def test_a_format_that_computes_something_else_fails(release: Path, outputs: dict[str, Any], told: str) -> None:
    assert len(found := failures(release, outputs)) == 3
    assert all(told in line for line in found)


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


def test_a_manifest_changed_with_its_file_is_seen_by_its_sums(release: Path) -> None:
    (release / "config.json").write_text('{"changed": true}\n')
    changed = read_release(release)
    described = (release / "release.json").read_text().replace(changed.files["config.json"].sha256, "0" * 64)
    (release / "release.json").write_text(described)
    assert any("SHA256SUMS and release.json do not agree" in line for line in failures(release))


def test_model_code_that_a_release_names_is_called_only_when_it_is_trusted(tmp_path: Path) -> None:
    artifacts = fake_artifacts(tmp_path / "artifacts")
    write_json(artifacts / "safetensors/config.json", {"factory": "subprocess:run", "kwargs": {"args": ["id"]}})
    write_manifest(artifacts / "safetensors", "safetensors")
    write_parity(artifacts)
    release = assemble(artifacts)
    opener = Fixed({"y": [[1.0, 1.0]]})
    told = [check.told for check in verify(release, opener=opener) if not check.passed]
    assert len(told) == 1 and "subprocess:run" in told[0] and "safetensors" not in opener.opened
    assert failures(release, trust=["subprocess:run"]) == []


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", ""])
def test_a_manifest_that_leads_out_of_the_release_is_refused(release: Path, path: str) -> None:
    entry = {"size": 1, "sha256": "0" * 64}
    described = {"formats": {}, "sample": {}, "card": "replace", "files": {path: entry}}
    write_json(release / "release.json", described)
    with pytest.raises(ArtifactError, match="not the manifest of a release"):
        verify(release)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.verify_release", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def test_what_was_published_is_what_a_stranger_downloads(publisher: Publisher, tmp_path: Path) -> None:
    publisher.hub.hub.page_size = 4
    publisher.publish()
    publisher.repo.edit({"config.json": b"changed on main after the tag\n"})
    folder = tmp_path / "download"
    download(Hub(publisher.hub.url, TOKEN), REPO, "v1.0.0", folder)
    assert failures(folder) == []
    download(Hub(publisher.hub.url, TOKEN), REPO, None, tmp_path / "main")
    assert any("config.json is not what was released" in line for line in failures(tmp_path / "main"))


def test_the_command_finds_bytes_that_the_hub_serves_wrong(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish()
    publisher.hub.hub.lies["model.safetensors"] = "served"
    home = {"HF_ENDPOINT": publisher.hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    done = run(REPO, **home)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "model.safetensors is not what was released" in done.stdout and "checks failed" in done.stdout


def test_a_stranger_without_access_is_told_so(publisher: Publisher, tmp_path: Path) -> None:
    publisher.publish()
    with pytest.raises(PublishError, match="401") as caught:
        download(Hub(publisher.hub.url, None), REPO, None, tmp_path / "download")
    assert caught.value.remedy
    with pytest.raises(ArtifactError, match="neither a folder nor"):
        download(Hub(publisher.hub.url, None), "nowhere", None, tmp_path / "download")


def test_the_release_that_the_pipeline_builds_passes(built: Project) -> None:
    done = built.run("python", "-m", "pipeline.verify_release", "artifacts/release")
    assert "the release is what was published" in done.stdout
    assert all(f"ok     {name}" in done.stdout for name in ("files", "safetensors", "onnx", "torchscript"))
