"""What memory a process takes, as its system states it."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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


def memory_now() -> int | None:
    """The resident size of this process in bytes; None: the system doesn't say."""
    return _resident("VmRSS")


def memory_peak() -> int | None:
    """The largest resident size of this process so far, in bytes; None: the system
    doesn't say.
    """
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
