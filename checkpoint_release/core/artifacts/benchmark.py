"""artifacts/benchmark.json: how fast each format ran on one machine, and how much
memory it took; an empty object where nothing was measured.

DVC shows what stands in mappings, so these hold a few figures, and lists hold the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from checkpoint_release.core.artifacts.manifest import MANIFEST
from checkpoint_release.core.artifacts.typed import Record, read_record
from checkpoint_release.core.files import sha256

BENCHMARK = "benchmark.json"
EAGER = "eager"
"""The way that the others are compared with: the checkpoint's own model in torch."""
COMPILED = "torch.compile"


class Measurement(Record, frozen=True, kw_only=True):
    """One way to run the model, on inputs of one size, with a number of threads.

    Attributes:
        way: EAGER, COMPILED, or an artifact such as "onnx int8".
        sizes: dimension → size of the inputs.
        threads: that one call uses.
        median_ms, p95_ms: of the calls' times: half of the calls took no longer than
            the median, and 95 of 100 no longer than the p95.
        times_eager: the median as a multiple of eager's in the same round; the median
            of all rounds. None: eager didn't run.
        first_ms: the first call, which compiles what is compiled then.
        calls: how many were timed.
        rounds: in how many turns.
        peak_mb: the largest resident size, in megabytes, of a process that does nothing
            but run this; its libraries included. None: the system doesn't say.
        libraries_mb: what of that the libraries take before the model is opened.
    """

    way: str
    sizes: dict[str, int]
    threads: int
    median_ms: float
    p95_ms: float
    times_eager: float | None = None
    first_ms: float
    calls: int
    rounds: int
    peak_mb: float | None = None
    libraries_mb: float | None = None


class NotRun(Record, frozen=True, kw_only=True):
    """What was not measured, and why.

    Attributes:
        way: its name; empty: every way.
        threads: with how many.
        reason: a sentence without a full stop.
    """

    way: str = ""
    threads: int
    reason: str


class Checked(Record, frozen=True, kw_only=True):
    """An artifact that was measured.

    Attributes:
        format: its name.
        sha256: of its manifest.
    """

    format: str
    sha256: str


class BenchmarkMachine(Record, frozen=True, kw_only=True):
    """The machine that was measured on. It is named by its kind; no host or user is.

    Attributes:
        processor: as the system names it.
        cores: that this process could use.
        memory_gb: of the machine; None: the system doesn't say.
        system: the operating system and its release.
        libraries: distribution → version, of those that ran.
        load: processes that were ready to run, on average over the minute before.
    """

    processor: str
    cores: int
    memory_gb: float | None = None
    system: str
    libraries: dict[str, str]
    load: float | None = None

    @property
    def busy(self) -> bool:
        """Whether others used the machine, so that figures may be off."""
        return self.load is not None and self.load > self.cores / 2


class Benchmark(Record, frozen=True, kw_only=True):
    """benchmark.json.

    Attributes:
        median_ms, p95_ms, peak_mb: way → figure of the first sizes and number of
            threads, which DVC shows.
        machine: the processor and its cores, which DVC shows beside them.
        measured: every measurement; in the order of threads, sizes and ways.
        not_run: what was not measured.
        checked: the artifacts that were measured.
        machines: the machine, once.
    """

    median_ms: dict[str, float] = msgspec.field(default_factory=dict)
    p95_ms: dict[str, float] = msgspec.field(default_factory=dict)
    peak_mb: dict[str, float] = msgspec.field(default_factory=dict)
    machine: str = ""
    measured: list[Measurement] = msgspec.field(default_factory=list)
    not_run: list[NotRun] = msgspec.field(default_factory=list)
    checked: list[Checked] = msgspec.field(default_factory=list)
    machines: list[BenchmarkMachine] = msgspec.field(default_factory=list)

    @property
    def ways(self) -> list[str]:
        """The names of the ways that were measured, in order."""
        return list(dict.fromkeys(each.way for each in self.measured))

    def first(self) -> list[Measurement]:
        """The measurements of the first sizes and number of threads."""
        if not self.measured:
            return []
        lead = self.measured[0]
        place = (lead.threads, lead.sizes)
        return [each for each in self.measured if (each.threads, each.sizes) == place]

    @property
    def headline(self) -> str:
        """The first sizes and number of threads, and the machine."""
        first = self.first()[0]
        threads = "1 thread" if first.threads == 1 else f"{first.threads} threads"
        return f"{sizes_text(first.sizes)}, {threads}, on {self.machine}"

    def is_about(self, artifacts: Path, formats: Iterable[str]) -> bool:
        """Whether these very artifacts were measured.

        Args:
            artifacts: the folder of all artifacts.
            formats: names of those that are enabled.
        """
        current = {name: sha256(artifacts / name / MANIFEST) for name in formats}
        return current == {each.format: each.sha256 for each in self.checked}


def sizes_text(sizes: Mapping[str, int]) -> str:
    """Such as "batch=1, sequence=250"; "fixed sizes" where nothing is dynamic."""
    parts = [f"{name}={size}" for name, size in sizes.items()]
    return ", ".join(parts) or "fixed sizes"


def read_benchmark(artifacts: Path) -> Benchmark | None:
    """The figures; None: nothing was measured.

    Args:
        artifacts: the folder of all artifacts.

    Raises:
        ArtifactError: the file isn't as it was written.
    """
    path = artifacts / BENCHMARK
    if not path.is_file():
        return None
    benchmark = read_record(path, Benchmark)
    return benchmark if benchmark.measured else None
