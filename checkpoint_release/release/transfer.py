"""How the bytes of large files go up: by git LFS, or by Xet.

huggingface_hub chooses for the whole process and asks no Hub. Here a publication
chooses, and a Hub that doesn't speak Xet is found before the upload.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from checkpoint_release.core.errors import PublishError
from checkpoint_release.core.text import printable
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.hub_errors import RETRY_HINT, RequestError, scrub
from checkpoint_release.release.plan import Target


def chooses_xet(hub: Hub, target: Target) -> bool:
    """Whether a publication goes up by Xet.

    Args:
        hub: where to; it is asked whether it speaks Xet.
        target: a repository that is there, and how the bytes shall go.

    Raises:
        PublishError: it shall be Xet and can't be, or the Hub can't be asked.
    """
    if target.transfer == "lfs":
        return False
    is_installed = importlib.util.find_spec("hf_xet") is not None
    if is_installed and hub.speaks_xet(target):
        return True
    if target.transfer == "auto":
        return False
    if not is_installed:
        problem, remedy = "hf_xet is not installed", "install it, with pip"
    else:
        problem = f"{hub.address} doesn't store {target.repo_id} in Xet"
        remedy = "publish to a Hub that does"
    raise PublishError(
        f"{{publish.transfer}} is xet, and {problem}",
        f"{remedy}; or set {{publish.transfer}} to auto or lfs",
        options=["publish.transfer"],
    )


@contextmanager
def sending(*, by_xet: bool) -> Iterator[None]:
    """Let huggingface_hub send what is uploaded by Xet, or by git LFS.

    Raises:
        RequestError: Xet's client gave up; it has tried for some minutes by then.
    """
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = not by_xet
    try:
        yield
    except OSError as error:
        # neither has Xet's client types of its own, nor do the Hub's errors say more
        is_of_http = isinstance(error, HfHubHTTPError | httpx2.HTTPError)
        if not by_xet or is_of_http:
            raise
        raise RequestError(
            f"uploading by Xet: {printable(scrub(str(error)))}",
            f"{RETRY_HINT}; if it happens again, set {{publish.transfer}} to lfs",
            options=("publish.transfer",),
        ) from error
    finally:
        constants.HF_HUB_DISABLE_XET = before
