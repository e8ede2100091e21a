"""The plan: which members there are, what their keys depend on, and what is done."""

from __future__ import annotations

import fcntl
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from checkpoint_release.core.artifacts.receipt import Receipt
from checkpoint_release.core.errors import CheckpointReleaseError, ParamsError
from checkpoint_release.fleet.coordinator import Options, run_fleet
from checkpoint_release.fleet.listing import listing
from checkpoint_release.fleet.plan import FleetPlan, make_plan
from checkpoint_release.fleet.refs import (
    member_refs,
    read_members,
    write_member,
)
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import FOLDER, Fleet, imagined, small_project

RECEIPT = Receipt(
    changed=True,
    endpoint="http://127.0.0.1",
    repo="lab/tiny",
    revision="main",
    commit="c" * 40,
    tag=None,
    pull_request=None,
    time="2026-01-31T12:00:00Z",
    git=None,
    files={},
)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return small_project(tmp_path / "project")


def planned(fleet: Fleet, **changes: Any) -> FleetPlan:
    if changes:
        fleet.spec(**changes)
    return make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))


def keys(fleet: Fleet, **changes: Any) -> list[str]:
    return [member.key for member in planned(fleet, **changes).members]


def test_a_key_stands_for_all_that_decides_what_is_built(fleet: Fleet) -> None:
    first = keys(fleet)
    assert len(set(first)) == 2
    (fleet.path / "notes.txt").write_text("nothing that a stage watches")
    fleet.project.commit("Notes")
    assert keys(fleet) == first

    (fleet.path / "checkpoint_release/core/params.py").write_text("VERSION = 2\n")
    assert keys(fleet) == first  # it isn't committed
    assert "checkpoint_release/core/params.py" in listing(planned(fleet))
    fleet.project.commit("Code that stages watch")
    code = keys(fleet)
    assert not set(code) & set(first)

    pins = fleet.path / "constraints.txt"
    pins.write_text(pins.read_text() + "another==1.0\n")
    fleet.project.commit("Pins")
    pinned = keys(fleet)
    assert not set(pinned) & set(code)

    options = keys(fleet, params={"onnx": {"opset": 18}})
    assert not set(options) & set(pinned)
    points = keys(fleet, params={}, matrix={"onnx.opset": [17, 18]})
    assert not set(points) & set(options)

    (fleet.path / FOLDER / "step-1.pth").write_bytes(b"other weights")
    changed = keys(fleet, params={}, matrix={"onnx.opset": [17, 18]})
    assert changed[0] != points[0] and changed[1] == points[1]


def test_a_key_covers_where_the_card_says_the_release_is(fleet: Fleet) -> None:
    target = {"repository": "lab/tiny", "branch": "step-{step}"}
    nowhere, there = keys(fleet), keys(fleet, publish=target)
    assert not set(nowhere) & set(there)
    assert keys(fleet, publish={**target, "private": False}) == there
    assert not set(keys(fleet, publish={**target, "tag": "v-{step}"})) & set(there)


def test_each_member_s_card_gets_its_own_address(fleet: Fleet) -> None:
    target = {"repository": "lab/tiny", "branch": "{step}-at-{onnx.opset}"}
    plan = planned(fleet, publish=target, matrix={"onnx.opset": [17, 20]})
    points = plan.job(plan.members[1]).points
    assert [point.address for point in points] == [
        "lab/tiny@2-at-17",
        "lab/tiny@2-at-20",
    ]
    unpublished = planned(fleet, publish=None)
    assert unpublished.job(unpublished.members[1]).points[0].address is None


@pytest.mark.parametrize(
    ("target", "option"),
    [
        ({"repository": "lab/tiny--{step}"}, "publish.repository"),
        ({"repository": "lab/tiny", "branch": "{step}.lock"}, "publish.branch"),
        ({"repository": "lab/{step}", "tag": "v {step}"}, "publish.tag"),
    ],
)
def test_a_name_that_no_hub_takes_is_found_before_anything_is_built(
    fleet: Fleet, target: dict[str, str], option: str
) -> None:
    with pytest.raises(ParamsError, match=re.escape(option)):
        planned(fleet, publish=target)


def test_what_is_built_is_done_until_its_key_changes(fleet: Fleet) -> None:
    plan = planned(fleet)
    assert plan.counts == {"done": 0, "stale": 0, "new": 2}
    write_member(plan.project, "tiny", imagined(plan, plan.members[0]))
    assert planned(fleet).counts == {"done": 1, "stale": 0, "new": 1}
    assert [member.name for member in planned(fleet).todo] == ["step-2"]

    after = planned(fleet, params={"onnx": {"opset": 20}})
    assert after.counts == {"done": 0, "stale": 1, "new": 1}
    job = after.job(after.members[0])
    assert job.earlier[""].lock.startswith("schema")

    (fleet.path / FOLDER / "step-1.pth").unlink()
    assert planned(fleet).gone == ["step-1"]


