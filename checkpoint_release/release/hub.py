"""What a Hub holds: repositories, branches, tags, files and their digests."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from huggingface_hub import ModelInfo, SpaceInfo, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub_errors import RequestError, scrub
from checkpoint_release.release.plan import RemoteFile, Target
from checkpoint_release.release.requests import PATIENCE, Requests
from checkpoint_release.release.tokens import TokenSource


def default_endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return constants.ENDPOINT


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


def _status(error: RequestError) -> int | None:
    """The status that the Hub answered with; None: there was no answer."""
    cause = error.__cause__
    if isinstance(cause, HfHubHTTPError):
        return int(cause.response.status_code)
    return None


class Hub:
    """A Hub to read from; `upload.publish` writes to it.

    Attributes:
        kind: of the repositories that it is asked about.

    Args:
        endpoint: its address.
        token: whose rights to use, or what gives the token before each request; None:
            anonymous.
        timeout: seconds that each step of a request (connect, send, receive) may take.
        patience: seconds that the Hub is waited for in all, when it asks for it.
        sleep: waits between tries.
        report: takes a line about progress.

    Raises:
        PublishError: there is no token.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | TokenSource | None,
        *,
        timeout: float = 120.0,
        patience: float = PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
        report: Callable[[str], None] = print,
    ) -> None:
        self.requests = Requests(
            endpoint,
            token,
            timeout=timeout,
            patience=patience,
            sleep=sleep,
            report=report,
        )
        self.api = self.requests.api
        self.endpoint = self.requests.endpoint
        self.kind: Literal["model", "space"] = "model"

    def of_spaces(self) -> Hub:
        """The same Hub, asked about Spaces."""
        hub = copy.copy(self)
        hub.kind = "space"
        return hub

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
                repo_id, recursive=True, revision=revision, repo_type=self.kind
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
                    repo_id,
                    path,
                    revision=revision,
                    local_dir=folder,
                    repo_type=self.kind,
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

    # Who asks, and what the Hub thinks of a card

    @property
    def repository(self) -> str | None:
        """The only one that the tokens are for; None: they are for whatever their owner
        may do.
        """
        return self.requests.repository

    def who(self) -> dict[str, Any]:
        """Whose token it is and what it may do, as the Hub states it; asked once.

        Returns:
            Empty, where the Hub doesn't answer this.

        Raises:
            PublishError: the Hub can't be asked, or doesn't accept the token.
        """
        try:
            found: dict[str, Any] = self.requests.read(
                lambda: self.api.whoami(cache=True), "looking up the token"
            )
        except RequestError as error:
            if _status(error) in (404, 501):
                return {}
            raise
        return found

    def card_errors(self, card: str) -> list[str]:
        """What the Hub finds wrong with a card's front matter.

        Args:
            card: README.md.

        Returns:
            Empty, where the Hub takes it, or doesn't answer this.

        Raises:
            PublishError: the Hub can't be asked.
        """

        def validate() -> list[str]:
            answer = get_session().post(
                f"{self.endpoint}/api/validate-yaml",
                json={"content": card, "repoType": self.kind},
                headers=build_hf_headers(token=self.requests.token or False),
            )
            if answer.status_code != 400:
                hf_raise_for_status(answer)
            errors = answer.json().get("errors", [])
            return [str(error.get("message")) for error in errors]

        try:
            return self.requests.read(validate, "checking the card")
        except RequestError as error:
            if _status(error) in (404, 501):
                return []
            raise

    def speaks_xet(self, target: Target) -> bool:
        """Whether a repository's large files may be uploaded by Xet.

        Raises:
            PublishError: the Hub doesn't answer, or this token may not upload.
        """
        revision = quote(target.revision, safe="")
        query = "?create_pr=1" if target.create_pr else ""
        address = f"{self.endpoint}/api/{self.kind}s/{target.repo_id}/xet-write-token"

        def ask() -> bool:
            answer = get_session().get(
                f"{address}/{revision}{query}",
                headers=build_hf_headers(token=self.requests.token or False),
            )
            hf_raise_for_status(answer)
            return True

        try:
            return self.requests.read(ask, f"asking for Xet at {target.repo_id}")
        except RequestError as error:
            if _status(error) in (404, 501):
                return False
            raise

    # Repositories and their history

    def find_repo(self, repo_id: str) -> ModelInfo | SpaceInfo | None:
        """The Hub's description of a repository.

        Returns:
            None if it isn't there, or this token may not see it.

        Raises:
            PublishError: the Hub can't be asked.
        """
        try:
            return self._info(repo_id)
        except RequestError as error:
            if _status(error) == 404:
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
                repo_id, include_pull_requests=pull_requests, repo_type=self.kind
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
            lambda: self.api.list_repo_commits(
                repo_id, revision=head, repo_type=self.kind
            ),
            f"reading history of {repo_id}",
        )
        commits = [commit.commit_id for commit in listed]
        return commits[: commits.index(base)] if base in commits else commits[:1]

    def pull_requests(self, repo_id: str, title: str) -> dict[int, str]:
        """The pull requests of that title that weren't merged.

        Returns:
            Number → open, draft or closed.

        Raises:
            PublishError: the Hub doesn't answer, or the repository takes none.
        """
        try:
            # A draft is open, and yet isn't listed among the open ones.
            listed = self.requests.read(
                lambda: list(
                    self.api.get_repo_discussions(
                        repo_id,
                        discussion_type="pull_request",
                        discussion_status="all",
                    )
                ),
                f"listing pull requests of {repo_id}",
            )
        except RequestError as error:
            if _status(error) in (403, 501) and "disabled" in error.problem:
                raise PublishError(
                    f"{repo_id} takes no pull requests: they are disabled in its"
                    " settings",
                    "enable them there, or set {publish.create_pr} to false",
                    options=["publish.create_pr"],
                ) from None
            raise
        unmerged = ("open", "draft", "closed")
        return {
            found.num: str(found.status)
            for found in listed
            if found.title == title and found.status in unmerged
        }

    def _info(self, repo_id: str, revision: str | None = None) -> ModelInfo | SpaceInfo:
        look_up = self.api.space_info if self.kind == "space" else self.api.model_info
        return self.requests.read(
            lambda: look_up(repo_id, revision=revision), f"looking up {repo_id}"
        )
