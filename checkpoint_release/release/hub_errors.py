"""What can go wrong between this machine and a Hub: what happened, what to do about it,
and whether trying again may help.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import parse_ratelimit_headers

from checkpoint_release.core.errors import PublishError

TRANSIENT = (408, 429, 500, 502, 503, 504)
"""Statuses that another try may change."""

RETRY_HINT = "run this again: it checks what the Hub holds and does only what is left"


class RequestError(PublishError):
    """A request that failed.

    Attributes:
        transient: whether trying again may help.
        may_have_applied: whether the server may have acted all the same.
        wait: seconds that the server asked to wait; 0 if it didn't.
        offline: whether no Hub can be reached from here.
    """

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        options: tuple[str, ...] = (),
        transient: bool = False,
        may_have_applied: bool = False,
        wait: float = 0.0,
        offline: bool = False,
    ) -> None:
        super().__init__(problem, remedy, options=options)
        self.offline = offline
        self.transient = transient
        self.may_have_applied = may_have_applied or transient
        self.wait = wait


@dataclass(frozen=True)
class ErrorContext:
    """What a message may have to name.

    Attributes:
        endpoint, token, timeout, repository: as the Hub has them.
        token_owner: whose token it is, to put into a sentence; asks the Hub.
    """

    endpoint: str
    token: str | None
    timeout: float
    token_owner: Callable[[], str]
    repository: str | None = None

    def scrub(self, text: str) -> str:
        """The text without secrets, on one line."""
        return " ".join(scrub(text, self.token).split())[:300]


def scrub(text: str, token: str | None = None) -> str:
    """Remove secrets from a text: tokens, and passwords and signatures in URLs.

    Args:
        text: a message, or an address.
        token: the one in use; others are found by what they look like.
    """
    if token:
        text = text.replace(token, "(token)")
    text = re.sub(
        r"\b(hf|api_org)_[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_-]+)*", "(token)", text
    )
    text = re.sub(r"\beyJ[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}", "(token)", text)
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1", text)


# Failed requests


def explain(error: BaseException, doing: str, context: ErrorContext) -> RequestError:
    """Turn an error into one that tells the user what happened and what to do.

    Args:
        error: what a request raised.
        doing: what the request was for, such as "listing ada/model".
        context: what the message may name.

    Raises:
        BaseException: the error itself, where it doesn't come from talking to a Hub.
    """
    if isinstance(error, RuntimeError) and error.__cause__:
        # "Error while uploading 'model.onnx' to the Hub."
        return explain(error.__cause__, f"{doing}: {str(error).rstrip('.')}", context)
    if isinstance(error, RequestError):
        return error
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        # A download: the Hub didn't answer, and the client's cache lacks it. Who waits
        # for that to change can ask again.
        explained = explain(error.__cause__, doing, context)
        explained.transient = explained.transient and not explained.offline
        return explained
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, doing, context)
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL):
        return _explain_transport(error, doing, context)
    return _explain_client(error, doing, context)


def _explain_transport(
    error: httpx2.HTTPError | httpx2.InvalidURL, doing: str, context: ErrorContext
) -> RequestError:
    """No answer came."""
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return RequestError(
            f"{doing}: {scrub(context.endpoint)} is not an address"
            f" ({context.scrub(str(error))})",
            "set HF_ENDPOINT to the Hub's address, such as https://huggingface.co, or"
            " unset it",
        )
    options: tuple[str, ...] = ()
    offline = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
    if offline:
        reason = context.scrub(str(error)) or "no answer"
        problem = f"{scrub(context.endpoint)} can't be reached ({reason})"
        remedy = f"check the network and HF_ENDPOINT, then {RETRY_HINT}"
    elif isinstance(error, httpx2.TimeoutException):
        problem = f"no answer within {context.timeout:g} s"
        remedy = f"{RETRY_HINT}; on a slow connection raise {{publish.timeout}}"
        options = ("publish.timeout",)
    else:
        reason = context.scrub(str(error)) or type(error).__name__
        problem = f"the connection was cut ({reason})"
        remedy = RETRY_HINT
    return RequestError(
        f"{doing}: {problem}",
        remedy,
        options=options,
        transient=_is_sent_once(error),
        may_have_applied=True,
        offline=offline,
    )


def _explain_client(
    error: BaseException, doing: str, context: ErrorContext
) -> RequestError:
    """huggingface_hub itself gave up."""
    if isinstance(error, OfflineModeIsEnabled):
        return RequestError(
            f"{doing}: HF_HUB_OFFLINE is set",
            "unset HF_HUB_OFFLINE: this needs the Hub",
            offline=True,
        )
    if isinstance(error, json.JSONDecodeError | KeyError):
        return RequestError(
            f"{doing}: the answer is not one that a Hub gives ({error!r})",
            f"check that HF_ENDPOINT is a Hub, then {RETRY_HINT}",
            transient=_is_sent_once(error),
            may_have_applied=True,
        )
    problem = f"{doing}: {context.scrub(str(error))}"
    if isinstance(error, ValueError):
        about_card = "README.md" in str(error)
        remedy = "correct the model card" if about_card else "see the Hub's message"
        return RequestError(problem, remedy)
    if isinstance(error, OSError):
        return RequestError(problem, f"check the disk, then {RETRY_HINT}")
    raise error


def _explain_status(
    error: HfHubHTTPError, doing: str, context: ErrorContext
) -> RequestError:
    """The Hub answered with an error status."""
    status = error.response.status_code
    message = context.scrub(error.server_message or "")
    quoted = f", “{message}”" if message else ""
    if status in (402, 413):
        return _no_room(status, doing, quoted)
    if isinstance(error, GatedRepoError):
        return RequestError(
            f"{doing}: it is given on request alone, and {context.token_owner()} hasn't"
            f" asked, or wasn't granted it ({status}{quoted})",
            "ask for access on its page on the Hub, and use a token of who has it",
        )
    if isinstance(error, DisabledRepoError):
        return RequestError(
            f"{doing}: the Hub's operators have disabled the repository ({status})",
            "see its page on the Hub, and ask them",
        )
    if status in (401, 403):
        return _explain_denial(status, doing, quoted, context)
    problem = f"{doing}: status {status}{quoted}"
    if status == 404:
        return RequestError(
            f"{problem} (it isn't there, or this token may not see it)",
            "check the repository's name, the revision, and what the token may see",
        )
    if status == 409:
        return RequestError(problem, RETRY_HINT, transient=True)
    if status == 412:
        return RequestError(problem, RETRY_HINT, may_have_applied=True)
    if status in TRANSIENT:
        return _explain_overload(error, doing, problem)
    return RequestError(
        problem,
        "see the Hub's message, and check the options of {publish}",
        options=("publish",),
    )


_QUOTA = re.compile(r"storage (limit|patterns)|quota", re.IGNORECASE)
"""In what the Hub answers with status 403 where storage is full."""


def _explain_denial(
    status: int, doing: str, quoted: str, context: ErrorContext
) -> RequestError:
    if status == 401:
        remedy = "set HF_TOKEN to a valid token, or run `hf auth login` again"
        if context.repository is not None:
            remedy = "run the job again: it gets another token, and does what is left"
        return RequestError(
            f"{doing}: the Hub doesn't accept the token (401{quoted})", remedy
        )
    if _QUOTA.search(quoted):
        return _no_room(status, doing, quoted)
    return RequestError(
        f"{doing}: {context.token_owner()} has no right to do that (403{quoted})",
        "use a token with write access to that namespace, or change {publish.repo_id}",
        options=("publish.repo_id",),
    )


def _no_room(status: int, doing: str, quoted: str) -> RequestError:
    """The namespace's storage is full."""
    return RequestError(
        f"{doing}: the Hub has no room for it ({status}{quoted})",
        f"free storage of that namespace on the Hub, or get more, then {RETRY_HINT}",
    )


