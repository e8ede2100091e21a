"""A fleet on many simulated workers:

    python -m tests.bench.fleet 1000 4000 --seconds 60

The scheduler, the coordinator's loop and git are the real ones. The workers are all in
one process, and their members sleep as long as --seconds says, and come back with a
result of the real size. --no-git shows what writing the refs takes.
"""

from __future__ import annotations

import argparse
import math
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import msgspec
from distributed import Client, LocalCluster

from checkpoint_release.fleet import schedule
from checkpoint_release.fleet.dask_settings import apply_settings
from checkpoint_release.fleet.outcome import Job, Outcome
from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.progress import STAGES
from checkpoint_release.fleet.refs import write_member
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import imagined, small_project

RESULT = 33_000  # bytes of the texts in a result: dvc.lock, params.yaml and so on


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
    apply_settings()
    fleet = small_project(folder, steps=asked.members)
    begun = time.perf_counter()
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    print(f"planned in {time.perf_counter() - begun:.1f} s")
    members = {member.name: member for member in plan.members}
    count = Counted()
    made = imagined(plan, plan.members[0], notes="x" * RESULT)

    def sleep(
        job: Job, home: Path, report: Callable[[str], None] = lambda stage: None
    ) -> Outcome:
        for stage in STAGES:
            report(stage)
            time.sleep(asked.seconds / len(STAGES))
        built = msgspec.structs.replace(made, name=job.name, key=job.key)
        return Outcome(built=built)

    def done(outcome: Outcome) -> None:
        count.received += len(msgspec.json.encode(outcome))
        begun = time.perf_counter()
        if outcome.built is not None and not asked.no_git:
            write_member(plan.project, "tiny", outcome.built)
        count.git += time.perf_counter() - begun

    def hear(member: str, stage: str) -> None:
        count.events += 1

    def jobs() -> Iterator[Job]:
        for member in members.values():
            job = plan.job(member)
            count.sent += len(msgspec.json.encode(job))
            yield job

    begun = time.perf_counter()
    cluster = LocalCluster(
        n_workers=asked.workers,
        threads_per_worker=1,
        processes=False,
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        memory_limit=0,
    )
    with cluster, Client(cluster) as client, patch.object(schedule, "launch", sleep):
        print(f"{asked.workers} workers started in {time.perf_counter() - begun:.1f} s")
        memory = resident()
        before = resource.getrusage(resource.RUSAGE_SELF)
        begun = time.perf_counter()
        schedule.Schedule(client, jobs(), done, hear).run()
        seconds = time.perf_counter() - begun
        after = resource.getrusage(resource.RUSAGE_SELF)
        grown = resident() - memory
    ideal = math.ceil(asked.members / asked.workers) * asked.seconds
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    each = asked.members
    print(f"{asked.members} members of {asked.seconds:g} s: {seconds:.1f} s")
    print(f"without any overhead: {ideal:.1f} s")
    print(f"members a second: {each / seconds:.1f}, of at most {each / ideal:.1f}")
    print(f"processor: {1000 * processor / each:.1f} ms a member")
    print(f"git: {1000 * count.git / each:.1f} ms a member")
    print(f"sent {count.sent // each:,} and received {count.received // each:,} bytes")
    print(f"events: {count.events / each:.1f} a member")
    print(f"memory: {memory / 1e6:,.0f} MB at the start, {grown / 1e6:+,.0f} MB after")


@dataclass
class Counted:
    """What went between the coordinator and the workers: bytes, events, and seconds in
    git.
    """

    sent: int = 0
    received: int = 0
    events: int = 0
    git: float = 0.0


def resident() -> int:
    """Memory of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
