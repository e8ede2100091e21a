"""What a Hub holds: repositories, branches, tags, files and their digests."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from huggingface_hub import ModelInfo, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import GitRefs, RepoFile

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub_errors import RequestError, scrub, tag_conflict
from checkpoint_release.release.plan import (
    LocalFile,
    ReleaseCommit,
    RemoteFile,
    Survey,
    Target,
    make_plan,
)
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
        PublishError: there is none.
    """
    token = stored_token()
    if not token:
        raise PublishError(
            "there is no token for the Hub",
            "set HF_TOKEN, or run `hf auth login`, with a token that may write to the"
            " repository",
        )
    return token


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
        """Every file at a revision (a commit id, or a name)."""

        def read() -> dict[str, RemoteFile]:
            entries = self.api.list_repo_tree(
                repo_id, recursive=True, revision=revision
            )
            files = {}
            for entry in entries:
                if isinstance(entry, RepoFile):
                    sha256 = entry.lfs.sha256 if entry.lfs else None
                    files[entry.path] = RemoteFile(entry.size, entry.blob_id, sha256)
            return files

        return self.requests.read(read, f"listing {repo_id}")

    def digest(self, repo_id: str, path: str, revision: str) -> str:
        """The sha256 of one file's bytes, as they come from the Hub."""

        def read() -> str:
            with tempfile.TemporaryDirectory() as folder:
                file = self.api.hf_hub_download(
                    repo_id, path, revision=revision, local_dir=folder
                )
                return hashlib.sha256(Path(file).read_bytes()).hexdigest()

        return self.requests.read(read, f"reading {path} of {repo_id}")

    def download(self, repo_id: str, revision: str | None, folder: Path) -> None:
        """Download a repository's files into a folder."""

        def read() -> None:
            self.api.snapshot_download(repo_id, revision=revision, local_dir=folder)

        self.requests.read(read, f"downloading {repo_id}")

    # Repositories and their refs

    def find_repo(self, repo_id: str) -> ModelInfo | None:
        """The Hub's description of a repository; None if it isn't there (or this token
        may not see it).
        """
        try:
            return self._info(repo_id)
        except RequestError as error:
            cause = error.__cause__
            if isinstance(cause, HfHubHTTPError) and cause.response.status_code == 404:
                return None
            raise

    def refs(self, repo_id: str, *, pull_requests: bool = False) -> GitRefs:
        """Branches, tags, and if asked the refs of pull requests."""

        def read() -> GitRefs:
            return self.api.list_repo_refs(repo_id, include_pull_requests=pull_requests)

        return self.requests.read(read, f"reading refs of {repo_id}")

    def head(self, repo_id: str, branch: str) -> str | None:
        """The commit of a branch; None if there is no such branch."""
        return branch_heads(self.refs(repo_id)).get(branch)

    def has_tag(self, repo_id: str, tag: str) -> bool:
        """Whether the repository has a tag."""
        return tag in tag_names(self.refs(repo_id))

    def commit_of(self, repo_id: str, revision: str) -> str:
        """The commit that a branch or a tag stands for."""
        return str(self._info(repo_id, revision).sha)

    def commits_since(
        self, repo_id: str, head: str | None, base: str | None
    ) -> list[str]:
        """Commits from head back to base, without base, newest first."""
        if head is None or head == base:
            return []

        def read() -> list[str]:
            commits = self.api.list_repo_commits(repo_id, revision=head)
            return [commit.commit_id for commit in commits]

        commits = self.requests.read(read, f"reading history of {repo_id}")
        if base in commits:
            return commits[: commits.index(base)]
        return commits[:1]

    def open_pull_requests(self, repo_id: str, title: str) -> list[int]:
        """The numbers of the open pull requests of that title."""

        def read() -> list[int]:
            discussions = self.api.get_repo_discussions(
                repo_id, discussion_type="pull_request", discussion_status="open"
            )
            return [found.num for found in discussions if found.title == title]

        return self.requests.read(read, f"listing pull requests of {repo_id}")

    def _info(self, repo_id: str, revision: str | None = None) -> ModelInfo:
        def read() -> ModelInfo:
            return self.api.model_info(repo_id, revision=revision)

        return self.requests.read(read, f"looking up {repo_id}")

    # What is left to publish

    def survey(self, local: Mapping[str, LocalFile], target: Target) -> Survey:
        """Read what the Hub holds, and plan what is left to do.

        Raises:
            PublishError: the version's tag is at other files, the repository is public
                and shouldn't be, or the Hub can't be asked.
        """
        repo = self.find_repo(target.repo_id)
        if repo is None:
            return Survey(make_plan(local, {}), exists=False)
        if target.private and repo.private is False:
            raise PublishError(
                f"{target.repo_id} is public and {{publish.private}} is true",
                "make the repository private in its settings on the Hub, or set"
                " {publish.private} to false",
                options=["publish.private"],
            )
        refs = self.refs(target.repo_id, pull_requests=target.create_pr)
        if target.tag and target.tag in tag_names(refs):
            return self._survey_tag(local, target, target.tag)
        return self._survey_branch(local, target, refs)

    def _survey_tag(
        self, local: Mapping[str, LocalFile], target: Target, tag: str
    ) -> Survey:
        commit = self.commit_of(target.repo_id, tag)
        remote = self.files(target.repo_id, commit)
        plan = make_plan(local, remote, target.kept)
        if not plan.empty:
            raise tag_conflict(target, commit, plan)
        return Survey(
            plan,
            head=commit,
            branch_exists=True,
            release=ReleaseCommit(commit),
            tagged=True,
            remote=remote,
        )

    def _survey_branch(
        self, local: Mapping[str, LocalFile], target: Target, refs: GitRefs
    ) -> Survey:
        heads = branch_heads(refs)
        head = heads.get(target.revision, heads.get("main"))
        remote = self.files(target.repo_id, head) if head else {}
        plan = make_plan(local, remote, target.kept)
        release = None
        if head and plan.empty:
            release = ReleaseCommit(head)
        elif target.create_pr:
            release = self._find_pull_request(local, target, refs)
        return Survey(
            plan,
            head=head,
            branch_exists=target.revision in heads,
            release=release,
            remote=remote,
        )

    def _find_pull_request(
        self, local: Mapping[str, LocalFile], target: Target, refs: GitRefs
    ) -> ReleaseCommit | None:
        """The open pull request of our title that holds exactly these files."""
        heads = {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
        for number in self.open_pull_requests(target.repo_id, target.title):
            head = heads.get(f"refs/pr/{number}")
            if head is None:
                continue
            remote = self.files(target.repo_id, head)
            if make_plan(local, remote, target.kept).empty:
                return ReleaseCommit(head, number)
        return None


def branch_heads(refs: GitRefs) -> dict[str, str]:
    """Name of each branch → its commit."""
    return {branch.name: branch.target_commit for branch in refs.branches}


def tag_names(refs: GitRefs) -> set[str]:
    """The names of all tags."""
    return {tag.name for tag in refs.tags}
