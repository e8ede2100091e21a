"""Putting a folder on a Hub so that it cannot half happen. Knows nothing of stages or
releases.

The order is the safety: look what is there, make one commit on top of exactly that,
read back the hash of every file, and only then set the tag. A request that changes
something is never blindly sent again: when its answer is lost, the Hub is asked what
happened (`Hub._once`). The commit names its parent, so that even a first try that lands
late can't become a second commit.

Uploads go over plain HTTP (git LFS) unless HF_HUB_DISABLE_XET=0 is set: only there hold
our timeouts and limits.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import GitRefs, RepoFile
from huggingface_hub.utils._http import default_client_factory
from huggingface_hub.utils.tqdm import disable_progress_bars

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub_errors import (
    AGAIN,
    Circumstances,
    RequestError,
    asked_wait,
    explain,
    scrub,
)

T = TypeVar("T")

HUBS_OWN = frozenset({".gitattributes"})
"""Files that the Hub makes itself: neither compared nor deleted."""

LONGEST_WAIT = 60.0
"""Seconds of Retry-After that are waited out; a Hub that asks for more is left in
peace.
"""

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between tries."""


# What is compared


@dataclass(frozen=True)
class LocalFile:
    """A file to publish: where it lies, its size in bytes and its sha256."""

    path: Path
    size: int
    sha256: str

    @cached_property
    def blob_id(self) -> str:
        """The id that git gives it: sha1 over a header and the bytes."""
        digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def equals(self, remote: RemoteFile) -> bool:
        """Whether the Hub holds these bytes, by the strongest digest that it tells."""
        if self.size != remote.size:
            return False
        return (
            self.sha256 == remote.sha256
            if remote.sha256
            else self.blob_id == remote.blob_id
        )


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub: size in bytes, git blob id, and its sha256 if it is stored in
    LFS.
    """

    size: int
    blob_id: str
    sha256: str | None


@dataclass(frozen=True)
class Plan:
    """What publishing would do to each path."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    deleted: tuple[str, ...]
    unchanged: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether the Hub already holds exactly the release."""
        return not (self.added or self.changed or self.deleted)


def compare(local: Mapping[str, LocalFile], remote: Mapping[str, RemoteFile]) -> Plan:
    """What must be added, changed and deleted to make the remote side hold exactly the
    local one.
    """
    both = sorted(local.keys() & remote.keys())
    changed = tuple(path for path in both if not local[path].equals(remote[path]))
    return Plan(
        added=tuple(sorted(local.keys() - remote.keys())),
        changed=changed,
        deleted=tuple(sorted(remote.keys() - local.keys() - HUBS_OWN)),
        unchanged=tuple(path for path in both if path not in changed),
    )


@dataclass(frozen=True)
class Target:
    """Where a release goes.

    Attributes:
        repo_id: organisation/name.
        revision: the branch; made from main if it isn't there.
        private: visibility of a repository that is made; a public one that should be
            private is refused.
        tag: name of the version tag, or None.
        create_pr: open a pull request instead of committing to the branch.
        kept: paths that stay as people left them on the Hub, if they are there.
        title, description: of the commit.
    """

    repo_id: str
    revision: str = "main"
    private: bool = True
    tag: str | None = None
    create_pr: bool = False
    kept: frozenset[str] = frozenset()
    title: str = "Release"
    description: str = ""


@dataclass(frozen=True)
class Survey:
    """What a look at the Hub found.

    Attributes:
        plan: what is left to do.
        exists: whether the repository is there.
        head: the commit that the plan starts from; None where there is no repository.
        branch_exists: whether target.revision is there.
        holder: the commit that holds exactly the release, if one was found.
        tagged: whether target.tag is set (on `holder`).
        pull_request: number of the open pull request that holds the release, if that is
            where it is.
        remote: the files at `head`.
    """

    plan: Plan
    exists: bool
    head: str | None
    branch_exists: bool
    holder: str | None
    tagged: bool
    pull_request: int | None
    remote: Mapping[str, RemoteFile]


@dataclass(frozen=True)
class Published:
    """What is on the Hub now, every hash of it read back."""

    commit: str
    tag: str | None
    pull_request: str | None
    changed: bool


# Who and where


def find_token() -> str:
    """The token of the environment (HF_TOKEN) or of `hf auth login`.

    Raises:
        PublishError: there is none.
    """
    token = get_token()
    if not token:
        raise PublishError(
            "there is no token for the Hub",
            "set HF_TOKEN, or run `hf auth login`, with a token that may write to the"
            " repository",
        )
    return token


def default_endpoint() -> str:
    """The Hub's address: HF_ENDPOINT, or https://huggingface.co."""
    return constants.ENDPOINT


