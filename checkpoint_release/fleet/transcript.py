"""What `dvc repro` prints, read for the stage that runs and the error that ended it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_KEPT = 40  # lines
_RUNNING = "Running stage '"
_ERROR = "error: "
_STATUS = ", exited with "


@dataclass
class Transcript:
    """The output of the commands that one member runs.

    Attributes:
        report: is called with the name of each stage as its command starts.
        stage: the last one that started.
        ran: the stages since the last `begin`.
        error: the message of the stage that failed, without the word error.
        status: that the failed stage's command exited with; negative or above 128
            where a signal ended it; None where DVC didn't state it.
        last: the last lines.
    """

    report: Callable[[str], None] = lambda stage: None
    stage: str = ""
    ran: list[str] = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    status: int | None = None
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def begin(self) -> None:
        """Forget what the commands before printed."""
        self.stage, self.status = "", None
        self.ran.clear()
        self.error.clear()

    def feed(self, line: str) -> None:
        """Take the next line, without its end."""
        self.last.append(line)
        if line.startswith(_RUNNING):
            self.stage = line.removeprefix(_RUNNING).partition("'")[0]
            self.ran.append(self.stage)
            self.error.clear()
            self.report(self.stage)
        elif line.startswith(_ERROR):
            self.error = [line.removeprefix(_ERROR)]
        elif self.error and line.startswith("  "):
            self.error.append(line)
        elif _STATUS in line:
            digits = line.rpartition(_STATUS)[2].strip()
            sign, number = digits[:1], digits.removeprefix("-")
            if number.isdecimal():
                self.status = -int(number) if sign == "-" else int(number)

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the stage, or it couldn't be started."""
        return self.status is None or self.status < 0 or self.status > 125
