"""Dask's own page about a cluster."""

from __future__ import annotations

from importlib.util import find_spec


def dashboard_address() -> str | None:
    """Where it is served, on loopback; None where bokeh, which draws it, is missing."""
    return "127.0.0.1:0" if find_spec("bokeh") else None
