"""Leaves the canary when it is imported, where one is asked for."""

from __future__ import annotations

import enum
import os
from pathlib import Path

if "CANARY" in os.environ:
    Path(os.environ["CANARY"]).touch()


class Enum(enum.Enum):
    x = 1
