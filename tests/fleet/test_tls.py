"""A fleet on a cluster that somebody started with certificates of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import distributed  # noqa: F401 its defaults have to lie under the settings
import pytest

from checkpoint_release.core.errors import FleetError
from checkpoint_release.fleet.clusters import connected
from tests.support.certificates import Certificates
from tests.support.fleets import WEIGHTS_ONLY, fleet_checkout, wait_until

pytestmark = pytest.mark.slow


@contextmanager
def process(*arguments: str, environment: dict[str, str]) -> Iterator[None]:
    """A command of Dask's, which is ended at the end."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "dask", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as started:
        try:
            yield
        finally:
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()


@contextmanager
def cluster(certificates: Certificates, home: Path) -> Iterator[str]:
    """A scheduler and a worker on loopback; yields the scheduler's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tls://127.0.0.1:{port}"
    environment = {"CHECKPOINT_RELEASE_FLEET_HOME": str(home)}
    scheduler = ("--protocol", "tls", "--host", "127.0.0.1", "--port", str(port))
    worker = ("--nworkers", "1", "--nthreads", "1", "--memory-limit", "0")
    quiet = ("--no-dashboard", *certificates.arguments)
    with ExitStack() as stack:
        stack.enter_context(
            process("scheduler", *scheduler, *quiet, environment=environment)
        )
        wait_until(lambda: answers(port), "the scheduler")
        stack.enter_context(
            process("worker", address, *worker, *quiet, environment=environment)
        )
        yield address


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_members_are_built_behind_certificates_and_no_others_come_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = fleet_checkout(tmp_path, steps=1, params=WEIGHTS_ONLY)
    own = Certificates.made(tmp_path / "own")
    with cluster(own, fleet.home) as address:
        done = fleet.command("run", "--cluster", address, environment=own.environment)
        assert "tiny: 1 of 1 members are built, 1 of them in this run" in done.stdout
        assert fleet.processes() == []

        monkeypatch.setattr("checkpoint_release.fleet.clusters.SECONDS", 5)
        foreign = Certificates.made(tmp_path / "foreign")
        problem = f"no Dask scheduler answers at {address}"
        for settings in (foreign.settings, {}):
            with (
                dask.config.set(settings),
                pytest.raises(FleetError, match=problem),
                connected(address),
            ):
                raise AssertionError("it came in")
