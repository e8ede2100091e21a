"""The workflow for GitHub: what its jobs may do, and its commands run as GitHub would,
against a Hub that trusts the job.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from checkpoint_release.project import tag
from tests.support.hub_server import HubServer
from tests.support.hub_server.trusted import environment
from tests.support.project import ROOT, Project, tree
from tests.support.publishing import REPO

WORKFLOW = ROOT / ".github/workflows/release.yml"
CLAIMS = {"repository": "ada/training", "environment": "release"}
Captured = pytest.CaptureFixture[str]


def workflow() -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(WORKFLOW)
    return loaded


def commands(job: str) -> list[str]:
    """What a job runs in its shell, but for the installation."""
    found = [step["run"] for step in workflow()["jobs"][job]["steps"] if "run" in step]
    assert found[0] == "pip install $PACKAGES"
    return found[1:]


def run_job(
    job: str, project: Project, given: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a job's commands as GitHub does: each in a shell of its own, up to the first
    that fails, with what those before wrote into GITHUB_ENV.

    Returns:
        The last one that ran.
    """
    shared = project.path.parent / "github_env"
    shared.touch()
    variables = {**given, "GITHUB_ENV": str(shared)}
    for command in commands(job):
        lines = shared.read_text().splitlines()
        variables |= dict(line.split("=", 1) for line in lines)
        shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command)
        done = project.run(*shell, check=False, environment=variables)
        if done.returncode:
            break
    return done


# What the file says


def test_only_the_job_of_a_tag_has_an_identity_and_nobody_has_a_secret() -> None:
    loaded = workflow()
    assert loaded["permissions"] == {"contents": "read"}
    build, publish = loaded["jobs"]["build"], loaded["jobs"]["publish"]
    assert build["if"] == "github.ref_type != 'tag'" and "permissions" not in build
    assert publish["if"] == "github.ref_type == 'tag'"
    assert publish["permissions"] == {"contents": "read", "id-token": "write"}
    assert publish["environment"] == "release"
    assert "secrets" not in WORKFLOW.read_text()


def test_both_jobs_see_the_history_that_provenance_names() -> None:
    for job in workflow()["jobs"].values():
        assert job["steps"][0]["with"]["fetch-depth"] == 0


# A tag, held against params.yaml


def tagged(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.chdir(folder)
    return tag.main([name])


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    project.set(publish__repo_id=REPO, publish__version="v1.0.0")
    return project


def test_a_tag_names_the_repository_to_trusted_publishers(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    assert tagged(project.path, "v1.0.0", monkeypatch) == 0
    assert capsys.readouterr().out == f"HF_OIDC_RESOURCE={REPO}\n"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("v1.0.1", {}, "the tag is v1.0.1, and publish.version is v1.0.0"),
        ("v1.0.0", {"publish__repo_id": None}, "publish.repo_id is not set"),
        ("v1.0.0", {"publish__dry_run": True}, "publish.dry_run is true"),
    ],
)
def test_a_tag_that_publishes_nothing_is_one_clear_error(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    name: str,
    options: dict[str, Any],
    message: str,
) -> None:
    project.set(**options)
    assert tagged(project.path, name, monkeypatch) == 1
    printed = capsys.readouterr()
    assert message in printed.err and "what to do: " in printed.err
    assert printed.out == ""


# Its jobs, run


@pytest.fixture
def job(hub: HubServer) -> dict[str, str]:
    """What a job finds on GitHub; the Hub trusts it, and nobody has a token."""
    hub.hub.create(REPO)
    hub.hub.tokens.clear()
    hub.trusted.trusted[REPO] = CLAIMS
    hub.trusted.job = dict(CLAIMS)
    given = environment(hub.url, REPO)
    del given["HF_OIDC_RESOURCE"]  # the workflow's to find out
    return {
        **given,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "",
        "HF_HOME": "/nowhere",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GITHUB_REF_NAME": "v1.0.0",
    }


@pytest.mark.slow
def test_a_branch_is_built_and_proven_and_a_tag_publishes_it(
    built: Project, tmp_path: Path, hub: HubServer, job: dict[str, str]
) -> None:
    project = built.copy(tmp_path / "project")
    project.set(publish__repo_id=REPO, publish__version="v1.0.0")
    project.commit("Version 1.0.0")
    receipt = (project.path / "artifacts/publish.json").read_bytes()

    building = project.copy(tmp_path / "building")
    done = run_job("build", building, {})
    assert done.returncode == 0, done.stderr
    assembled = building.path / "artifacts/release"
    assert "from_pretrained" in (assembled / "README.md").read_text()
    assert (building.path / "artifacts/publish.json").read_bytes() == receipt
    assert hub.requests == []

    other = run_job("publish", project, {**job, "GITHUB_REF_NAME": "v1.0.1"})
    assert other.returncode == 1 and "the tag is v1.0.1" in other.stderr
    hub.trusted.job["repository"] = "eve/fork"
    foreign = run_job("publish", project, job)
    assert foreign.returncode and "under Trusted Publishers" in foreign.stderr
    assert len(hub.repo(REPO).history()) == 1

    hub.trusted.job["repository"] = CLAIMS["repository"]
    done = run_job("publish", project, job)
    assert done.returncode == 0, done.stdout + done.stderr
    repo = hub.repo(REPO)
    assert repo.tags == {"v1.0.0": repo.branches["main"]}
    files = repo.files()
    release = tree(assembled)
    assert {name: files[name] for name in release} == release
    assert f'"repo": "{REPO}"' in (project.path / "artifacts/publish.json").read_text()
    assert repo.history()[0].author == "[OIDC] ada/training"