# The Hub


class Hub:
    """A Hub, spoken to with patience that ends.

    Args:
        endpoint: its address.
        token: whom to be.
        timeout: seconds that each step of a request (connect, send, receive) may take.
        sleep: waits between tries.
        say: tells of progress, a line at a time.
    """

    def __init__(
        self,
        endpoint: str,
        token: str | None,
        *,
        timeout: float = 120.0,
        sleep: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = print,
    ) -> None:
        self.endpoint, self.token, self.timeout = endpoint.rstrip("/"), token, timeout
        self.api = HfApi(endpoint=self.endpoint, token=token if token else False)
        self._sleep, self._say = sleep, say
        set_client_factory(self._client)
        disable_progress_bars()
        if "HF_HUB_DISABLE_XET" not in os.environ:
            constants.HF_HUB_DISABLE_XET = True
        for name in list(logging.root.manager.loggerDict):
            if name.startswith("huggingface_hub."):
                logging.getLogger(name).addFilter(self._scrub_record)

    def _client(self) -> httpx2.Client:
        """huggingface_hub's own client, with the timeouts that it lacks."""
        client = default_client_factory()
        hooks = client.event_hooks
        client.event_hooks = {
            "request": [*hooks["request"], self._bound_time],
            "response": [*hooks["response"], self._stop_endless_retries],
        }
        return client

    def _bound_time(self, request: httpx2.Request) -> None:
        """Set a limit to each step that has none; some of huggingface_hub's calls ask
        for none expressly.
        """
        limits = httpx2.Timeout(self.timeout, connect=min(self.timeout, 10.0)).as_dict()
        asked = request.extensions.get("timeout", {})
        request.extensions["timeout"] = {
            step: limit if asked.get(step) is None else min(asked[step], limit)
            for step, limit in limits.items()
        }

    def _stop_endless_retries(self, response: httpx2.Response) -> None:
        """Two answers that huggingface_hub would obey for longer than anybody waits."""
        if (
            response.status_code == 409
            and response.request.url.path == "/api/repos/create"
            and b"another conflicting operation" in response.read()
        ):
            raise RequestError(
                "creating the repository: the Hub is at it already (409)",
                AGAIN,
                transient=True,
            )
        wait = asked_wait(response)
        if (
            response.status_code in (429, 503)
            and wait is not None
            and wait > LONGEST_WAIT
        ):
            raise RequestError(
                f"the Hub asks to wait {wait:.0f} s before the next request (status"
                f" {response.status_code})",
                f"wait that long, then {AGAIN}",
                look=True,
            )

    def _scrub_record(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage(), self.token), None
        return True

    # Reading

    def files(self, repo_id: str, revision: str) -> dict[str, RemoteFile]:
        """Every file at a revision (a commit id, or a name)."""

        def read() -> dict[str, RemoteFile]:
            entries = self.api.list_repo_tree(
                repo_id, recursive=True, revision=revision
            )
            return {
                entry.path: RemoteFile(
                    entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None
                )
                for entry in entries
                if isinstance(entry, RepoFile)
            }

        return self._ask(read, f"listing {repo_id}")

    def digest(self, repo_id: str, path: str, revision: str) -> str:
        """The sha256 of one file's bytes, as they come from the Hub."""

        def read() -> str:
            with tempfile.TemporaryDirectory() as folder:
                file = self.api.hf_hub_download(
                    repo_id, path, revision=revision, local_dir=folder
                )
                return hashlib.sha256(Path(file).read_bytes()).hexdigest()

        return self._ask(read, f"reading {path} of {repo_id}")

    def download(self, repo_id: str, revision: str | None, folder: Path) -> None:
        """Fetch a repository's files into a folder, as anybody would."""
        self._ask(
            lambda: self.api.snapshot_download(
                repo_id, revision=revision, local_dir=folder
            ),
            f"downloading {repo_id}",
        )

    def survey(self, local: Mapping[str, LocalFile], target: Target) -> Survey:
        """Look what the Hub holds and plan what is left to do.

        Raises:
            PublishError: the version is taken by other files, the repository is public
                and shouldn't be, or the Hub can't be asked.
        """
        repo_id = target.repo_id
        repo = self._find(repo_id)
        if repo is None:
            return Survey(compare(local, {}), False, None, False, None, False, None, {})
        if target.private and repo.private is False:
            raise PublishError(
                f"{repo_id} is public and publish.private is true",
                "make the repository private in its settings on the Hub, or set"
                " publish.private to false",
            )
        refs = self._refs(repo_id, pull_requests=target.create_pr)
        if target.tag and target.tag in {tag.name for tag in refs.tags}:
            commit = self._commit_of(repo_id, target.tag)
            remote = self.files(repo_id, commit)
            plan = self._plan(local, remote, target)
            if not plan.empty:
                raise _taken(target, commit, plan)
            return Survey(plan, True, commit, True, commit, True, None, remote)
        branches = {branch.name: branch.target_commit for branch in refs.branches}
        head = branches.get(target.revision, branches.get("main"))
        remote = self.files(repo_id, head) if head else {}
        plan = self._plan(local, remote, target)
        holder, pull_request = (head if plan.empty else None), None
        if target.create_pr and holder is None:
            heads = {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
            pull_request = self._pull_request_holding(local, target, heads)
            holder = heads[f"refs/pr/{pull_request}"] if pull_request else None
        return Survey(
            plan,
            True,
            head,
            target.revision in branches,
            holder,
            False,
            pull_request,
            remote,
        )

    def _plan(
        self,
        local: Mapping[str, LocalFile],
        remote: Mapping[str, RemoteFile],
        target: Target,
    ) -> Plan:
        kept = target.kept & remote.keys()
        return compare(
            {path: file for path, file in local.items() if path not in kept},
            {path: file for path, file in remote.items() if path not in kept},
        )

    def _find(self, repo_id: str) -> Any | None:
        """What the Hub says of a repository; None if it isn't there (or this token may
        not see it).
        """
        try:
            return self._info(repo_id)
        except RequestError as trouble:
            if (
                isinstance(trouble.__cause__, HfHubHTTPError)
                and trouble.__cause__.response.status_code == 404
            ):
                return None
            raise

    def _info(self, repo_id: str, revision: str | None = None) -> Any:
        return self._ask(
            lambda: self.api.model_info(repo_id, revision=revision),
            f"looking at {repo_id}",
        )

    def _refs(self, repo_id: str, *, pull_requests: bool = False) -> GitRefs:
        return self._ask(
            lambda: self.api.list_repo_refs(
                repo_id, include_pull_requests=pull_requests
            ),
            f"reading refs of {repo_id}",
        )

    def _head(self, repo_id: str, branch: str) -> str | None:
        heads = {
            found.name: found.target_commit for found in self._refs(repo_id).branches
        }
        return heads.get(branch)

    def _commit_of(self, repo_id: str, revision: str) -> str:
        return str(self._info(repo_id, revision).sha)

    def _pull_request_holding(
        self, local: Mapping[str, LocalFile], target: Target, heads: Mapping[str, str]
    ) -> int | None:
        """The number of the open pull request of our title that holds exactly these
        files.
        """
        listed = self._ask(
            lambda: list(
                self.api.get_repo_discussions(
                    target.repo_id,
                    discussion_type="pull_request",
                    discussion_status="open",
                )
            ),
            f"listing pull requests of {target.repo_id}",
        )
        for found in listed:
            head = (
                heads.get(f"refs/pr/{found.num}")
                if found.title == target.title
                else None
            )
            if (
                head
                and self._plan(local, self.files(target.repo_id, head), target).empty
            ):
                return found.num
        return None

    # Writing

    def publish(
        self, local: Mapping[str, LocalFile], target: Target, survey: Survey
    ) -> Published:
        """Do what the survey found left to do: repository, branch, one commit, hashes
        read back, tag.

        Raises:
            PublishError: anything went wrong; what did happen is found by the next
                survey.
        """
        if not survey.exists:
            self._create_repo(target)
            survey = self.survey(local, target)
        if not survey.branch_exists and not target.create_pr and survey.head:
            self._create_branch(target, survey.head)
        commit, pull_request = survey.holder, survey.pull_request
        if commit is None and target.create_pr:
            commit, pull_request = self._open_pull_request(local, target, survey)
        elif commit is None:
            commit = self._commit(local, target, survey)
        if target.tag and not survey.tagged and pull_request is None:
            self._tag(local, target, target.tag, commit)
        url = (
            f"{self.endpoint}/{target.repo_id}/discussions/{pull_request}"
            if pull_request
            else None
        )
        return Published(
            commit,
            None if pull_request else target.tag,
            url,
            changed=survey.holder is None,
        )

    def _create_repo(self, target: Target) -> None:
        repo_id = target.repo_id
        self._say(
            f"creating {'private' if target.private else 'public'} repository {repo_id}"
        )
        self._once(
            f"creating {repo_id}",
            lambda: self.api.create_repo(repo_id, private=target.private),
            lambda: self._find(repo_id),
        )

    def _create_branch(self, target: Target, start: str) -> None:
        self._say(f"creating branch {target.revision}")
        self._once(
            f"creating branch {target.revision}",
            lambda: self.api.create_branch(
                target.repo_id, branch=target.revision, revision=start
            ),
            lambda: self._head(target.repo_id, target.revision),
        )

    def _commit(
        self, local: Mapping[str, LocalFile], target: Target, survey: Survey
    ) -> str:
        """One commit on top of the head that was surveyed; returns the commit that is
        found to hold the files.
        """
        made: list[str] = []

        def act() -> None:
            made.append(self._send(local, target, survey).oid)

        def look() -> str | None:
            repo_id, head = target.repo_id, self._head(target.repo_id, target.revision)
            candidates = made[-1:] or self._commits_since(repo_id, head, survey.head)
            for commit in candidates:
                plan = self._plan(local, self.files(repo_id, commit), target)
                if plan.empty:
                    return commit
                if made:
                    raise _lied(self.files(repo_id, commit), local, plan, commit)
            if head != survey.head:
                raise PublishError(
                    f"{target.revision} of {repo_id} moved from {_short(survey.head)}"
                    f" to {_short(head)} meanwhile, and that isn't this release",
                    "look at the commits on the Hub, then run publish again to plan"
                    " anew",
                )
            return None

        return self._once(f"committing to {target.repo_id}", act, look)

    def _open_pull_request(
        self, local: Mapping[str, LocalFile], target: Target, survey: Survey
    ) -> tuple[str, int]:
        made: list[Any] = []

        def look() -> tuple[str, int] | None:
            if made:
                plan = self._plan(
                    local, self.files(target.repo_id, made[-1].oid), target
                )
                if not plan.empty:
                    raise _lied(
                        self.files(target.repo_id, made[-1].oid),
                        local,
                        plan,
                        made[-1].oid,
                    )
                return made[-1].oid, made[-1].pr_num
            again = self.survey(local, target)
            return (
                (again.holder, again.pull_request)
                if again.holder and again.pull_request
                else None
            )

        return self._once(
            f"opening a pull request for {target.repo_id}",
            lambda: made.append(self._send(local, target, survey)),
            look,
        )

    def _send(
        self, local: Mapping[str, LocalFile], target: Target, survey: Survey
    ) -> Any:
        plan = survey.plan
        additions = [
            CommitOperationAdd(path, local[path].path)
            for path in (*plan.added, *plan.changed)
        ]
        deletions = [
            CommitOperationDelete(path, is_folder=False) for path in plan.deleted
        ]
        # known already; the client would read the files once more
        for addition in additions:
            addition.upload_info.sha256 = bytes.fromhex(
                local[addition.path_in_repo].sha256
            )
        size = sum(local[path].size for path in (*plan.added, *plan.changed))
        self._say(
            f"committing {len(additions)} files, {size:,} bytes, and {len(deletions)}"
            " deletions"
        )
        where: dict[str, Any] = {
            "revision": target.revision,
            "create_pr": target.create_pr,
        }
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # An empty .gitignore goes with the question: one that lies on the Hub would
            # drop files silently.
            self.api.preupload_lfs_files(
                target.repo_id,
                additions,
                gitignore_content="",
                free_memory=False,
                **where,
            )
            sent = self.api.create_commit(
                target.repo_id,
                [*additions, *deletions],
                commit_message=target.title,
                commit_description=target.description,
                parent_commit=survey.head,
                **where,
            )
        for warning in caught:
            if warning.category is UserWarning:
                self._say(f"warning: {scrub(str(warning.message), self.token)}")
        return sent

    def _commits_since(
        self, repo_id: str, head: str | None, base: str | None
    ) -> list[str]:
        """Commits from head back to (without) base; a lost answer's commit is among
        them, if it was made.
        """
        if head is None or head == base:
            return []
        listed = self._ask(
            lambda: self.api.list_repo_commits(repo_id, revision=head),
            f"reading history of {repo_id}",
        )
        commits = [commit.commit_id for commit in listed]
        return commits[: commits.index(base)] if base in commits else commits[:1]

    def _tag(
        self, local: Mapping[str, LocalFile], target: Target, tag: str, commit: str
    ) -> None:
        def there() -> bool | None:
            if tag not in {found.name for found in self._refs(target.repo_id).tags}:
                return None
            at = self._commit_of(target.repo_id, tag)
            if at != commit:
                raise _taken(
                    target,
                    at,
                    self._plan(local, self.files(target.repo_id, at), target),
                )
            return True

        self._say(f"tagging {_short(commit)} as {tag}")
        self._once(
            f"tagging {tag}",
            lambda: self.api.create_tag(target.repo_id, tag=tag, revision=commit),
            there,
        )

    # Patience

    def _ask(self, read: Callable[[], T], doing: str) -> T:
        """Read something, again after a trouble that may pass."""
        for wait in (*WAITS, None):
            try:
                return read()
            except Exception as error:
                trouble = self._trouble(error, doing)
                if not trouble.transient or wait is None:
                    raise trouble from error
                self._pause(trouble, wait)
        raise AssertionError("the last wait is None")

    def _once(
        self, doing: str, act: Callable[[], object], look: Callable[[], T | None]
    ) -> T:
        """Do something that must not happen twice: after every try, look whether it
        happened.

        Args:
            doing: what it is, for messages.
            act: the request that changes something.
            look: what came of it, or None if nothing did (yet).
        """
        acted = False
        for wait in (*WAITS, None):
            trouble: RequestError | None = None
            if not acted:
                try:
                    act()
                    acted = True
                except Exception as error:
                    trouble = self._trouble(error, doing)
                    trouble.__cause__ = error
            if trouble is None or trouble.look:
                found = look()
                if found is not None:
                    return found
            if wait is None or (trouble and not trouble.transient):
                raise trouble or RequestError(
                    f"{doing}: the Hub says that it is done, and doesn't show it", AGAIN
                )
            self._pause(trouble, wait)
        raise AssertionError("the last wait is None")

    def _pause(self, trouble: RequestError | None, wait: float) -> None:
        seconds = max(wait, trouble.wait or 0.0) if trouble else wait
        self._say(
            f"{trouble.problem if trouble else 'not there yet'}; trying again in"
            f" {seconds:g} s"
        )
        self._sleep(seconds)

    def _trouble(self, error: BaseException, doing: str) -> RequestError:
        return explain(
            error,
            doing,
            Circumstances(self.endpoint, self.token, self.timeout, self._who),
        )

    def _who(self) -> str:
        try:
            return f"the token of {self.api.whoami()['name']}"
        except Exception:
            # only to word a message: whatever goes wrong, there is another word for it
            return "this token"


def _short(commit: str | None) -> str:
    return commit[:12] if commit else "nothing"


def _few(paths: tuple[str, ...]) -> str:
    return ", ".join(paths[:3]) + (
        f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    )


def _taken(target: Target, commit: str, plan: Plan) -> PublishError:
    differing = (*plan.added, *plan.changed, *plan.deleted)
    what = (
        f"holds other files ({_few(differing)})" if differing else "is another commit"
    )
    return PublishError(
        f"{target.tag} of {target.repo_id} is already at {_short(commit)}, which"
        f" {what}; a version is never moved",
        "raise publish.version",
    )


def _lied(
    remote: Mapping[str, RemoteFile],
    local: Mapping[str, LocalFile],
    plan: Plan,
    commit: str,
) -> PublishError:
    differing = (*plan.added, *plan.changed, *plan.deleted)
    path = differing[0]
    sent = (
        f"{local[path].size} bytes, sha256 {local[path].sha256[:12]}…"
        if path in local
        else "not there"
    )
    there = remote.get(path)
    held = (
        f"{there.size} bytes, {(there.sha256 or there.blob_id)[:12]}…"
        if there
        else "not there"
    )
    return PublishError(
        f"the Hub does not hold what was sent: {_few(differing)} in commit"
        f" {_short(commit)} ({path}: {sent} was sent, {held} is held); the version was"
        " not tagged",
        "run publish again; if it stays so, tell those who run the Hub",
    )
