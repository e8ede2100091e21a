"""A cluster that answers at once, as far as a schedule uses Dask's client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from checkpoint_release.fleet.outcome import Job


class SimulatedCluster:
    """A client of a cluster whose members take no time.

    Args:
        build: job → the outcome as JSON.
        threads: how many members it is taken to build at once.
    """

    def __init__(self, build: Callable[[Job], bytes], threads: int = 1) -> None:
        self._build = build
        self._threads = threads

    def nthreads(self) -> dict[str, int]:
        return {"worker": self._threads}

    def subscribe_topic(self, topic: str, handler: Any) -> None:
        pass

    def unsubscribe_topic(self, topic: str) -> None:
        pass

    def submit(self, task: Any, job: bytes, home: Any, *, key: str, pure: bool) -> Any:
        return Ended(key, self._build(msgspec.json.decode(job, type=Job)))


class Ended:
    """A task that has ended."""

    status = "finished"

    def __init__(self, key: str, result: bytes) -> None:
        self.key = key
        self._result = result

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        call(self)

    def result(self) -> bytes:
        return self._result

    def release(self) -> None:
        pass
