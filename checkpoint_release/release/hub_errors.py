"""What can go wrong between us and a Hub, in words: what happened, what to do, and
whether it may pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils._http import parse_ratelimit_headers

from checkpoint_release.core.errors import PublishError

AGAIN = "run this again: it looks what the Hub holds and does only what is left"


class RequestError(PublishError):
    """A request that failed.

    Attributes:
        transient: whether trying again may help.
        look: whether the server may have acted all the same.
        wait: seconds that the server asked to wait, or None.
    """

    def __init__(
        self,
        problem: str,
        remedy: str,
        *,
        transient: bool = False,
        look: bool = False,
        wait: float | None = None,
    ) -> None:
        super().__init__(problem, remedy)
        self.transient, self.look, self.wait = transient, look or transient, wait


def scrub(text: str, token: str | None = None) -> str:
    """The text without secrets: the token, anything that looks like one, passwords and
    signatures in URLs.
    """
    if token:
        text = text.replace(token, "(token)")
    text = re.sub(r"\b(hf|api_org)_[A-Za-z0-9_-]{6,}", "(token)", text)
    text = re.sub(r"(?<=://)[^/@\s]+@", "", text)
    return re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\"]+", r"\1", text)


@dataclass(frozen=True)
class Circumstances:
    """What a message may have to name.

    Attributes:
        endpoint, token, timeout: as the Hub has them.
        who: whose token it is, in words.
    """

    endpoint: str
    token: str | None
    timeout: float
    who: Callable[[], str]


def explain(error: BaseException, doing: str, at: Circumstances) -> RequestError:
    """What went wrong, in words, and whether it may pass. Anything that isn't of the
    Hub is raised on.
    """
    # "Error while uploading 'model.onnx' to the Hub."
    if isinstance(error, RuntimeError) and error.__cause__:
        return explain(error.__cause__, f"{doing}: {str(error).rstrip('.')}", at)
    again = _retries_are_ours(error)
    match error:
        case RequestError():
            return error
        case PublishError():
            raise error
        case HfHubHTTPError():
            return _refused(error, doing, again, at)
        case OfflineModeIsEnabled():
            return RequestError(
                f"{doing}: HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE to publish"
            )
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            reason = scrub(str(error), at.token) or "no answer"
            return RequestError(
                f"{doing}: {scrub(at.endpoint)} can't be reached ({reason})",
                f"check the network and HF_ENDPOINT, then {AGAIN}",
                transient=again,
                look=True,
            )
        case httpx2.TimeoutException():
            return RequestError(
                f"{doing}: no answer within {at.timeout:g} s",
                f"{AGAIN}; on a slow line raise publish.timeout",
                transient=again,
                look=True,
            )
        case httpx2.UnsupportedProtocol() | httpx2.InvalidURL():
            return RequestError(
                f"{doing}: {scrub(at.endpoint)} is not an address"
                f" ({_line(str(error), at.token)})",
                "set HF_ENDPOINT to the Hub's address, such as https://huggingface.co,"
                " or unset it",
            )
        case httpx2.HTTPError():
            return RequestError(
                f"{doing}: the connection was cut"
                f" ({scrub(str(error), at.token) or type(error).__name__})",
                AGAIN,
                transient=again,
                look=True,
            )
        case json.JSONDecodeError() | KeyError():
            return RequestError(
                f"{doing}: the Hub's answer is not what it should be ({error!r})",
                f"check that HF_ENDPOINT is a Hub, then {AGAIN}",
                transient=again,
                look=True,
            )
        case ValueError():
            remedy = (
                "correct the model card"
                if "README.md" in str(error)
                else "see what the Hub says"
            )
            return RequestError(f"{doing}: {_line(str(error), at.token)}", remedy)
        case OSError():
            return RequestError(
                f"{doing}: {_line(str(error), at.token)}",
                f"see to the disk, then {AGAIN}",
            )
    raise error


def _refused(
    error: HfHubHTTPError, doing: str, again: bool, at: Circumstances
) -> RequestError:
    status, said = (
        error.response.status_code,
        _line(error.server_message or "", at.token),
    )
    told = f"{doing}: status {status}" + (f", “{said}”" if said else "")
    match status:
        case 401:
            return RequestError(
                f"{doing}: the Hub doesn't accept the token"
                f" (401{', “' + said + '”' if said else ''})",
                "set HF_TOKEN to a valid token, or run `hf auth login` again",
            )
        case 403:
            return RequestError(
                f"{doing}: {at.who()} has no right to do that"
                f" (403{', “' + said + '”' if said else ''})",
                "use a token with write access to that namespace, or change"
                " publish.repo_id",
            )
        case 404:
            return RequestError(
                f"{told} (it isn't there, or this token may not see it)",
                "check the repository's name, the revision, and what the token may see",
            )
        case 409:
            return RequestError(told, AGAIN, transient=True)
        case 412:
            return RequestError(told, AGAIN, look=True)
        case 429:
            wait = asked_wait(error.response)
            asked = f"; it asks to wait {wait:.0f} s" if wait is not None else ""
            return RequestError(
                f"{doing}: too many requests (429){asked}",
                f"wait a while, then {AGAIN}",
                transient=again,
                look=True,
                wait=wait,
            )
        case 408 | 500 | 502 | 503 | 504:
            return RequestError(
                f"{told} (request {error.request_id})" if error.request_id else told,
                f"the Hub has a trouble of its own; {AGAIN}",
                transient=again,
                look=True,
                wait=asked_wait(error.response),
            )
    return RequestError(told, "see what the Hub says, and check publish in params.yaml")


_NOT_RETRIED = re.compile(
    r"/api/(repos/create|validate-yaml|models/[^/]+/[^/]+(/refs|/discussions|/(commit|tag|branch|revision)/.*)?)$"
)
"""Requests that huggingface_hub sends once. It retries all others itself, for 23 s in
all.
"""


def _retries_are_ours(error: BaseException) -> bool:
    """Whether another try is up to us, because the client made only one."""
    try:
        request = error.request  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # no request, or none known
        return True
    return bool(_NOT_RETRIED.search(request.url.raw_path.decode().partition("?")[0]))


def asked_wait(response: httpx2.Response) -> float | None:
    """Seconds that a response asks to wait, by RateLimit or Retry-After."""
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else None


def _line(text: str, token: str | None) -> str:
    """What a server said, on one line, without secrets."""
    return " ".join(scrub(text, token).split())[:300]
