"""A fleet on many simulated workers: `python -m tests.bench.fleet WORKERS MEMBERS`.

The scheduler, the coordinator's loop and git are the real ones. The workers are all in
one process, and their members sleep as long as real ones take, and come back with a
result of the real size.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import msgspec
from distributed import Client, LocalCluster

from checkpoint_release.fleet import schedule
from checkpoint_release.fleet.outcome import Job, Outcome
from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.progress import STAGES
from checkpoint_release.fleet.refs import write_member
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import imagined, small_project


def main() -> None:
    """Run the simulation and print what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workers", type=int)
    parser.add_argument("members", type=int)
    parser.add_argument("--seconds", type=float, default=9.0, help="of a member")
    parser.add_argument("--no-git", action="store_true", help="write no refs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        simulate(asked, Path(folder) / "project")


def simulate(asked: argparse.Namespace, folder: Path) -> None:
    """Schedule the members of a made-up project."""
    fleet = small_project(folder, steps=asked.members)
    begun = time.perf_counter()
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    print(f"planned in {time.perf_counter() - begun:.1f} s")
    members = {member.name: member for member in plan.members}
    sent = received = heard = 0
    writing = 0.0

    def sleep(
        job: Job, home: Path, report: Callable[[str], None] = lambda stage: None
    ) -> Outcome:
        for stage in STAGES:
            report(stage)
            time.sleep(asked.seconds / len(STAGES))
        return Outcome(built=imagined(plan, members[job.name], notes="x" * 15_000))

    def done(outcome: Outcome) -> None:
        nonlocal received, writing
        received += len(msgspec.json.encode(outcome))
        begun = time.perf_counter()
        if outcome.built is not None and not asked.no_git:
            write_member(plan.project, "tiny", outcome.built)
        writing += time.perf_counter() - begun

    def hear(member: str, stage: str) -> None:
        nonlocal heard
        heard += 1

    jobs = [plan.job(member) for member in plan.members]
    sent = sum(len(msgspec.json.encode(job)) for job in jobs)
    cluster = LocalCluster(
        n_workers=asked.workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        memory_limit=0,
    )
    with cluster, Client(cluster) as client, patch.object(schedule, "launch", sleep):
        before = resource.getrusage(resource.RUSAGE_SELF)
        begun = time.perf_counter()
        schedule.Schedule(client, iter(jobs), done, hear).run()
        seconds = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
    ideal = asked.members * asked.seconds / asked.workers
    print(f"{asked.workers} workers, {asked.members} members: {seconds:.1f} s")
    print(f"without any overhead: {ideal:.1f} s")
    print(f"processor: {after.ru_utime - before.ru_utime:.1f} s; git: {writing:.1f} s")
    each = asked.members
    print(f"sent {sent // each:,} and received {received // each:,} bytes a member")
    print(f"{heard:,} events; peak memory {after.ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
