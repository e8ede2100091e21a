"""Running the Hub in a thread of the test, on a port of loopback that is free."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import TracebackType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tests.support.hub_server.app import make_app
from tests.support.hub_server.faults import Fault, Faulty
from tests.support.hub_server.storage import Account, Hub, Repo
from tests.support.hub_server.trusted import TrustedPublishers
from tests.support.hub_server.xet import XetStorage


class HubServer:
    """A running Hub.

    with HubServer() as hub:
        hub.add_token("hf_secret", Account("ada"))
        HfApi(endpoint=hub.url, token="hf_secret").create_repo("ada/model")
    """

    def __init__(self) -> None:
        self.hub = Hub()
        self.trusted = TrustedPublishers()
        self.xet = XetStorage()
        self._faulty = Faulty(make_app(self.hub, self.trusted, self.xet))
        transports = self._faulty.transports

        class Protocol(H11Protocol):
            """Tells which connection a request came on, so that a fault can cut it."""

            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client is not None:
                    transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client is not None:
                    transports.pop(self.client, None)
                super().connection_lost(exc)

        # asyncio sends small packets at once only on sockets that say that they are
        # TCP; 40 ms a request otherwise.
        self._socket = socket.socket(
            socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config: dict[str, Any] = {
            "http": Protocol,
            "ws": "none",
            "lifespan": "off",
            "log_level": "critical",
        }
        self._server = uvicorn.Server(
            uvicorn.Config(self._faulty, timeout_graceful_shutdown=1, **config)
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), daemon=True
        )

    def __enter__(self) -> HubServer:
        self._socket.listen(128)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def reset(self) -> None:
        """Forget everything: a new Hub at the same address."""
        self.hub.__init__()  # type: ignore[misc]
        self.trusted.__init__()  # type: ignore[misc]
        self.xet.forget_settings()
        self.break_with()
        self.requests.clear()

    @property
    def requests(self) -> list[tuple[str, str, int]]:
        """Every request so far: method, path, status (0 where none was sent)."""
        return self._faulty.requests

    @property
    def broken(self) -> list[Fault]:
        """What goes wrong now; each counts how often it happened."""
        return self._faulty.faults

    def break_with(self, *faults: Fault) -> None:
        """What goes wrong from now on, in place of what went wrong until now."""
        self._faulty.faults[:] = faults

    def add_token(self, token: str, account: Account) -> None:
        """Let a token stand for an account."""
        self.hub.tokens[token] = account

    def repo(self, repo_id: str) -> Repo:
        """The repository, whoever may see it."""
        return self.hub.repos[repo_id]
