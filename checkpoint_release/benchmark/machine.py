"""The machine that is measured on: of which kind it is, and not whose."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from checkpoint_release.core.artifacts.benchmark import BenchmarkMachine

_LIBRARIES = ("numpy", "onnxruntime", "torch")
_CPU_INFO = Path("/proc/cpuinfo")


def this_machine() -> BenchmarkMachine:
    """Describe this machine as it is now."""
    load = None
    with suppress(OSError, AttributeError):  # not every system knows it
        load = round(os.getloadavg()[0], 1)
    return BenchmarkMachine(
        processor=_processor(),
        cores=usable_cores(),
        memory_gb=_memory_gb(),
        system=f"{platform.system()} {platform.release()}",
        libraries={name: version(name) for name in _LIBRARIES},
        load=load,
    )


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """The processor's name, as its maker spells it; otherwise its architecture."""
    if _CPU_INFO.is_file():
        for line in _CPU_INFO.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError):
            done = subprocess.run(command, capture_output=True, text=True)
            return done.stdout.strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    """The machine's memory in gigabytes; None: the system doesn't say."""
    with suppress(OSError, AttributeError, ValueError):
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return round(size / 1e9, 1)
    return None
