"""One row of what verifying a release reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """One row of the report: what was checked, whether it passed, and the finding."""

    name: str
    passed: bool
    message: str
