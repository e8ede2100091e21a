"""Workers on other hosts, started over SSH.

The scheduler is in this process and speaks TLS. Its certificate is made for the run and
goes to the hosts through the encrypted connection, never into a command line, which
other users of a host could read. Where the connection ends, the host's workers end.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from checkpoint_release.core.errors import FleetError, ParamsError, one_line
from checkpoint_release.core.params import Section, Text, parse_section, read_mapping
from checkpoint_release.fleet.dashboard import dashboard_address
from checkpoint_release.fleet.dask_settings import apply_settings

_REMEDY = "correct it; docs/fleet.md lists what each key allows"
Port = Annotated[int, Meta(ge=1, le=65535, description="a port from 1 to 65535")]
Workers = Annotated[int, Meta(ge=1, le=1024, description="a number from 1 to 1024")]


class Host(Section, frozen=True):
    """A host that builds members.

    Attributes:
        host: name or address.
        workers: members that it builds at once.
        port: of its SSH server.
        user: to log in as; None: as here.
        key: file of the private key; None: those of SSH's agent and defaults.
        python: the interpreter there that has checkpoint-release; None: the path of the
            one that runs here.
    """

    host: Text
    workers: Workers = 1
    port: Port = 22
    user: Text | None = None
    key: Text | None = None
    python: Text | None = None


class Hosts(Section, frozen=True):
    """The file that --cluster ssh: names.

    Attributes:
        scheduler: this machine's address, as the hosts reach it.
        hosts: that build members.
        known_hosts: file with the hosts' public keys; None: SSH's own.
    """

    scheduler: Text
    hosts: list[Host]
    known_hosts: Text | None = None


def load_hosts(path: Path) -> Hosts:
    """Read and validate the file.

    Raises:
        ParamsError: it isn't as it should be.
    """
    value = read_mapping(path, "start from the one in docs/fleet.md")
    hosts = value.get("hosts")
    if isinstance(hosts, list):
        for place, host in enumerate(hosts):
            parse_section(Host, host, Path(f"{path}: hosts[{place}]"), _REMEDY)
    read = parse_section(Hosts, value, path, _REMEDY)
    if not read.hosts:
        raise ParamsError(f"{path} names no hosts", _REMEDY)
    return read


@contextmanager
def ssh_cluster(name: str) -> Iterator[Any]:
    """A client of a cluster on the hosts of a file, which ends with it.

    Args:
        name: of the file.

    Raises:
        ParamsError: the file isn't as it should be.
        FleetError: a host can't be reached, or no worker starts there.
    """
    from distributed import Client, Scheduler, Security
    from distributed.deploy.spec import SpecCluster

    apply_settings()
    hosts = load_hosts(Path(name))
    security = Security.temporary()
    scheduler = {
        "host": hosts.scheduler,
        "protocol": "tls",
        "security": security,
        "dashboard": dashboard_address() is not None,
        "dashboard_address": dashboard_address() or ":0",
    }
    common = {"known_hosts": hosts.known_hosts, "certificates": _certificates(security)}
    workers = {
        place: {"cls": _worker_class(), "options": {"at": host, **common}}
        for place, host in enumerate(hosts.hosts)
    }
    try:
        cluster = SpecCluster(
            workers=workers,
            scheduler={"cls": Scheduler, "options": scheduler},
            security=security,
            silence_logs=50,
        )
    except (OSError, FleetError, RuntimeError) as error:
        raise _start_failed(error) from None
    with cluster, Client(cluster) as client:
        yield client


def _start_failed(error: BaseException) -> FleetError:
    """What is reported of a cluster that doesn't start: a host's own reason first."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, FleetError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return FleetError(
        f"the cluster can't be started: {one_line(error)}",
        "check the address of scheduler, and that `ssh HOST` works for each host",
    )


def _certificates(security: Any) -> dict[str, str]:
    """What a worker shows and expects, as PEM texts."""
    return {
        "tls_ca_file": security.tls_ca_file,
        "tls_worker_cert": security.tls_worker_cert,
        "tls_worker_key": security.tls_worker_key,
    }


def _login(host: Host, known_hosts: str | None) -> dict[str, Any]:
    """How asyncssh connects; what isn't stated is as in SSH's own configuration."""
    options: dict[str, Any] = {"port": host.port}
    if host.user:
        options["username"] = host.user
    if host.key:
        options["client_keys"] = [host.key]
    if known_hosts:
        options["known_hosts"] = known_hosts
    return options


def _worker_class() -> Any:
    """The class of Dask's that stands for the workers of one host.

    It is made here, so that nothing else of this module needs Dask.
    """
    import asyncssh
    from distributed.deploy.spec import ProcessInterface

    class HostWorkers(ProcessInterface):  # type: ignore[misc]
        """The workers of one host, and the connection that they live by."""

        def __init__(
            self,
            scheduler: str,
            at: Host,
            known_hosts: str | None,
            certificates: dict[str, str],
            name: object = None,
        ) -> None:
            super().__init__(scheduler=scheduler, name=name)
            self._scheduler, self._at = scheduler, at
            self._known_hosts, self._certificates = known_hosts, certificates
            self._connection: Any = None

        async def start(self) -> None:
            """Connect, start the workers, and wait until they are there.

            Raises:
                FleetError: that isn't possible.
            """
            host = self._at
            options = _login(host, self._known_hosts)
            try:
                self._connection = await asyncssh.connect(host.host, **options)
                await self._start_workers()
            except (OSError, asyncssh.Error) as error:
                raise FleetError(
                    f"{host.host} can't be reached over SSH: {one_line(error)}",
                    f"see that `ssh {host.host}` works without a password",
                ) from None
            await super().start()

        async def _start_workers(self) -> None:
            host = self._at
            python = shlex.quote(host.python or sys.executable)
            command = f"{python} -P -m checkpoint_release.fleet.ssh_worker"
            process = await self._connection.create_process(command)
            asked = {
                "scheduler": self._scheduler,
                "workers": host.workers,
                "certificates": self._certificates,
            }
            process.stdin.write(json.dumps(asked) + "\n")
            line = await process.stdout.readline()
            if line.strip() != "ready":
                printed = (line + await process.stderr.read(2000)).strip()
                reason = printed[-500:] or "no message"
                raise FleetError(
                    f"no worker starts on {host.host}: {reason}",
                    f"install checkpoint-release[fleet] there for {python}, and see"
                    " that it reaches the address of scheduler",
                )

        async def close(self) -> None:
            """End the connection, and with it the workers."""
            if self._connection is not None:
                self._connection.close()
                await self._connection.wait_closed()
            await super().close()

    return HostWorkers
