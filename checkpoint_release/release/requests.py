"""Requests to a Hub, with limits: how long one may take, how often it is tried, and
what may be repeated.

A request that changes something is never blindly sent again: when its answer is lost,
the Hub is asked what came of it (`Requests.change`).

huggingface_hub's one HTTP client for the process is configured here. Xet has a client
of its own, in which no limits hold: it is off unless HF_HUB_DISABLE_XET=0 is set, or
publish.transfer asks for it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory
from huggingface_hub.utils import disable_progress_bars
from huggingface_hub.utils._http import default_client_factory

from checkpoint_release.release.hub_errors import (
    RETRY_HINT,
    ErrorContext,
    RequestError,
    explain,
    is_sent_once,
    requested_wait,
    scrub,
)
from checkpoint_release.release.tokens import TokenSource, trusted_repository

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds that a Hub is waited for in all, when it asks for it. Its windows, in which
requests are counted, are 300 s long.
"""

NOTED_WAIT = 5.0
"""Seconds of a wait that is worth a line."""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries."""

LONGEST_CONNECT = 10.0
"""Seconds that connecting may take, if the timeout isn't shorter."""

_CREATION_CONFLICT = b"another conflicting operation"
"""In an answer that huggingface_hub would retry at once, for ever."""


class Requests:
    """How a Hub is asked.

    Args:
        endpoint: its address.
        token: whose rights to use, or what gives the token before each request; None:
            anonymous.
        timeout: seconds that each step of a request (connect, send, receive) may take.
        patience: seconds that the Hub is waited for in all, when it asks for it.
        sleep: waits between tries.
        report: takes a line about progress.

    Attributes:
        token: that is in use now.
        repository: the only one that it is for; None: it is for whatever its owner may
            do.

    Raises:
        PublishError: there is no token.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | TokenSource | None,
        *,
        timeout: float,
        patience: float = PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
        report: Callable[[str], None] = print,
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.timeout = timeout
        self.patience = patience
        self._waited = 0.0
        self.report = report
        self._sleep = sleep
        self.token: str | None = None
        self._issued: set[str] = set()
        self._source: TokenSource | None = None
        self.repository: str | None = None
        self._configure_client()
        if callable(token):
            self._source = token
            self.repository = trusted_repository()
            self._renew_token(token)
        else:
            self.token = token
        self.api = HfApi(endpoint=self.endpoint, token=self.token or False)

    # What may be repeated

    def read(self, request: Callable[[], T], doing: str) -> T:
        """Read something; try again after an error that may pass.

        Args:
            request: what to ask.
            doing: what it is for, for messages.

        Raises:
            RequestError: there is no answer.
        """
        for wait in (*WAITS, None):
            try:
                return request()
            except Exception as cause:
                error = self._explain(cause, doing)
                if wait is None or not error.transient:
                    raise error from cause
                self._pause(error, wait)
        raise AssertionError("the last wait is None")

    def change(
        self,
        request: Callable[[], object],
        find_result: Callable[[], T | None],
        doing: str,
    ) -> T:
        """Do something that must not happen twice: after every try, look for its
        result.

        Args:
            request: what changes something on the Hub.
            find_result: reads what came of it; None if nothing did (yet).
            doing: what it is for, for messages.

        Raises:
            RequestError: it didn't happen.
            PublishError: something else did.
        """
        confirmed = False
        for wait in (*WAITS, None):
            error = None if confirmed else self._attempt(request, doing)
            if error is None:
                confirmed = True
                error = RequestError(
                    f"{doing}: the Hub confirmed it, but doesn't show it yet",
                    RETRY_HINT,
                    transient=True,
                )
            if error.may_have_applied:
                result = find_result()
                if result is not None:
                    return result
            if wait is None or not error.transient:
                raise error
            self._pause(error, wait)
        raise AssertionError("the last wait is None")

    def _attempt(
        self, request: Callable[[], object], doing: str
    ) -> RequestError | None:
        """Send once; returns what went wrong, or None."""
        try:
            request()
        except Exception as cause:
            error = self._explain(cause, doing)
            error.__cause__ = cause
            return error
        return None

    def _pause(self, error: RequestError, wait: float) -> None:
        """Wait, and longer if the Hub asks for it."""
        seconds = max(wait, error.wait)
        self.report(f"{error.problem}; trying again in {seconds:g} s")
        self._sleep(seconds)

    def _explain(self, error: Exception, doing: str) -> RequestError:
        context = ErrorContext(
            self.endpoint,
            self.token,
            self.timeout,
            self._token_owner,
            self.repository,
        )
        return explain(error, doing, context)

    def _token_owner(self) -> str:
        if self.repository is not None:
            return f"the job's token for {self.repository}"
        try:
            return f"the token of {self.api.whoami(cache=True)['name']}"
        except Exception:
            # it is only for a message, which can do without
            return "this token"

    # Whose rights one has

    def _renew_token(self, source: TokenSource) -> str | None:
        """Take the token that is to be used now.

        Uploads do so in several threads, so each uses the one that it is given.

        Raises:
            PublishError: there is none.
        """
        token = self.read(source, "exchanging the job's ID token")
        if token:
            self._issued.add(token)
        self.token = token
        return token

    def _authorise(self, request: httpx2.Request) -> None:
        """Put the token of now in the place of one that may have ended.

        huggingface_hub makes the headers of an upload once, before its first byte.
        """
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        if self._source is not None and sent in self._issued:
            token = self._renew_token(self._source)
            request.headers["authorization"] = f"{scheme} {token}"

    # How long one may take

    def _configure_client(self) -> None:
        """Set time limits, transport and logging of all that huggingface_hub does."""
        set_client_factory(self._make_client)
        disable_progress_bars()
        if "HF_HUB_DISABLE_XET" not in os.environ:
            constants.HF_HUB_DISABLE_XET = True
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("huggingface_hub."):
                logging.getLogger(name).addFilter(self._scrub_record)

    def _make_client(self) -> httpx2.Client:
        """huggingface_hub's own client, with the time limits that it lacks.

        Its default factory has no public name; a client without it would send no
        request ids and write no log.
        """
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [self._authorise, *hooks["request"], self._limit_time],
            "response": [
                *hooks["response"],
                self._stop_endless_retries,
                self._count_waits,
            ],
        }
        return client

    def _limit_time(self, request: httpx2.Request) -> None:
        """Limit each step that has no limit, or a longer one.

        Some of huggingface_hub's calls ask expressly for none.
        """
        connect = min(self.timeout, LONGEST_CONNECT)
        limits = httpx2.Timeout(self.timeout, connect=connect).as_dict()
        requested = request.extensions.get("timeout", {})
        for step, seconds in requested.items():
            if seconds is not None:
                limits[step] = min(seconds, limits[step])
        request.extensions["timeout"] = limits

    def _stop_endless_retries(self, response: httpx2.Response) -> None:
        """Raise on an answer that huggingface_hub would obey for ever."""
        status = response.status_code
        creating = response.request.url.path == "/api/repos/create"
        if status == 409 and creating and _CREATION_CONFLICT in response.read():
            raise RequestError(
                "creating the repository: the Hub is already creating it (409)",
                RETRY_HINT,
                transient=True,
            )

    def _count_waits(self, response: httpx2.Response) -> None:
        """Allow a wait that the Hub asks for, within the patience for all of them.

        It is waited afterwards: by huggingface_hub, or by `_pause`.
        """
        status = response.status_code
        wait = requested_wait(response)
        if status not in (429, 503) or not wait:
            return
        if self._waited + wait > self.patience:
            spent = f", after {self._waited:.0f} s of waiting" if self._waited else ""
            raise RequestError(
                f"the Hub asks to wait {wait:.0f} s before the next request (status"
                f" {status}){spent}, and {{publish.patience}} is {self.patience:g} s",
                f"raise {{publish.patience}}, or wait that long, then {RETRY_HINT}",
                options=("publish.patience",),
                may_have_applied=True,
            )
        self._waited += wait
        if wait >= NOTED_WAIT and not is_sent_once(response.request):
            self.report(f"the Hub asks to wait {wait:.0f} s (status {status}); waiting")

    def _scrub_record(self, record: logging.LogRecord) -> bool:
        """A logging filter that lets everything pass, without secrets."""
        record.msg = scrub(record.getMessage(), self.token)
        record.args = None
        return True
