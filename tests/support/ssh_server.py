"""SSH servers on loopback that pose as hosts: each has a cache folder of its own.

`python -m tests.support.ssh_server FOLDER ADDRESS` serves until it is killed, and
prints its port. It runs any command for whoever holds the key in the folder.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import asyncssh

from tests.support.other_network import OtherNetwork
from tests.support.project import ROOT


class SshHost:
    """A host that can be reached over SSH, and can fail.

    Args:
        folder: for its keys, and its home as a host of a fleet.
        network: that it is in; None: on loopback.
    """

    def __init__(self, folder: Path, network: OtherNetwork | None = None) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.home = folder / "home"
        self.key = folder / "id"
        self.address = network.there if network else "127.0.0.1"
        self._prefix = network.prefix if network else []
        self.port = 0
        own = asyncssh.generate_private_key("ssh-ed25519")
        own.write_private_key(str(self.key))
        (folder / "allowed").write_bytes(own.export_public_key())
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._host_key.write_private_key(str(folder / "host"))
        self._process: subprocess.Popen[str] | None = None

    @property
    def known(self) -> str:
        """The line that a known_hosts file has for it."""
        public = self._host_key.export_public_key().decode().strip()
        return f"[{self.address}]:{self.port} {public}\n"

    def __enter__(self) -> SshHost:
        command = [sys.executable, "-m", "tests.support.ssh_server"]
        self._process = subprocess.Popen(
            [*self._prefix, *command, str(self._folder), self.address],
            cwd=ROOT,
            env={**os.environ, "CHECKPOINT_RELEASE_FLEET_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.fail()

    def fail(self) -> None:
        """Kill the server and the workers that it started, as a loss of power does."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


async def serve(folder: Path, address: str) -> None:
    """Serve until the process is killed."""
    server = await asyncssh.listen(
        address,
        0,
        server_host_keys=[str(folder / "host")],
        authorized_client_keys=str(folder / "allowed"),
        process_factory=run,
        encoding=None,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


async def run(process: Any) -> None:
    """Run the command that a client sent."""
    child = await asyncio.create_subprocess_shell(
        process.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await process.redirect(child.stdin, child.stdout, child.stderr)
    process.exit(await child.wait())


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
