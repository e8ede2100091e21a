"""Whose rights a request to a Hub has.

A token stays, as that of HF_TOKEN or `hf auth login`, or ends after an hour, as that
which a Hub gives to a job of CI in exchange for the job's identity (Trusted Publishers,
with HF_OIDC_RESOURCE). huggingface_hub exchanges it, and again before it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError, OIDCError

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub_errors import (
    TRANSIENT,
    RequestError,
    requested_wait,
    scrub,
)

TokenSource = Callable[[], str | None]
"""Gives the token to use now; None: requests are anonymous."""

RESOURCE = "HF_OIDC_RESOURCE"
IDENTITY = "HF_OIDC_ID_TOKEN"
"""Holds the ID token where huggingface_hub can't ask the CI for one."""


def trusted_repository() -> str | None:
    """The one repository that the tokens of this job of CI are for; None: they aren't
    exchanged.
    """
    return os.environ.get(RESOURCE) or None


def stored_token() -> str | None:
    """The token of Trusted Publishers, of the environment (HF_TOKEN) or of `hf auth
    login`, or None.

    Raises:
        PublishError: HF_OIDC_RESOURCE is set, and there is no ID token, or the Hub
            gives nothing in exchange.
    """
    try:
        return get_token()
    except OIDCError as error:
        raise PublishError(
            f"{RESOURCE} is set, and this job has no ID token: {error}",
            "on GitHub give the job `permissions: id-token: write`; elsewhere put its"
            f" ID token into {IDENTITY}",
        ) from None
    except HfHubHTTPError as error:
        raise _not_exchanged(error) from error
    except httpx2.HTTPError as error:
        reason = scrub(str(error)) or type(error).__name__
        raise RequestError(
            f"{_problem()}: {error.request.url.host} doesn't answer ({reason})",
            "check the network and HF_ENDPOINT, then run the job again",
            transient=True,
            offline=isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout),
        ) from error


def _problem() -> str:
    return f"no token for {trusted_repository()} in exchange for the job's ID token"


def require_token() -> str:
    """The token as stored_token has it.

    Raises:
        PublishError: there is none, it can't be one, or the Hub gives none.
    """
    token = stored_token()
    if not token:
        raise PublishError(
            "there is no token for the Hub",
            "set HF_TOKEN, or run `hf auth login`, with a token that may write to the"
            " repository",
        )
    if not (token.isascii() and token.isprintable()):
        raise PublishError(
            "the token for the Hub holds a character that no token has",
            "set HF_TOKEN to the token alone, or run `hf auth login` again",
        )
    return token


def _not_exchanged(error: HfHubHTTPError) -> RequestError:
    """Why there is no token in exchange for an ID token.

    The Hub doesn't tell which of its checks failed.
    """
    status = error.response.status_code
    message = scrub(error.server_message or "")
    quoted = f", “{message}”" if message else ""
    problem = _problem()
    if status in TRANSIENT:
        return RequestError(
            f"{problem} (status {status}{quoted})",
            "run the job again",
            transient=True,
            wait=requested_wait(error.response),
        )
    remedy = (
        "in the repository's settings on the Hub, under Trusted Publishers, name the"
        " CI's repository and workflow, exactly as they are; a repository that isn't"
        " there yet is made by hand first"
    )
    if os.environ.get(IDENTITY):
        remedy += f"; or run the job again, if the ID token of {IDENTITY} has ended"
    return RequestError(f"{problem} ({status}{quoted})", remedy)
