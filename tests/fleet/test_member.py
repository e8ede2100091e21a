"""What a host makes sure of before and after it builds a member."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_release.core.errors import CheckpointError, FleetError
from checkpoint_release.fleet.fetch import fetch, require_planned
from checkpoint_release.fleet.outcome import Failed, Job, Outcome
from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.schedule import Schedule
from checkpoint_release.fleet.spec import load_spec
from checkpoint_release.fleet.workspace import require_pins, scratch_clone
from tests.support.fleets import FOLDER, Fleet, small_project
from tests.support.simulated_cluster import SimulatedCluster


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return small_project(tmp_path / "project")


def job_of(fleet: Fleet, **changes: Any) -> Job:
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    return msgspec.structs.replace(plan.job(plan.members[0]), **changes)


def test_a_clone_holds_the_commit_and_nothing_of_the_member_before(
    fleet: Fleet,
) -> None:
    job = job_of(fleet)
    (fleet.path / "not-committed").touch()
    with scratch_clone(fleet.home, job) as clone:
        assert (clone / "dvc.yaml").is_file()
        assert not (clone / "not-committed").exists()
        config = (clone / ".dvc/config.local").read_text()
        assert f"dir = {fleet.home}/cache" in config
        # the remote of the project, though it is stated relative to the project
        assert str(fleet.path.parent / "checkpoint-release-storage") in config
        with scratch_clone(fleet.home, job) as other:
            assert other != clone

        (clone / "params.yaml").write_text("other: {}")
        (clone / "dvc.yaml").unlink()
        for left in ("artifacts/onnx/model.onnx", ".dvc/tmp/rwlock", "runs/left.pth"):
            path = clone / left
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        compiled = clone / "checkpoint_release/core/__pycache__/params.pyc"
        compiled.parent.mkdir()
        compiled.touch()
        # what DVC remembers of the remote's content
        remembered = clone.parent / "site/repo/0/index"
        remembered.mkdir(parents=True)

    with scratch_clone(fleet.home, job) as again:
        assert again == clone
        assert (
            again.joinpath("params.yaml").read_bytes()
            == (fleet.path / "params.yaml").read_bytes()
        )
        assert (again / "dvc.yaml").is_file()
        assert not (again / "artifacts/onnx").exists()
        assert not (again / ".dvc/tmp/rwlock").exists()
        assert not (again / "runs/left.pth").exists()
        assert compiled.exists()
        assert not remembered.exists()


def test_a_clone_that_a_kill_cut_is_made_anew(fleet: Fleet) -> None:
    job = job_of(fleet)
    with scratch_clone(fleet.home, job) as clone:
        (clone / ".git/index.lock").touch()  # as a git that was killed leaves it
    with scratch_clone(fleet.home, job) as again:
        assert again == clone
        assert not (again / ".git/index.lock").exists()
        assert (again / "dvc.yaml").is_file()


def test_what_a_killed_member_left_is_removed_by_the_next_one(fleet: Fleet) -> None:
    job = job_of(fleet)
    with scratch_clone(fleet.home, job), scratch_clone(fleet.home, job) as other:
        running = other / "running"
        running.touch()
        with scratch_clone(fleet.home, job):
            assert running.exists()
    left = other / "left"
    left.touch()
    (other.parent / "used").touch()
    with scratch_clone(fleet.home, job) as clone:
        assert clone != other
        assert not left.exists()


def test_a_clone_follows_the_pipeline_to_its_next_commit(fleet: Fleet) -> None:
    with scratch_clone(fleet.home, job_of(fleet)):
        pass
    params = fleet.path / "params.yaml"
    params.write_text(params.read_text() + "# another line\n")
    fleet.project.commit("Another line")
    with scratch_clone(fleet.home, job_of(fleet)) as clone:
        assert (clone / "params.yaml").read_text().endswith("# another line\n")


def test_a_commit_that_cannot_be_had_is_the_hosts_failure(fleet: Fleet) -> None:
    job = job_of(fleet, repository="file:///nowhere")
    clone = scratch_clone(fleet.home, job)
    with pytest.raises(FleetError, match="make the commit reachable"), clone:
        raise AssertionError("it was had")


def test_other_libraries_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    version = importlib.metadata.version("numpy")
    pins.write_text(f"numpy=={version}\nnot-installed==1.0\n")
    require_pins(tmp_path)
    pins.write_text("numpy==1.0\n")
    with pytest.raises(FleetError, match=rf"numpy {version} \(pinned: 1\.0\)"):
        require_pins(tmp_path)


def test_a_checkpoint_in_git_needs_no_shared_disk(fleet: Fleet) -> None:
    job = job_of(fleet, root="/another/host")
    with scratch_clone(fleet.home, job) as clone:
        path = clone / fetch(job, clone)
        assert path.read_bytes() == b"weights 1"

    shutil.copy(fleet.path / FOLDER / "step-1.pth", fleet.path / FOLDER / "step-0.pth")
    job = job_of(fleet, root="/another/host")  # of step-0, which git doesn't track
    missing = pytest.raises(FleetError, match="is not on this host")
    with scratch_clone(fleet.home, job) as clone, missing:
        fetch(job, clone)


def test_a_checkpoint_that_changed_since_the_plan_is_not_released(fleet: Fleet) -> None:
    checkpoint = job_of(fleet).checkpoint
    sha256 = checkpoint.digest.removeprefix("sha256:")
    require_planned(checkpoint, sha256, "any")
    with pytest.raises(CheckpointError, match="changed since it was planned"):
        require_planned(checkpoint, "0" * 64, "any")


class Failures:
    """Tries of a member: what each fails of, in order; then they succeed.

    Args:
        causes: "host" or "member".
    """

    def __init__(self, causes: list[str]) -> None:
        self.causes = causes
        self.tries = 0

    def next(self, job: Job) -> bytes:
        """The outcome of the next try."""
        cause = self.causes[self.tries] if self.tries < len(self.causes) else ""
        self.tries += 1
        failed = Failed(
            name=job.name,
            key=job.key,
            cause="member" if cause == "member" else "host",
            stage="",
            message=cause,
            log=[],
            host="",
        )
        return msgspec.json.encode(Outcome(failed=failed))


@pytest.mark.parametrize(
    ("causes", "tries"), [(["host"] * 9, 3), (["member"], 1), (["host", "member"], 2)]
)
def test_only_what_a_host_is_at_fault_for_is_tried_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, causes: list[str], tries: int
) -> None:
    monkeypatch.setattr("checkpoint_release.fleet.schedule._DELAY", 0.0)
    failures = Failures(causes)
    ended: list[Outcome] = []
    cluster = SimulatedCluster(failures.next)
    Schedule(
        cluster, [job_of(fleet)], ended.append, lambda member, stage: None, retries=2
    ).run()
    assert failures.tries == tries
    (outcome,) = ended
    assert outcome.failed is not None and outcome.failed.cause == causes[tries - 1]
