"""Building members on a Dask cluster: the coordinator's loop, and a worker's task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from checkpoint_release.core.errors import FleetError, one_line
from checkpoint_release.fleet.launch import launch
from checkpoint_release.fleet.outcome import Failed, Job, Outcome
from checkpoint_release.fleet.workspace import default_home

TOPIC = "checkpoint-release-fleet"
_AHEAD = 2  # members that a cluster has for each that it can build at once
_PATIENCE = 120.0  # seconds without any worker
_DELAY = 5.0  # seconds before the first further try; four times as long each time
_LOOK = 2.0  # seconds between two looks at the workers


def build_on_worker(job: bytes, home: str | None) -> bytes:
    """A worker's task: build a member, and tell the coordinator which stage runs.

    Args:
        job: the job as JSON.
        home: of the fleet on the worker's host; None: its default.

    Returns:
        The outcome as JSON.
    """
    from distributed import get_worker

    worker = get_worker()
    read = msgspec.json.decode(job, type=Job)

    def report(stage: str) -> None:
        worker.log_event(TOPIC, {"member": read.name, "stage": stage})

    outcome = launch(read, Path(home) if home else default_home(), report)
    return msgspec.json.encode(outcome)


@dataclass
class Schedule:
    """Members to build, each tried again where a host was at fault.

    The cluster has a few members at a time, so that neither its scheduler nor the
    coordinator grows with the number of members.

    Attributes:
        client: of the cluster.
        jobs: yields what is to be built.
        done: is called with each member's last outcome.
        stage: is called with a member's name and the stage that starts.
        retries: how often a member is tried again.
        home: of the fleet on the workers' hosts; None: their default.
    """

    client: Any
    jobs: Iterable[Job]
    done: Callable[[Outcome], None]
    stage: Callable[[str, str], None]
    retries: int = 2
    home: str | None = None
    _ended: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _running: dict[str, tuple[Any, Job, int]] = field(default_factory=dict)
    _again: list[tuple[float, Job, int]] = field(default_factory=list)

    def run(self) -> None:
        """Build all of them; returns when the last one has ended.

        Raises:
            FleetError: the cluster has no workers for a long time.
        """
        self.client.subscribe_topic(TOPIC, self._hear)
        waiting = iter(self.jobs)
        looked = last_worker = time.monotonic()
        threads = self._threads()
        try:
            while True:
                now = time.monotonic()
                if now - looked > _LOOK:
                    threads, looked = self._threads(), now
                if threads:
                    last_worker = now
                elif now - last_worker > _PATIENCE:
                    raise FleetError(
                        f"the cluster has had no workers for {_PATIENCE:.0f} s",
                        "start some, and run the fleet again: it goes on where it is",
                    )
                self._fill(waiting, max(1, threads) * _AHEAD)
                if not self._running and not self._again:
                    return
                self._wait()
        finally:
            futures = [future for future, _, _ in self._running.values()]
            if futures:
                self.client.cancel(futures, force=True)
            self.client.unsubscribe_topic(TOPIC)

    def _threads(self) -> int:
        """How many members the cluster builds at once now; workers come and go."""
        return sum(self.client.nthreads().values())

    def _fill(self, waiting: Iterator[Job], most: int) -> None:
        """Give the cluster members until it has so many."""
        while len(self._running) < most:
            following = self._next(waiting)
            if following is None:
                return
            job, attempt = following
            future = self.client.submit(
                build_on_worker,
                msgspec.json.encode(job),
                self.home,
                key=f"{job.name}-{job.key[:16]}-{attempt}",
                pure=False,
            )
            self._running[future.key] = (future, job, attempt)
            future.add_done_callback(self._ended.put)

    def _next(self, waiting: Iterator[Job]) -> tuple[Job, int] | None:
        """The next job and how many tries it had; None: there is none now."""
        for place, (due, job, attempt) in enumerate(self._again):
            if due <= time.monotonic():
                del self._again[place]
                return job, attempt
        unbuilt = next(waiting, None)
        return None if unbuilt is None else (unbuilt, 0)

    def _wait(self) -> None:
        """Take in what ended, or look again after a while."""
        try:
            future = self._ended.get(timeout=1.0)
        except Empty:
            return
        _, job, attempt = self._running.pop(future.key)
        outcome = _outcome(future, job)
        future.release()
        failed = outcome.failed
        if failed is not None and failed.cause == "host" and attempt < self.retries:
            due = time.monotonic() + _DELAY * 4**attempt
            self._again.append((due, job, attempt + 1))
            return
        self.done(outcome)

    def _hear(self, event: tuple[float, Any]) -> None:
        message = event[1]
        self.stage(message["member"], message["stage"])


def _outcome(future: Any, job: Job) -> Outcome:
    """What came of a task; that a worker died or broke is the host's failure."""
    failed = partial(
        Failed, name=job.name, key=job.key, cause="host", stage="", log=[], host=""
    )
    if future.status != "finished":
        error = future.exception() if future.status == "error" else None
        message = "the task was lost" if error is None else one_line(error)
        return Outcome(failed=failed(message=f"its worker failed: {message}"))
    return msgspec.json.decode(future.result(), type=Outcome)
