"""The part of a repository on a Hub that one format needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from checkpoint_release.core.artifacts.config import CONFIG
from checkpoint_release.core.artifacts.formats import FORMATS, SAFETENSORS
from checkpoint_release.core.errors import InferenceError, one_line
from checkpoint_release.core.extras import extras_named
from checkpoint_release.runtimes.detect import SUPPORTED

_MAX_REASON = 300  # characters of the library's message


def fetch_snapshot(repo_id: str, format: str | None, revision: str | None) -> Path:
    """Fetch one format of a release and its config.json, where the cache lacks them.

    Args:
        repo_id: organisation/name.
        format: the format; None: the first that is there.
        revision: branch, tag or commit; None: the default branch.

    Returns:
        The folder of the snapshot.

    Raises:
        InferenceError: a release holds no such format, or it can't be fetched.
    """
    if format not in (None, *FORMATS):
        raise InferenceError(
            f"a release on the Hub holds no {format}",
            f"choose one of {', '.join(FORMATS)}",
        )
    for name in FORMATS if format is None else (format,):
        folder = _snapshot(repo_id, revision, _patterns(name))
        if any(folder.rglob("model*")):
            return folder
    raise InferenceError(
        f"{repo_id} on the Hub holds no model that this can run", SUPPORTED
    )


def _patterns(format: str) -> list[str]:
    """Which files of a release a format needs, as the Hub's client matches them."""
    if format == SAFETENSORS.name:
        return [CONFIG, "model*.safetensors", f"{SAFETENSORS.file}.index.json"]
    return [FORMATS[format].path_in_release("*")]


@extras_named()
def _snapshot(repo_id: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The cache's folder of a revision, in which the matching files are up to date.

    Raises:
        InferenceError: the Hub doesn't have it, or can't be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            repo_id, revision=revision, allow_patterns=list(patterns)
        )
    except (OSError, ValueError) as error:  # the library's own errors are of these
        at = f" at {revision}" if revision else ""
        raise InferenceError(
            f"there is no {repo_id}{at} on this machine, and fetching it from the Hub"
            f" failed: {one_line(error, _MAX_REASON)}",
            "check the name, the revision, the network, and HF_TOKEN for a private"
            " repository",
        ) from None
    return Path(folder)
