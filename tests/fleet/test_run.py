"""`fleet run` from end to end: bad members among good ones, kills, and what a second
run does.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from checkpoint_release.core.artifacts.release import read_release
from tests.support.fleets import (
    FOLDER,
    WEIGHTS_ONLY,
    Fleet,
    fleet_checkout,
    save_bad_steps,
    wait_until,
)
from tests.support.project import LIMIT, Project

pytestmark = pytest.mark.slow


def built_by_hand(fleet: Fleet, path: Path, step: int) -> str:
    """The digest of what one `dvc repro` in a checkout of its own builds."""
    project = Project.checkout(path)
    checkpoint = f"step-{step}.pth"
    source = (fleet.path / FOLDER / checkpoint).read_bytes()
    (path / "checkpoints" / checkpoint).write_bytes(source)
    project.set(
        checkpoint__path=f"checkpoints/{checkpoint}", formats__torchscript=False
    )
    project.dvc("repro")
    return read_release(path / "artifacts/release").built.sha256


def test_bad_members_fail_alone_and_what_is_done_is_not_done_again(
    tmp_path: Path,
) -> None:
    fleet = fleet_checkout(tmp_path, steps=2)
    bad = save_bad_steps(fleet.path / FOLDER)
    done = fleet.command("run", "--cluster", "local:2", check=False)
    assert done.returncode == 1, done.stderr
    assert "tiny: 2 of 5 members are built, 2 of them in this run" in done.stdout
    report = done.stdout.partition("at fault")[2].splitlines()
    for member, reason in bad.items():
        (line,) = (line for line in report if line.startswith(member))
        assert reason in line
        assert " load " in line and " member " in line
    assert not list(tmp_path.rglob("canary"))
    assert fleet.processes() == []
    assert fleet.leftovers() == []

    built = fleet.built()
    assert list(built) == ["step-1", "step-2"]
    by_hand = built_by_hand(fleet, tmp_path / "by_hand", step=1)
    assert built["step-1"].points[0].built == by_hand
    assert built["step-2"].points[0].built != by_hand

    commits = fleet.project.git("for-each-ref", "refs/fleet")
    again = fleet.command("run", "--cluster", "local:2", check=False)
    assert again.returncode == 1
    assert "0 of them in this run" in again.stdout
    assert fleet.project.git("for-each-ref", "refs/fleet") == commits

    for step in (91, 92, 93):
        (fleet.path / FOLDER / f"step-{step}.pth").unlink()
    assert "2 of 2 members" in fleet.command("run", "--cluster", "local:1").stdout

    # What a ref holds is a release that any clone can have.
    fleet.project.git("clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.git("fetch", "-q", "origin", "refs/fleet/tiny/step-2")
    clone.git("checkout", "-q", "FETCH_HEAD")
    clone.dvc("pull", "artifacts/release")
    release = read_release(clone.path / "artifacts/release")
    assert release.built.sha256 == built["step-2"].points[0].built


def test_killed_workers_and_coordinators_leave_no_orphans_and_lose_nothing(
    tmp_path: Path,
) -> None:
    fleet = fleet_checkout(tmp_path, steps=2, params=WEIGHTS_ONLY)

    with fleet.started("run", "--cluster", "local:2") as run:
        wait_until(lambda: len(fleet.processes()) >= 4, "the stages of two members")
        run.kill()  # the coordinator, and nothing else
        wait_until(lambda: not fleet.processes(), "the end of its members")
        assert fleet.built() == {}

    with fleet.started("run", "--cluster", "local:1") as run:
        wait_until(fleet.processes, "a member")
        worker = parent_of(fleet.processes()[0], run.pid)
        os.kill(worker, signal.SIGKILL)
        printed, _ = run.communicate(timeout=LIMIT)
        assert run.returncode == 0, printed
    assert sorted(fleet.built()) == ["step-1", "step-2"]
    assert fleet.processes() == []
    assert fleet.leftovers() == []


def parent_of(process: int, coordinator: int) -> int:
    """The worker that a process descends from: a child of a child of the coordinator's
    that isn't the coordinator.
    """
    while True:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        parent = int(fields[1])
        assert parent > 1, "it descends from no worker"
        command = Path(f"/proc/{parent}/cmdline").read_text()
        if "multiprocessing" in command:
            return parent
        assert parent != coordinator
        process = parent


def test_an_interrupted_run_ends_at_once_and_the_next_goes_on(tmp_path: Path) -> None:
    fleet = fleet_checkout(tmp_path, steps=2, params=WEIGHTS_ONLY)
    with fleet.started("run", "--cluster", "local:1") as run:
        wait_until(lambda: len(fleet.built()) == 1, "the first member")
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        printed, _ = run.communicate(timeout=LIMIT)
        assert run.returncode == 130, printed
        assert "Traceback" not in printed
        wait_until(lambda: not fleet.processes(), "the end of its members", 10)

    second = fleet.command("run", "--cluster", "local:2").stdout
    assert "2 of 2 members are built, 1 of them in this run" in second