def test_a_member_reads_back_as_it_was_written(fleet: Fleet) -> None:
    plan = planned(fleet, matrix={"onnx.opset": [17, 20]})
    built = imagined(plan, plan.members[1])
    built = built.with_publication("lab/tiny branch main", "0" * 64, RECEIPT)
    write_member(plan.project, "tiny", built)
    refs = member_refs(fleet.path, "tiny")
    commit = refs["step-2"].commit
    assert refs["step-2"].key == built.key
    commit = refs["step-2"].commit
    assert list(read_members(fleet.path, [commit])) == [built]

    titles = fleet.project.git("log", "--format=%s", "-4", commit).splitlines()
    assert titles[1:3] == [
        "tiny: step-2, onnx.opset=20",
        "tiny: step-2, onnx.opset=17",
    ]
    assert titles[3] == "A project"
    shown = fleet.project.git("show", f"{commit}~1:artifacts/parity.json")
    assert json.loads(shown)["passed"] is True


def test_the_matrix_of_the_json_holds_each_key_to_build_once(fleet: Fleet) -> None:
    plan = planned(fleet)
    write_member(plan.project, "tiny", imagined(plan, plan.members[0]))
    for jobs, expected in ((256, 1), (1, 1)):
        printed = fleet.command("plan", "--json", "--jobs", str(jobs)).stdout
        include = json.loads(printed)["matrix"]["include"]
        assert len(include) == expected
        dealt = [key for job in include for key in job["keys"].split()]
        assert dealt == [plan.members[1].key]


def test_one_coordinator_at_a_time_runs_a_fleet(fleet: Fleet) -> None:
    lock = fleet.path / ".dvc/tmp/fleet/tiny.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(CheckpointReleaseError, match="another process runs"):
            run_fleet(
                fleet.path,
                load_spec(fleet.path / "fleet.yaml"),
                Options(cluster="local:1"),
            )


def test_a_member_is_named_by_name_key_or_first_digits(fleet: Fleet) -> None:
    plan = planned(fleet)
    member = plan.members[1]
    for text in (member.name, member.key, member.key[:12]):
        assert plan.member(text) == member
    with pytest.raises(CheckpointReleaseError, match="is no member"):
        plan.member("step-77")


def test_a_folder_that_is_no_project_is_refused(tmp_path: Path) -> None:
    fleet = small_project(tmp_path / "project")
    inside = fleet.path / FOLDER
    with pytest.raises(CheckpointReleaseError, match=r"has no dvc\.yaml"):
        make_plan(inside, load_spec(fleet.path / "fleet.yaml"))


def test_a_project_may_lie_in_a_folder_of_a_larger_repository(tmp_path: Path) -> None:
    own = small_project(tmp_path / "whole/model")
    (own.path / ".git").rename(own.path.parent / ".git")
    (own.path.parent / "src").mkdir()
    code = own.path.parent / "src/net.py"
    code.write_text("WIDTH = 1\n")
    text = (own.path / "dvc.yaml").read_text()
    (own.path / "dvc.yaml").write_text(text.replace("${model.source}", "../src"))
    own.project.commit("The project in a folder")
    plan = planned(own)
    assert plan.project.folder == "model/"
    assert plan.job(plan.members[0]).repository == str(own.path.parent)
    built = imagined(plan, plan.members[0])
    write_member(plan.project, "tiny", built)
    commit = member_refs(own.path, "tiny")["step-1"].commit
    assert list(read_members(own.path, [commit])) == [built]
    assert "model/params.yaml" in own.project.git("show", "--stat", f"{commit}~1")
    assert planned(own).counts["done"] == 1

    code.write_text("WIDTH = 2\n")
    own.project.git("commit", "-qam", "Another model")
    assert planned(own).counts["stale"] == 1


@pytest.mark.slow
def test_ten_thousand_members_are_planned_in_under_five_seconds(tmp_path: Path) -> None:
    fleet = small_project(tmp_path / "project", steps=10_000)
    plan = planned(fleet)
    write_member(plan.project, "tiny", imagined(plan, plan.members[5000]))
    begun = time.perf_counter()
    plan = planned(fleet)
    text = json.dumps(plan.to_json(256))
    seconds = time.perf_counter() - begun
    assert plan.counts == {"done": 1, "stale": 0, "new": 9999}
    assert len(json.loads(text)["matrix"]["include"]) == 256
    assert seconds < 5, seconds
