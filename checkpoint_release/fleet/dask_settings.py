"""Dask's settings for tasks that last minutes."""

from __future__ import annotations

_SETTINGS = {
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.tick.limit": "30s",
    "distributed.scheduler.work-stealing-interval": "1s",
    "distributed.worker.profile.enabled": False,
}


def apply_settings() -> None:
    """Let the clusters that are started here look after themselves once in a while.

    Dask's defaults are for tasks that last milliseconds; with them, the scheduler and
    each worker take some 3 % of a core while they wait for a member.
    """
    import dask

    dask.config.set(_SETTINGS)
