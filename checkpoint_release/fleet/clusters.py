"""Where members are built: on this machine, on others over SSH, or on a Dask cluster
that is there.

Whoever reaches a Dask scheduler's port can run code on it and its workers. So a
scheduler that is started here speaks TLS with certificates of its own, and an existing
one is used over TLS or on loopback.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from checkpoint_release.core.errors import FleetError, ParamsError, one_line
from checkpoint_release.core.text import shown
from checkpoint_release.fleet.dashboard import dashboard_address
from checkpoint_release.fleet.dask_settings import apply_settings
from checkpoint_release.fleet.ssh import ssh_cluster

KINDS = "local:2, ssh:hosts.yaml, tls://host:port or tcp://127.0.0.1:port"
SECONDS = 60  # to reach a cluster


@contextmanager
def connected(cluster: str) -> Iterator[Any]:
    """A client of a cluster, which is closed at the end if it was started here.

    Args:
        cluster: as --cluster has it; see KINDS.

    Raises:
        ParamsError: it is none of these.
        FleetError: it can't be started or reached.
    """
    kind, _, rest = cluster.partition(":")
    if kind == "local":
        opened = _local(_count(rest))
    elif kind == "ssh":
        opened = ssh_cluster(rest)
    elif kind in ("tcp", "tls"):
        opened = _existing(cluster)
    else:
        raise ParamsError(f"--cluster {shown(cluster)} is none", f"give {KINDS}")
    with opened as client:
        yield client


def is_here(cluster: str) -> bool:
    """Whether all workers are on this machine, started by this process."""
    return cluster.startswith("local")


def _count(text: str) -> int:
    """The number of workers.

    Raises:
        ParamsError: it isn't one.
    """
    if not text:
        return os.cpu_count() or 1
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise ParamsError(
            f"--cluster local:{text} has no number of workers from 1 to 1024",
            "give one, as in local:2",
        )
    return int(text)


@contextmanager
def _local(workers: int) -> Iterator[Any]:
    from distributed import Client, LocalCluster, Security

    apply_settings()
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        # Dask would measure the worker's own memory, and not that of its children.
        memory_limit=0,
        host="127.0.0.1",
        security=Security.temporary(),
        dashboard_address=dashboard_address(),
        scheduler_kwargs={"dashboard_address": dashboard_address() or "127.0.0.1:0"},
        silence_logs=logging.ERROR,
    )
    with cluster, Client(cluster) as client:
        yield client


@contextmanager
def _existing(address: str) -> Iterator[Any]:
    from distributed import Client, Security

    if address.startswith("tcp:") and not _is_loopback(address):
        raise ParamsError(
            f"--cluster {address} is neither on loopback nor behind TLS: whoever"
            " reaches its port can run code",
            "start the scheduler with --tls-ca-file, --tls-cert and --tls-key, state"
            " the same files in Dask's configuration (distributed.comm.tls), and give"
            " tls://…",
        )
    security = Security() if address.startswith("tls:") else None
    try:
        client = Client(address, security=security, timeout=SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise FleetError(
            f"no Dask scheduler answers at {address}: {one_line(error)}",
            "check the address, and that it runs",
        ) from None
    with client:
        yield client


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
