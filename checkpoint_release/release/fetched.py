"""A release in a folder of this machine, wherever it comes from.

That is a folder, a Hub, or the Hub client's cache where no Hub can be reached.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from checkpoint_release.core.errors import ArtifactError, PublishError

if TYPE_CHECKING:
    from checkpoint_release.release.hub import Hub


@dataclass(frozen=True)
class Fetched:
    """Where a release lies.

    Attributes:
        folder: on this machine.
        note: what the reader must know of where it comes from; empty: nothing.
    """

    folder: Path
    note: str = ""


@contextmanager
def local_release(release: str, revision: str | None) -> Iterator[Fetched]:
    """A release on this machine; a download is gone afterwards.

    Args:
        release: a folder, or organisation/name on the Hub of HF_ENDPOINT.
        revision: branch, tag or commit on the Hub; None: main.

    Raises:
        ArtifactError: it is neither.
        PublishError: the Hub doesn't give it, or can't be reached and the cache lacks
            it.
    """
    folder = Path(release)
    if folder.is_dir():
        if revision:
            raise ArtifactError(
                f"{{revision}} is of a repository on the Hub, and {folder} is a folder",
                "leave out {revision}",
                options=["revision"],
            )
        yield Fetched(folder)
        return
    from checkpoint_release.release.hub import Hub, default_endpoint
    from checkpoint_release.release.hub_errors import RequestError
    from checkpoint_release.release.tokens import stored_token

    with TemporaryDirectory() as temporary:
        downloaded = Path(temporary) / "release"
        try:
            hub = Hub(default_endpoint(), stored_token)
            download(hub, release, revision, downloaded)
        except RequestError as error:
            if not error.offline:
                where = f"{release} is no folder here, so the Hub was asked"
                raise error.within(where) from None
            yield _cached(release, revision, error)
            return
        yield Fetched(downloaded)


def _cached(repo_id: str, revision: str | None, error: PublishError) -> Fetched:
    """The copy of a release in the Hub client's cache.

    Args:
        repo_id: organisation/name.
        revision: branch, tag or commit; None: main.
        error: why the Hub can't be asked.

    Raises:
        PublishError: there is no whole copy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    _, _, reason = error.problem.partition(": ")
    at = f" at {revision}" if revision else ""
    try:
        folder = Path(
            snapshot_download(repo_id, revision=revision, local_files_only=True)
        )
    except LocalEntryNotFoundError:
        raise PublishError(
            f"offline: {reason}; and there is no whole copy of {repo_id}{at} on this"
            " machine",
            "connect to the Hub and check HF_ENDPOINT, or name the folder of a release",
        ) from None
    note = (
        f"offline: {reason}; checked is the copy of {repo_id}{at} in this machine's"
        f" cache, commit {folder.name[:12]}, which may not be the Hub's newest"
    )
    return Fetched(folder, note)


def download(hub: Hub, repo_id: str, revision: str | None, folder: Path) -> None:
    """Download a release from the Hub.

    Args:
        hub: where from.
        repo_id: organisation/name.
        revision: branch, tag or commit; None: main.
        folder: where to; it is created.

    Raises:
        ArtifactError: that is not the name of a repository.
        PublishError: the Hub doesn't give it.
    """
    organisation, _, name = repo_id.partition("/")
    if not organisation or not name or "/" in name:
        raise ArtifactError(
            f"{repo_id} is neither a folder nor organisation/name", "name one of them"
        )
    hub.download(repo_id, revision, folder)
    # huggingface_hub's notes on the download
    shutil.rmtree(folder / ".cache", ignore_errors=True)