def _explain_overload(error: HfHubHTTPError, doing: str, problem: str) -> RequestError:
    wait = requested_wait(error.response)
    if error.response.status_code == 429:
        problem = f"{doing}: too many requests (429)"
        if wait:
            problem += f"; the Hub asks to wait {wait:.0f} s"
        remedy = f"wait a while, then {RETRY_HINT}"
    else:
        if error.request_id:
            problem += f" (request {error.request_id})"
        remedy = f"the Hub reports an internal error; {RETRY_HINT}"
    return RequestError(
        problem,
        remedy,
        transient=_is_sent_once(error),
        may_have_applied=True,
        wait=wait,
    )


_SENT_ONCE = re.compile(
    r"/oauth/token|/api/(repos/create|validate-yaml|whoami-v2|models/[^/]+/[^/]+"
    r"(/refs|/discussions|/(commit|tag|branch|revision|xet-write-token)/.*)?)$"
)
"""Requests that huggingface_hub sends once. It retries all others itself, for 23 s in
all.
"""


def _is_sent_once(error: BaseException) -> bool:
    """Whether another try is up to us, because huggingface_hub made only one."""
    request = _request_of(error)
    return request is None or is_sent_once(request)


def is_sent_once(request: httpx2.Request) -> bool:
    """Whether huggingface_hub sends a request once, and leaves other tries to us."""
    path = request.url.raw_path.decode().partition("?")[0]
    return bool(_SENT_ONCE.search(path))


def _request_of(error: BaseException) -> httpx2.Request | None:
    """The request that failed, if it is known.

    An error of huggingface_hub has it in its response alone.
    """
    if isinstance(error, HfHubHTTPError):
        return error.response.request
    try:
        request: httpx2.Request = error.request  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return None
    return request


def requested_wait(response: httpx2.Response) -> float:
    """Seconds that a response asks to wait, by RateLimit or Retry-After; 0 if it
    doesn't.
    """
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    retry_after = response.headers.get("Retry-After", "")
    return float(retry_after) if retry_after.isdigit() else 0.0
