"""What a Hub holds: repositories, branches, tags, files and their digests."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelInfo, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub_errors import RequestError, scrub
from checkpoint_release.release.plan import RemoteFile
from checkpoint_release.release.requests import Requests


def default_endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return constants.ENDPOINT


def stored_token() -> str | None:
    """The token of the environment (HF_TOKEN) or of `hf auth login`, or None."""
    return get_token()


def require_token() -> str:
    """The token of the environment (HF_TOKEN) or of `hf auth login`.

    Raises:
        PublishError: there is none, or it can't be one.
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


@dataclass(frozen=True)
class Refs:
    """What points to commits of a repository.

    Attributes:
        branches: name → commit.
        tags: their names.
        pull_requests: ref, such as refs/pr/1 → commit; empty unless asked for.
    """

    branches: Mapping[str, str]
    tags: frozenset[str]
    pull_requests: Mapping[str, str]


class Hub:
    """A Hub to read from; `upload.publish` writes to it.

    Args:
        endpoint: its address.
        token: whose rights to use; None: anonymous.
        timeout: seconds that each step of a request (connect, send, receive) may take.
        sleep: waits between tries.
        report: takes a line about progress.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        *,
        timeout: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        report: Callable[[str], None] = print,
    ) -> None:
        self.requests = Requests(
            endpoint, token, timeout=timeout, sleep=sleep, report=report
        )
        self.api = self.requests.api
        self.endpoint = self.requests.endpoint

    @property
    def address(self) -> str:
        """The endpoint without credentials, as it may be written down."""
        return scrub(self.endpoint)

    # Files

    def files(self, repo_id: str, revision: str) -> dict[str, RemoteFile]:
        """List every file at a revision.

        Args:
            repo_id: organisation/name.
            revision: a commit id, or a branch or tag.

        Raises:
            PublishError: the Hub doesn't answer, or has no such revision.
        """

        def list_files() -> dict[str, RemoteFile]:
            files = {}
            for entry in self.api.list_repo_tree(
                repo_id, recursive=True, revision=revision
            ):
                if isinstance(entry, RepoFile):
                    sha256 = entry.lfs.sha256 if entry.lfs else None
                    files[entry.path] = RemoteFile(entry.size, entry.blob_id, sha256)
            return files

        return self.requests.read(list_files, f"listing {repo_id}")

    def content(self, repo_id: str, path: str, revision: str) -> bytes:
        """The bytes of one file, as they come from the Hub.

        Raises:
            PublishError: the Hub doesn't answer, or has no such file.
        """

        def read() -> bytes:
            with tempfile.TemporaryDirectory() as folder:
                file = self.api.hf_hub_download(
                    repo_id, path, revision=revision, local_dir=folder
                )
                return Path(file).read_bytes()

        return self.requests.read(read, f"reading {path} of {repo_id}")

    def download(self, repo_id: str, revision: str | None, folder: Path) -> None:
        """Download all files of a repository.

        Args:
            repo_id: organisation/name.
            revision: branch, tag or commit; None: main.
            folder: where to; it is created.

        Raises:
            PublishError: the Hub doesn't give them.
        """
        self.requests.read(
            lambda: self.api.snapshot_download(
                repo_id, revision=revision, local_dir=folder
            ),
            f"downloading {repo_id}",
        )

    # Repositories and their history

    def find_repo(self, repo_id: str) -> ModelInfo | None:
        """The Hub's description of a repository.

        Returns:
            None if it isn't there, or this token may not see it.

        Raises:
            PublishError: the Hub can't be asked.
        """
        try:
            return self._info(repo_id)
        except RequestError as error:
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError) and cause.response.status_code == 404:
                return None
            raise

    def refs(self, repo_id: str, *, pull_requests: bool = False) -> Refs:
        """Read a repository's branches and tags.

        Args:
            repo_id: organisation/name.
            pull_requests: whether to ask for the refs of pull requests too.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        listed = self.requests.read(
            lambda: self.api.list_repo_refs(
                repo_id, include_pull_requests=pull_requests
            ),
            f"reading refs of {repo_id}",
        )
        return Refs(
            branches={ref.name: ref.target_commit for ref in listed.branches},
            tags=frozenset(ref.name for ref in listed.tags),
            pull_requests={
                ref.ref: ref.target_commit for ref in listed.pull_requests or []
            },
        )

    def commit_of(self, repo_id: str, revision: str) -> str:
        """The commit that a branch or a tag stands for.

        Raises:
            PublishError: the Hub doesn't answer, or has no such revision.
        """
        return str(self._info(repo_id, revision).sha)

    def commits_since(
        self, repo_id: str, head: str | None, base: str | None
    ) -> list[str]:
        """Commits from head back to base, without base, newest first.

        Args:
            repo_id: organisation/name.
            head, base: commits; None where the branch has none.

        Returns:
            Only head, where base isn't among its ancestors.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        if head is None or head == base:
            return []
        listed = self.requests.read(
            lambda: self.api.list_repo_commits(repo_id, revision=head),
            f"reading history of {repo_id}",
        )
        commits = [commit.commit_id for commit in listed]
        return commits[: commits.index(base)] if base in commits else commits[:1]

    def open_pull_requests(self, repo_id: str, title: str) -> list[int]:
        """The numbers of the open pull requests of that title.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        listed = self.requests.read(
            lambda: list(
                self.api.get_repo_discussions(
                    repo_id, discussion_type="pull_request", discussion_status="open"
                )
            ),
            f"listing pull requests of {repo_id}",
        )
        return [found.num for found in listed if found.title == title]

    def _info(self, repo_id: str, revision: str | None = None) -> ModelInfo:
        return self.requests.read(
            lambda: self.api.model_info(repo_id, revision=revision),
            f"looking up {repo_id}",
        )
