"""Checkpoints of a Hub's repository at several revisions as members of a fleet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_release.core.errors import (
    CheckpointError,
    CheckpointReleaseError,
    FleetError,
)
from checkpoint_release.fleet.fetch import fetch
from checkpoint_release.fleet.plan import FleetPlan, make_plan
from checkpoint_release.fleet.spec import load_spec
from checkpoint_release.release import hub as hub_module
from tests.support.fleets import Fleet, small_project
from tests.support.hub_server import HubServer
from tests.support.publishing import TOKEN

REPO = "lab/steps"
IN_LFS, IN_GIT = "model.pth", "model.weights"


@pytest.fixture
def fleet(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A fleet, and a repository with two steps of a training: a branch and a tag."""
    # huggingface_hub reads HF_ENDPOINT once for all tests
    monkeypatch.setattr(hub_module, "default_endpoint", lambda: hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    repo = hub.hub.create(REPO)
    for step in (100, 200):
        content = b"weights %d" % step
        commit = repo.edit({IN_LFS: content, IN_GIT: content})
        repo.branches[f"step-{step}"] = commit.oid
    repo.tags["v1"] = repo.branches["step-200"]
    return small_project(tmp_path / "project")


def planned(fleet: Fleet, file: str, *revisions: str) -> FleetPlan:
    source = {"hub": REPO, "file": file, "revisions": list(revisions)}
    fleet.spec(source=[source])
    return make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))


@pytest.mark.parametrize(("file", "algorithm"), [(IN_LFS, "sha256"), (IN_GIT, "git")])
def test_each_revision_is_a_member_and_its_file_is_brought_and_checked(
    fleet: Fleet, tmp_path: Path, file: str, algorithm: str
) -> None:
    plan = planned(fleet, file, "step-{step}", "v1")
    revisions = [member.checkpoint.values["revision"] for member in plan.members]
    assert revisions == ["step-100", "step-200", "v1"]
    assert plan.members[0].checkpoint.values["step"] == "100"
    for number, member in enumerate(plan.members):
        assert member.checkpoint.digest.startswith(f"{algorithm}:")
        place = tmp_path / str(number)
        path = place / fetch(plan.job(member), place)
        step = 100 if number == 0 else 200
        assert path.read_bytes() == b"weights %d" % step


def test_a_branch_that_moves_makes_its_member_new_and_the_planned_commit_stays(
    fleet: Fleet, hub: HubServer, tmp_path: Path
) -> None:
    before = planned(fleet, IN_LFS, "main", "step-100")
    hub.repo(REPO).edit({IN_LFS: b"weights 300"})
    after = planned(fleet, IN_LFS, "main", "step-100")
    changed = [
        one.key != other.key
        for one, other in zip(before.members, after.members, strict=True)
    ]
    assert changed == [True, False]
    path = tmp_path / fetch(before.job(before.members[0]), tmp_path)
    assert path.read_bytes() == b"weights 200"


def test_a_file_that_is_not_the_planned_one_is_refused(
    fleet: Fleet, tmp_path: Path
) -> None:
    plan = planned(fleet, IN_LFS, "step-100")
    job = plan.job(plan.members[0])
    other = msgspec.structs.replace(job.checkpoint, digest=f"sha256:{'0' * 64}")
    job = msgspec.structs.replace(job, checkpoint=other)
    with pytest.raises(CheckpointError, match="changed since it was planned"):
        fetch(job, tmp_path)


def test_a_hub_that_is_gone_is_the_hosts_failure(
    fleet: Fleet, hub: HubServer, tmp_path: Path
) -> None:
    plan = planned(fleet, IN_LFS, "step-100")
    del hub.hub.repos[REPO]
    with pytest.raises(FleetError, match=re.escape(f"downloading {IN_LFS} of {REPO}")):
        fetch(plan.job(plan.members[0]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"revisions": ["epoch-*"]}, "no branch or tag that fits epoch-*"),
        ({"file": "other.pth"}, "no other.pth at revision step-100"),
        ({"hub": "lab/none"}, "lab/none"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    fleet: Fleet, changes: dict[str, Any], problem: str
) -> None:
    source = {"hub": REPO, "file": IN_LFS, "revisions": ["step-100"], **changes}
    fleet.spec(source=[source])
    with pytest.raises(CheckpointReleaseError) as raised:
        make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    assert problem in raised.value.message()
