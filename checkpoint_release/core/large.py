"""From which size on weights are held in memory once, or not at all.

Small ones are held several times: that is faster, and nobody minds.
"""

from __future__ import annotations

LARGE = 256 << 20
"""Bytes."""


def is_large(size: int) -> bool:
    """Whether so many bytes of weights are many."""
    return size >= LARGE
