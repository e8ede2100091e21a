"""Printing on any terminal."""

from __future__ import annotations

import io
import sys


def print_any_text() -> None:
    """Print characters that the terminal's encoding lacks as escapes.

    A report holds × and –, and names of any alphabet; on a terminal that isn't UTF-8
    an error would take the place of a result that is there.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
