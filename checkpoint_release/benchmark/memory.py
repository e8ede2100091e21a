"""Memory of a process that runs one way on inputs of one size, and nothing else."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.benchmark.settings import Sizes
from checkpoint_release.benchmark.ways import Way
from checkpoint_release.benchmark.worker import (
    LIMIT,
    WayFailedError,
    failure_of,
    inputs_of,
    open_way,
)
from checkpoint_release.parity.workers import WorkerError, call_isolated

_CALLS = 3  # a second call may take memory that the first didn't
_STATUS = Path("/proc/self/status")
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Memory:
    """Resident sizes in bytes; None: the system doesn't say.

    Attributes:
        libraries: once the libraries were imported, before the model was opened.
        peak: the largest.
    """

    libraries: int | None
    peak: int | None

    @property
    def libraries_mb(self) -> float | None:
        """In megabytes."""
        return _megabytes(self.libraries)

    @property
    def peak_mb(self) -> float | None:
        """In megabytes."""
        return _megabytes(self.peak)


def _megabytes(size: int | None) -> float | None:
    return None if size is None else round(size / _MEGABYTE, 1)


def measure_memory(way: Way, threads: int, sizes: Sizes) -> Memory:
    """Run a way in a process of its own.

    Args:
        way: what to run.
        threads: that one call uses.
        sizes: of the inputs.

    Raises:
        WayFailedError: it can't be run.
    """
    try:
        failure, memory = call_isolated(
            _run_alone, way, threads, sizes, needs_torch=False, timeout=LIMIT
        )
    except WorkerError as error:
        raise WayFailedError(f"its process {error}") from None
    if failure is not None:
        raise WayFailedError(failure)
    found: Memory = memory
    return found


def _run_alone(
    way: Way, threads: int, sizes: Sizes
) -> tuple[str | None, Memory | None]:
    """Why it failed or None, and the memory."""
    try:
        way.import_libraries()
        libraries = _resident("VmRSS")
        runtime = open_way(way, threads)
        inputs = inputs_of(runtime, sizes)
        for _ in range(_CALLS):
            runtime.compute(inputs)
        return None, Memory(libraries, _peak())
    except (Exception, SystemExit) as error:
        return failure_of(error), None


def _peak() -> int | None:
    """The largest resident size of this process so far, in bytes."""
    # A process that was started by another one inherits what getrusage reports.
    peak = _resident("VmHWM")
    if peak is not None:
        return peak
    with suppress(ImportError):
        import resource

        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024
    return None


def _resident(field: str) -> int | None:
    """A resident size that Linux states, in bytes; None elsewhere."""
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.removesuffix("kB")) * 1024
    return None
