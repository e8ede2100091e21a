"""What a coordinator keeps in memory while it builds: the members that run, and nothing
of those that are done.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from checkpoint_release.fleet.outcome import Job, Outcome
from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.schedule import Schedule
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import imagined, small_project
from tests.support.simulated_cluster import SimulatedCluster

FEW, MANY = 1_000, 10_000
ALLOWED = 200_000  # bytes; one result has 15,000


@pytest.fixture
def peak(tmp_path: Path) -> Callable[[int, Callable[[Outcome], None]], int]:
    """A function: members, and what is done with each outcome → the most bytes that
    were in use while they were built.
    """
    fleet = small_project(tmp_path / "project", steps=1)
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    job = plan.job(plan.members[0])
    built = imagined(plan, plan.members[0], notes="x" * 15_000)
    result = msgspec.json.encode(Outcome(built=built))

    def jobs(count: int) -> Iterator[Job]:
        for number in range(count):
            yield msgspec.structs.replace(job, name=f"step-{number}")

    def measured(count: int, done: Callable[[Outcome], None]) -> int:
        cluster: Any = SimulatedCluster(lambda job: result, threads=16)
        tracemalloc.start()
        try:
            Schedule(cluster, jobs(count), done, lambda member, stage: None).run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measured


def test_ten_times_the_members_take_no_more_memory(
    peak: Callable[[int, Callable[[Outcome], None]], int],
) -> None:
    few = peak(FEW, lambda outcome: None)
    many = peak(MANY, lambda outcome: None)
    assert many < few + ALLOWED

    kept: list[Outcome] = []  # what a coordinator that keeps results would take
    assert peak(FEW, kept.append) > few + ALLOWED
