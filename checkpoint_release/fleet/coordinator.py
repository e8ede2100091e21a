"""A run of a fleet: plan, build on a cluster, write git and the Hub, report."""

from __future__ import annotations

import fcntl
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

from checkpoint_release.core.errors import ArtifactError, CheckpointReleaseError
from checkpoint_release.fleet.clusters import connected, is_here
from checkpoint_release.fleet.dashboard import dashboard_address
from checkpoint_release.fleet.outcome import Failed, Job, Outcome
from checkpoint_release.fleet.plan import FleetPlan, Member, make_plan
from checkpoint_release.fleet.progress import FleetProgress, first_line, table
from checkpoint_release.fleet.publication import Due, due, publish
from checkpoint_release.fleet.refs import write_member
from checkpoint_release.fleet.results import RESULTS, result_name
from checkpoint_release.fleet.schedule import Schedule
from checkpoint_release.fleet.spec import FleetSpec
from checkpoint_release.fleet.workspace import default_home


@dataclass(frozen=True)
class Options:
    """How a fleet is run.

    Attributes:
        cluster: where members are built; see clusters.KINDS.
        retries: how often a member is tried again where a host was at fault.
        home: the fleet's folder on the workers' hosts; None: their default.
        publishes: whether releases go to the Hub.
        again: whether members that are done are built anew.
        results: folder for what is known of members that failed, their logs too.
    """

    cluster: str
    retries: int = 2
    home: str | None = None
    publishes: bool = True
    again: bool = False
    results: Path = RESULTS


@dataclass
class Report:
    """What a run came to.

    Attributes:
        built: names of the members that were built.
        failed: members that weren't.
        published: places that releases were published to.
        unpublished: place → why its release couldn't be published.
    """

    built: list[str] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    published: list[str] = field(default_factory=list)
    unpublished: dict[str, CheckpointReleaseError] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """Whether nothing failed."""
        return not self.failed and not self.unpublished

    def text(self, plan: FleetPlan) -> str:
        """The report for people.

        Args:
            plan: made after the run.
        """
        counts = plan.counts
        done = f"{counts['done']} of {len(plan.members)} members are built"
        lines = [f"{plan.spec.name}: {done}, {len(self.built)} of them in this run"]
        if plan.spec.publish is not None:
            waiting = len(list(due(plan)))
            lines.append(f"published: {len(self.published)}; not yet: {waiting}")
        if self.failed:
            lines.append(_failures(self.failed))
            lines.append(f"their logs: {RESULTS}/KEY.json")
        for place, error in self.unpublished.items():
            lines.append(f"not published: {place}: {first_line(error.message())}")
        return "\n".join(lines)


def _failures(failed: list[Failed]) -> str:
    rows = [("failed", "stage", "at fault", "why")]
    for each in failed:
        why = first_line(each.message)
        rows.append((each.name, each.stage or "-", each.cause, why))
    return table(rows)


def run_fleet(
    root: Path, spec: FleetSpec, options: Options
) -> tuple[FleetPlan, Report]:
    """Build all members that are new or stale, and publish what is due.

    Args:
        root: the project's folder.
        spec: fleet.yaml.
        options: how.

    Returns:
        The plan as it is afterwards, and what the run came to.

    Raises:
        CheckpointReleaseError: the fleet can't be planned or the cluster not be had; a
            member that fails is part of the report.
        KeyboardInterrupt: somebody stopped it; what was built is kept.
    """
    report = Report()
    with _alone(root, spec.name), _stopped_by_sigterm():
        plan = make_plan(root, spec)
        members = plan.members if options.again else plan.todo
        with FleetProgress(len(members)) as progress:
            if members:
                _build(plan, members, options, report, progress)
                plan = make_plan(root, spec)
            if options.publishes:
                _publish(plan, options, report, progress)
    return make_plan(root, spec), report


def _build(
    plan: FleetPlan,
    members: Sequence[Member],
    options: Options,
    report: Report,
    progress: FleetProgress,
) -> None:
    def done(outcome: Outcome) -> None:
        if outcome.built is not None:
            write_member(plan.project, plan.spec.name, outcome.built)
            report.built.append(outcome.name)
        elif outcome.failed is not None:
            report.failed.append(outcome.failed)
            options.results.mkdir(parents=True, exist_ok=True)
            outcome.write(options.results / result_name(outcome.failed.key))
        progress.finished(outcome)

    def jobs() -> Iterator[Job]:
        for member in members:
            yield plan.job(member, private=is_here(options.cluster))

    with connected(options.cluster) as client:
        workers = len(client.nthreads())
        progress.line(f"{progress.total} members to build on {workers} workers")
        if dashboard_address() and client.dashboard_link:
            progress.line(f"dashboard: {client.dashboard_link}")
        schedule = Schedule(
            client,
            jobs(),
            done,
            progress.stage,
            retries=options.retries,
            home=options.home,
        )
        schedule.run()


def _publish(
    plan: FleetPlan, options: Options, report: Report, progress: FleetProgress
) -> None:
    def done(each: Due, error: CheckpointReleaseError | None) -> None:
        place = each.target.text
        if error is None:
            report.published.append(place)
            progress.line(f"published {each.member.name}: {place}")
        else:
            report.unpublished[place] = error

    home = Path(options.home) if options.home else default_home()
    publish(plan, home, done, progress.line)


@contextmanager
def _alone(root: Path, fleet: str) -> Iterator[None]:
    """Be the only coordinator of a fleet in this project.

    Raises:
        ArtifactError: another one runs.
    """
    folder = root / ".dvc/tmp/fleet"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{fleet}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArtifactError(
                f"another process runs the fleet {fleet} in {root}",
                "wait for its end, or stop it (Ctrl-C)",
            ) from None
        yield


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Take SIGTERM, as batch systems send it, for Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
