"""A fleet on many simulated workers:

    python -m tests.bench.fleet 1000 4000 --seconds 60

The scheduler, the coordinator's loop and git are the real ones, in this process, and
its processor time is counted. The workers are Dask's own, a hundred in a process. Their
members sleep some --seconds, and come back with a result of the real size. --no-git
shows what writing the refs takes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import multiprocessing
import random
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import msgspec
from distributed import Client, LocalCluster, Worker

from checkpoint_release.fleet import schedule
from checkpoint_release.fleet.dask_settings import apply_settings
from checkpoint_release.fleet.outcome import Built, Job, Outcome
from checkpoint_release.fleet.plan import FleetPlan, make_plan
from checkpoint_release.fleet.progress import STAGES
from checkpoint_release.fleet.refs import write_member
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import imagined, small_project

RESULT = 33_000  # bytes of the texts in a result: dvc.lock, params.yaml and so on
IN_A_PROCESS = 100  # workers
SPREAD = 0.1  # of --seconds, by which a member may take less or more
PATIENCE = 600.0  # seconds until all workers are there


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
    count = Counted()

    def done(outcome: Outcome) -> None:
        count.received += len(msgspec.json.encode(outcome))
        begun = time.perf_counter()
        if outcome.built is not None and not asked.no_git:
            write_member(plan.project, "tiny", outcome.built)
        count.git += time.perf_counter() - begun

    def hear(member: str, stage: str) -> None:
        count.events += 1

    def jobs() -> Iterator[Job]:
        for member in plan.members:
            job = plan.job(member)
            count.sent += len(msgspec.json.encode(job))
            yield job

    with started_cluster(asked, plan, folder.parent) as client:
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


@contextmanager
def started_cluster(
    asked: argparse.Namespace, plan: FleetPlan, scratch: Path
) -> Iterator[Client]:
    """A client of a scheduler in this process, whose workers are in other ones."""
    made = imagined(plan, plan.members[0], notes="x" * RESULT)
    begun = time.perf_counter()
    cluster = LocalCluster(
        n_workers=0,
        processes=False,
        protocol="tcp",
        dashboard_address=None,
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
    )
    processes = multiprocessing.get_context("spawn")
    with cluster, Client(cluster) as client:
        started = []
        for first in range(0, asked.workers, IN_A_PROCESS):
            here = min(IN_A_PROCESS, asked.workers - first)
            workers = partial(
                hold_workers,
                cluster.scheduler_address,
                here,
                scratch=scratch,
                launched=partial(sleep_as_member, seconds=asked.seconds, made=made),
            )
            process = processes.Process(target=workers, daemon=True)
            process.start()
            started.append(process)
        client.wait_for_workers(asked.workers, timeout=PATIENCE)
        print(f"{asked.workers} workers started in {time.perf_counter() - begun:.1f} s")
        yield client
        for process in started:
            process.kill()
            process.join()


def hold_workers(
    address: str, workers: int, *, scratch: Path, launched: Callable[..., Outcome]
) -> None:
    """Be some workers until this process is ended."""
    apply_settings()
    warnings.filterwarnings("ignore", "Creating scratch directories")
    with patch.object(schedule, "launch", launched):
        asyncio.run(work(address, workers, scratch))


async def work(address: str, workers: int, scratch: Path) -> None:
    """Connect the workers to their scheduler, and let them work."""
    held = []
    for _ in range(workers):
        worker = Worker(
            address,
            nthreads=1,
            memory_limit=0,
            local_directory=str(scratch),
            silence_logs=logging.ERROR,
        )
        held.append(worker)
    await asyncio.gather(*held)
    await asyncio.gather(*(worker.finished() for worker in held))


def sleep_as_member(
    job: Job,
    home: Path,
    report: Callable[[str], None],
    *,
    seconds: float,
    made: Built,
) -> Outcome:
    """Take the time of a member, and report its stages."""
    spread = random.Random(job.key).uniform(1 - SPREAD, 1 + SPREAD)
    for stage in STAGES:
        report(stage)
        time.sleep(seconds * spread / len(STAGES))
    return Outcome(built=msgspec.structs.replace(made, name=job.name, key=job.key))


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
