"""What a Hub holds: repositories, branches, tags, files and their digests."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import ModelInfo, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from checkpoint_release.core.artifacts.release import CARD, RELEASE, read_release
from checkpoint_release.core.errors import ArtifactError, PublishError, first_few
from checkpoint_release.release.hub_errors import RequestError, scrub, tag_conflict
from checkpoint_release.release.plan import (
    LocalFile,
    Plan,
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

    def digest(self, repo_id: str, path: str, revision: str) -> str:
        """The sha256 of one file's bytes, as they come from the Hub.

        Raises:
            PublishError: the Hub doesn't answer, or has no such file.
        """

        def digest_file() -> str:
            with tempfile.TemporaryDirectory() as folder:
                file = self.api.hf_hub_download(
                    repo_id, path, revision=revision, local_dir=folder
                )
                return hashlib.sha256(Path(file).read_bytes()).hexdigest()

        return self.requests.read(digest_file, f"reading {path} of {repo_id}")

    def _owned(
        self, target: Target, remote: Mapping[str, RemoteFile], revision: str
    ) -> frozenset[str]:
        """The paths at a revision that aren't people's.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        owned: set[str] = set()
        if RELEASE in remote:
            owned |= self._released_files(target.repo_id, revision)
        for path in remote:
            if any(fnmatchcase(path, pattern) for pattern in target.deletable):
                owned.add(path)
        return frozenset(owned)

    def _released_files(self, repo_id: str, revision: str) -> frozenset[str]:
        """The paths that the release at a revision put there.

        Returns:
            Of a release.json that can't be read, its own path alone.

        Raises:
            PublishError: the Hub doesn't answer.
        """

        def read() -> frozenset[str]:
            with tempfile.TemporaryDirectory() as folder:
                self.api.hf_hub_download(
                    repo_id, RELEASE, revision=revision, local_dir=folder
                )
                try:
                    release = read_release(Path(folder))
                except ArtifactError:
                    return frozenset({RELEASE})
            return frozenset(release.files) | release.unlisted

        return self.requests.read(read, f"reading {RELEASE} of {repo_id}")

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

    # What is left to publish

    def survey(self, local: Mapping[str, LocalFile], target: Target) -> Survey:
        """Read what the Hub holds, and plan what is left to do.

        Args:
            local: path in the release → file.
            target: where the release goes.

        Raises:
            PublishError: the version's tag is at other files, the repository is public
                and shouldn't be, or the Hub can't be asked.
        """
        repo = self.find_repo(target.repo_id)
        if repo is None:
            return Survey(make_plan(local, {}), exists=False)
        if repo.private and not target.private:
            raise PublishError(
                f"{target.repo_id} is private and {{publish.private}} is false",
                "make the repository public in its settings on the Hub, or set"
                " {publish.private} to true",
                options=["publish.private"],
            )
        if target.private and repo.private is False:
            raise PublishError(
                f"{target.repo_id} is public and {{publish.private}} is true",
                "make the repository private in its settings on the Hub, or set"
                " {publish.private} to false",
                options=["publish.private"],
            )
        refs = self.refs(target.repo_id, pull_requests=target.create_pr)
        if target.tag and target.tag in refs.tags:
            return self._survey_tag(local, target, target.tag)
        return self._survey_branch(local, target, refs)

    def _survey_tag(
        self, local: Mapping[str, LocalFile], target: Target, tag: str
    ) -> Survey:
        commit = self.commit_of(target.repo_id, tag)
        remote = self.files(target.repo_id, commit)
        owned = self._owned(target, remote, commit)
        plan = make_plan(local, remote, target.kept, owned)
        if not plan.empty:
            raise tag_conflict(target, commit, plan)
        return Survey(
            plan,
            head=commit,
            branch_exists=True,
            release=ReleaseCommit(commit),
            tagged=True,
            remote=remote,
            owned=owned,
        )

    def _survey_branch(
        self, local: Mapping[str, LocalFile], target: Target, refs: Refs
    ) -> Survey:
        head = refs.branches.get(target.revision, refs.branches.get("main"))
        if head is None:
            return Survey(make_plan(local, {}))
        remote = self.files(target.repo_id, head)
        owned = self._owned(target, remote, head)
        plan = make_plan(local, remote, target.kept, owned)
        if RELEASE not in remote:
            _require_consent(target, plan, owned)
        release = None
        if plan.empty:
            release = ReleaseCommit(head)
        elif target.create_pr:
            release = self._find_pull_request(local, target, refs, owned)
        return Survey(
            plan,
            head=head,
            branch_exists=target.revision in refs.branches,
            release=release,
            remote=remote,
            owned=owned,
        )

    def _find_pull_request(
        self,
        local: Mapping[str, LocalFile],
        target: Target,
        refs: Refs,
        owned: frozenset[str],
    ) -> ReleaseCommit | None:
        """The open pull request of our title that holds exactly these files."""
        for number in self.open_pull_requests(target.repo_id, target.title):
            head = refs.pull_requests.get(f"refs/pr/{number}")
            if head is None:
                continue
            remote = self.files(target.repo_id, head)
            if make_plan(local, remote, target.kept, owned).empty:
                return ReleaseCommit(head, number)
        return None


def _require_consent(target: Target, plan: Plan, owned: frozenset[str]) -> None:
    """Replace nothing of a repository that is people's own without their consent.

    Args:
        target: names what may go.
        plan: what would be done.
        owned: paths that may go.

    Raises:
        PublishError: another file than the card would be replaced.
    """
    replaced = [path for path in plan.changed if path not in owned | {CARD}]
    if replaced:
        raise PublishError(
            f"{target.repo_id} holds no release, and {first_few(replaced, 5)} of it"
            " would be replaced",
            "publish to another repository; or name in {publish.delete} what may go, as"
            " patterns such as '*'",
            options=["publish.delete"],
        )
