"""Breaking the Hub on request: at a chosen request, in a chosen way, before or after
the server acted.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass
class Fault:
    """What goes wrong, and with which request.

    Attributes:
        kind: "status" answers with an error; "cut" drops the connection; "hang" never
            answers.
        after: the server acts first, and only its answer is lost.
        status, headers, body: the answer of a "status".
        method, path: shell patterns of the requests that it is for (the path as sent,
            without the query).
        nth: the position of the one request that it is for, among those that match;
            None means every one.
        times: how often it happens.
    """

    kind: Literal["status", "cut", "hang"]
    after: bool = False
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    method: str = "*"
    path: str = "*"
    nth: int | None = None
    times: int = 1
    seen: int = 0
    happened: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Whether it happens to this request; counts it."""
        if not (
            fnmatch.fnmatch(method, self.method) and fnmatch.fnmatch(path, self.path)
        ):
            return False
        self.seen += 1
        if self.happened >= self.times or (
            self.nth is not None and self.seen - 1 != self.nth
        ):
            return False
        self.happened += 1
        return True


class Faulty:
    """The app, and what goes wrong with it. Keeps a list of the requests as (method,
    path, status).
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, int]] = []
        self.transports: dict[tuple[str, int], asyncio.Transport] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Revisions come percent-encoded as one segment (refs%2Fpr%2F1): route on the
        # path as it was sent.
        scope["path"] = scope["raw_path"].decode()
        method, path = scope["method"], scope["path"]
        # asked by the client for its user agent, now and then; not part of this
        if path == "/api/agent-harnesses":
            await _answer(send, 404, {}, "")
            return
        position = len(self.requests)
        self.requests.append((method, path, 0))

        async def note(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.requests[position] = (method, path, message["status"])
            await send(message)

        fault = self._fault_of(method, path)
        if fault is None:
            await self.app(scope, receive, note)
            return
        if fault.after:
            await self.app(scope, receive, _nowhere)
        await self._inject(fault, scope, receive, note)

    def _fault_of(self, method: str, path: str) -> Fault | None:
        """The first fault that strikes this request."""
        for fault in self.faults:
            if fault.strikes(method, path):
                return fault
        return None

    async def _inject(
        self, fault: Fault, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer in the app's place: with a status, with nothing, or never."""
        match fault.kind:
            case "status":
                if not fault.after:
                    await _drain(receive)
                await _answer(send, fault.status, fault.headers, fault.body)
            case "cut":
                if not fault.after:
                    # in mid-upload: something has arrived, the rest never does
                    await receive()
                self.transports[scope["client"]].abort()
            case "hang":
                while (await receive())["type"] != "http.disconnect":
                    pass


async def _nowhere(message: MutableMapping[str, Any]) -> None:
    pass


async def _drain(receive: Receive) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


async def _answer(send: Send, status: int, headers: dict[str, str], body: str) -> None:
    content = (body or json.dumps({"error": f"injected {status}"})).encode()
    names = {
        "content-type": "application/json",
        "content-length": str(len(content)),
        **headers,
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in names.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": content})
