"""Showing how far a fleet is: a display on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from checkpoint_release.core.text import printable
from checkpoint_release.fleet.outcome import Failed, Outcome

STAGES = (
    "load",
    "export-safetensors",
    "export-onnx",
    "export-torchscript",
    "parity-check",
    "benchmark",
    "model-card",
    "publish",
)


@dataclass
class FleetProgress:
    """The state of a run, as it is shown.

    Attributes:
        total: members to build.
        console: where it is shown.
        running: member → its stage.
        failed: what failed, in order.
        built: number of members built.
    """

    total: int
    console: Console = field(default_factory=lambda: Console(highlight=False))
    running: dict[str, str] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)
    built: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _lock: Any = field(default_factory=threading.Lock)
    _live: Live | None = None

    def __enter__(self) -> FleetProgress:
        if self.console.is_terminal and self.total:
            self._live = Live(
                console=self.console, get_renderable=self._display, refresh_per_second=4
            )
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def stage(self, member: str, stage: str) -> None:
        """A member's stage starts. Called from any thread."""
        with self._lock:
            self.running[member] = stage

    def finished(self, outcome: Outcome) -> None:
        """A member ended."""
        with self._lock:
            self.running.pop(outcome.name, None)
            if outcome.failed is not None:
                self.failed.append(outcome.failed)
            else:
                self.built += 1
        self.line(f"{self.ended}/{self.total} {_sentence(outcome)}; {self.outlook}")

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(Text(text), soft_wrap=True)

    @property
    def ended(self) -> int:
        """How many members ended, one way or the other."""
        return self.built + len(self.failed)

    @property
    def outlook(self) -> str:
        """The rate, and how long the rest will take at it."""
        seconds = time.monotonic() - self._begun
        if not self.ended or seconds <= 0:
            return "no member has ended yet"
        rate = self.ended / seconds
        left = (self.total - self.ended) / rate
        return f"{rate * 60:.1f} a minute, {duration(left)} left"

    def _display(self) -> Group:
        """Bar, rates, and a row for each member that is being built."""
        bar = Progress(
            TextColumn("members"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[outlook]}"),
        )
        with self._lock:
            running = list(self.running.items())
            failures = f", {len(self.failed)} failed" if self.failed else ""
        outlook = f"{self.outlook}{failures}"
        bar.add_task("", total=self.total, completed=self.ended, outlook=outlook)
        table = Table.grid(padding=(0, 2))
        for member, stage in running:
            table.add_row(member, _marks(stage), stage)
        return Group(bar, table)


def _marks(stage: str) -> str:
    """How far a member is: a mark for each stage."""
    reached = STAGES.index(stage) if stage in STAGES else 0
    return "●" * reached + "◐" + "○" * (len(STAGES) - reached - 1)


def _sentence(outcome: Outcome) -> str:
    """What came of a member, on one line."""
    if outcome.failed is not None:
        failed = outcome.failed
        where = f" in {failed.stage}" if failed.stage else ""
        return f"{failed.name} failed{where}: {first_line(failed.message)}"
    built = outcome.built
    if built is None:
        return "a member ended without an outcome"
    points = f", {len(built.points)} points" if len(built.points) > 1 else ""
    return f"{built.name} built in {built.seconds:.1f} s on {built.host}{points}"


def first_line(message: str) -> str:
    """The first line of a message."""
    return printable(message.partition("\n")[0], 300)


def duration(seconds: float) -> str:
    """A duration for people, such as 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns, the first row being their names."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
