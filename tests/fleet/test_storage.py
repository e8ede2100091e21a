"""Where checkpoints come from and releases go: S3, and folders that DVC tracks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import (
    FOLDER,
    WEIGHTS_ONLY,
    fleet_checkout,
    save_step,
    small_project,
    wait_until,
)
from tests.support.project import LIMIT
from tests.support.s3_server import BUCKET, ENVIRONMENT, S3Server


@pytest.mark.slow
def test_files_in_a_folder_that_dvc_tracks_are_members(tmp_path: Path) -> None:
    fleet = small_project(tmp_path / "project")
    fleet.spec(source=[{"files": f"{FOLDER}/step-{{step}}.pth"}])
    fleet.project.git("rm", "-rq", "--cached", FOLDER)
    fleet.project.dvc("add", FOLDER)
    fleet.spec(source=[{"dvc": f"{FOLDER}/step-{{step}}.pth"}])
    fleet.project.commit("Tracked by DVC")
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    assert [member.name for member in plan.members] == ["step-1", "step-2"]
    first = plan.members[0].checkpoint
    assert (first.kind, first.values) == ("dvc", {"step": "1"})
    assert first.digest.startswith("md5:")


@pytest.mark.slow
def test_members_come_from_s3_and_go_there_though_its_server_dies_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with S3Server() as server:
        source = {"s3": f"s3://{BUCKET}/runs/step-{{step}}.pth", "endpoint": server.url}
        fleet = fleet_checkout(tmp_path, steps=0, params=WEIGHTS_ONLY, source=[source])
        project = fleet.project
        project.dvc("remote", "add", "-d", "s3", f"s3://{BUCKET}/store")
        project.dvc("remote", "modify", "s3", "endpointurl", server.url)
        project.commit("An S3 remote")
        checkpoint = save_step(tmp_path / "runs", 1)
        server.put(checkpoint, "runs/step-1.pth")

        with fleet.started("run", "--cluster", "local:1", "--retries", "0") as run:
            wait_until(lambda: stage_runs(fleet.home), "the last stages")
            server.kill()
            printed, _ = run.communicate(timeout=LIMIT)
            assert run.returncode == 1, printed
        assert "dvc push failed: the remote s3 doesn't take everything" in printed
        assert fleet.built() == {}

        server.start()
        server.put(checkpoint, "runs/step-1.pth")
        done = fleet.command("run", "--cluster", "local:1")
        assert "1 of 1 members are built" in done.stdout
        stored = {"".join(name.split("/")[-2:]) for name in server.names("store")}
        lock = YAML(typ="safe").load(fleet.built()["step-1"].points[0].lock)
        (release,) = (
            out["md5"]
            for out in lock["stages"]["publish"]["outs"]
            if out["path"] == "artifacts/release"
        )
        assert release in stored

        # Another host has nothing but the remote, and no stage runs there again.
        first = fleet.built()["step-1"]
        fleet.home.rename(tmp_path / "lost")
        again = fleet.command("run", "--cluster", "local:1", "--again")
        assert "1 of them in this run" in again.stdout
        second = fleet.built()["step-1"]
        assert second.points[0].ran == []
        assert second.points[0].built == first.points[0].built

        # What a batch system calls does the same without a coordinator.
        server.put(save_step(tmp_path / "runs", 2), "runs/step-2.pth")
        keys = json.loads(fleet.command("plan", "--json").stdout)["matrix"]["include"]
        assert len(keys) == 1
        fleet.command("member", keys[0]["keys"])
        assert "built already" in fleet.command("member", keys[0]["keys"]).stdout
        fleet.command("collect")
        assert sorted(fleet.built()) == ["step-1", "step-2"]


def stage_runs(home: Path) -> bool:
    """Whether a member has come to its model card."""
    return any(home.glob("scratch/*/*/clone/artifacts/model-card"))
