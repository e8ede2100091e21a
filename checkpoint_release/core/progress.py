"""How far something long has come, shown to a person who waits."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

BEGINS_AFTER = 2.0  # seconds; what is done sooner needs no bar
_EVERY = 0.1  # seconds between two drawings
_WIDTH = 30  # characters of the bar
_ERASE = "\r\x1b[K"


class Progress:
    """A bar on standard error, which appears after two seconds and goes at the end.

    Nothing is written where standard error is no terminal: a log would fill with it.

    Args:
        what: is being done, such as "writing weights.safetensors".
        total: amount of all of it, in bytes.
        stream: where it is drawn; None: standard error.
    """

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what = what
        self._total = total
        self._stream = sys.stderr if stream is None else stream
        self._shows = total > 0 and self._stream.isatty()
        self._done = 0
        self._due = time.monotonic() + BEGINS_AFTER
        self._drawn = False

    def add(self, amount: int) -> None:
        """Count what was done, and draw the bar where it is time to."""
        self._done += amount
        if self._shows and time.monotonic() >= self._due:
            self._draw()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._drawn:
            self._stream.write(_ERASE)
            self._stream.flush()

    def _draw(self) -> None:
        share = min(1.0, self._done / self._total)
        filled = int(share * _WIDTH)
        bar = "#" * filled + "." * (_WIDTH - filled)
        amount = f"{self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
        self._stream.write(f"{_ERASE}{self._what} [{bar}] {share:4.0%}, {amount}")
        self._stream.flush()
        self._drawn = True
        self._due = time.monotonic() + _EVERY
