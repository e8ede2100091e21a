"""Putting a release on a Hub so that it never is there in part.

The order makes it safe: see what is there, make one commit on top of exactly that, read
back the hash of every file, and only then set the tag. The commit names its parent, so
that even a first try that arrives late can't become a second commit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.conflicts import content_mismatch, short, tag_conflict
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.hub_errors import scrub
from checkpoint_release.release.plan import (
    LocalFile,
    Plan,
    Published,
    ReleaseCommit,
    RemoteFile,
    Survey,
    Target,
    make_plan,
)
from checkpoint_release.release.survey import survey as look_again
from checkpoint_release.release.transfer import chooses_xet, sending


def publish(
    hub: Hub, local: Mapping[str, LocalFile], target: Target, survey: Survey
) -> Published:
    """Do what the survey found left to do: repository, branch, one commit, hashes read
    back, tag.

    Args:
        hub: where to.
        local: path in the release → file.
        target: where on the Hub.
        survey: what is there; the commit is made on top of exactly that.

    Returns:
        Where the release is now.

    Raises:
        PublishError: something failed; the next survey finds what did happen.
    """
    if not survey.exists:
        _create_repo(hub, target)
        survey = look_again(hub, local, target)
    return _Upload(hub, local, target, survey).run()


def _create_repo(hub: Hub, target: Target) -> None:
    """Create the repository, unless somebody else does meanwhile."""
    visibility = "private" if target.private else "public"
    what = "repository" if hub.kind == "model" else "Space"
    hub.requests.report(f"creating {visibility} {what} {target.repo_id}")
    hub.requests.change(
        lambda: hub.api.create_repo(
            target.repo_id,
            private=target.private,
            repo_type=hub.kind,
            space_sdk="static" if hub.kind == "space" else None,
        ),
        lambda: hub.find_repo(target.repo_id),
        f"creating {target.repo_id}",
    )


@dataclass(frozen=True)
class _Upload:
    """One publication to a repository that exists."""

    hub: Hub
    local: Mapping[str, LocalFile]
    target: Target
    survey: Survey

    def run(self) -> Published:
        """Branch, commit and tag, as far as they aren't there."""
        self._ensure_branch()
        release = self.survey.release or self._commit_release()
        changed = self.survey.release is None
        if release.pull_request is not None:
            repository = f"{self.hub.endpoint}/{self.target.repo_id}"
            return Published(
                release.id,
                tag=None,
                pull_request=f"{repository}/discussions/{release.pull_request}",
                changed=changed,
            )
        self._ensure_tag(release.id)
        return Published(
            release.id, tag=self.target.tag, pull_request=None, changed=changed
        )

    def _plan(self, remote: Mapping[str, RemoteFile]) -> Plan:
        """How a commit differs from what this one should hold."""
        return make_plan(self.local, remote, self.target.kept, self.survey.owned)

    def _ensure_branch(self) -> None:
        """Create the branch from the surveyed head, if it isn't there."""
        start = self.survey.head
        if self.survey.branch_exists or self.target.create_pr or start is None:
            return
        repo_id, branch = self.target.repo_id, self.target.revision
        self.hub.requests.report(f"creating branch {branch}")
        self.hub.requests.change(
            lambda: self.hub.api.create_branch(
                repo_id, branch=branch, revision=start, repo_type=self.hub.kind
            ),
            lambda: self.hub.refs(repo_id).branches.get(branch),
            f"creating branch {branch}",
        )

    def _commit_release(self) -> ReleaseCommit:
        """Make one commit on top of the head that was surveyed, or open a pull request
        with it.
        """
        sent: list[CommitInfo] = []

        def find_commit() -> ReleaseCommit | None:
            if sent:
                return self._read_back(sent[-1])
            if self.target.create_pr:
                return self._find_unconfirmed_pull_request()
            return self._find_unconfirmed_commit()

        doing = "committing to"
        if self.target.create_pr:
            doing = "opening a pull request for"
        return self.hub.requests.change(
            lambda: sent.append(self._send()),
            find_commit,
            f"{doing} {self.target.repo_id}",
        )

    def _read_back(self, sent: CommitInfo) -> ReleaseCommit:
        """Compare every hash of the commit that the Hub confirmed.

        Raises:
            PublishError: the Hub holds something else than what was sent.
        """
        remote = self.hub.files(self.target.repo_id, sent.oid)
        plan = self._plan(remote)
        if not plan.empty:
            raise content_mismatch(self.local, remote, plan, sent.oid)
        return ReleaseCommit(sent.oid, sent.pr_num)

    def _find_unconfirmed_commit(self) -> ReleaseCommit | None:
        """The commit whose confirmation was lost, if it was made.

        Raises:
            PublishError: the branch moved by other commits.
        """
        repo_id = self.target.repo_id
        base = self.survey.head
        head = self.hub.refs(repo_id).branches.get(self.target.revision)
        for commit in self.hub.commits_since(repo_id, head, base):
            remote = self.hub.files(repo_id, commit)
            if self._plan(remote).empty:
                return ReleaseCommit(commit)
        if head != base:
            raise PublishError(
                f"{self.target.revision} of {repo_id} moved from {short(base)} to"
                f" {short(head)} meanwhile, and that isn't this release",
                "look at the commits on the Hub, then run publish again to make a new"
                " plan",
            )
        return None

    def _find_unconfirmed_pull_request(self) -> ReleaseCommit | None:
        """The pull request whose confirmation was lost, if it was opened."""
        release = look_again(self.hub, self.local, self.target).release
        if release is None or release.pull_request is None:
            return None
        return release

    def _send(self) -> CommitInfo:
        """Upload what differs, and make one commit of it.

        A warning of the Hub, such as one about the card, is reported.
        """
        plan = self.survey.plan
        additions = [self._addition(path) for path in plan.uploaded]
        deletions = [
            CommitOperationDelete(path, is_folder=False) for path in plan.deleted
        ]
        size = sum(self.local[path].size for path in plan.uploaded)
        self.hub.requests.report(
            f"committing {len(additions)} files, {size:,} bytes, and {len(deletions)}"
            " deletions"
        )
        by_xet = chooses_xet(self.hub, self.target)
        with (
            warnings.catch_warnings(record=True) as caught,
            sending(by_xet=by_xet),
        ):
            warnings.simplefilter("always")
            # An empty .gitignore goes with the question: one that lies on the Hub would
            # drop files silently.
            self.hub.api.preupload_lfs_files(
                self.target.repo_id,
                additions,
                revision=self.target.revision,
                create_pr=self.target.create_pr,
                gitignore_content="",
                free_memory=False,
                repo_type=self.hub.kind,
            )
            sent = self.hub.api.create_commit(
                self.target.repo_id,
                [*additions, *deletions],
                commit_message=self.target.title,
                commit_description=self.target.description,
                revision=self.target.revision,
                create_pr=self.target.create_pr,
                parent_commit=self.survey.head,
                repo_type=self.hub.kind,
            )
        self._report_warnings(caught)
        return sent

    def _addition(self, path: str) -> CommitOperationAdd:
        file = self.local[path]
        addition = CommitOperationAdd(path, file.path)
        # known already; the client would read the files once more
        addition.upload_info.sha256 = bytes.fromhex(file.sha256)
        return addition

    def _report_warnings(self, caught: list[warnings.WarningMessage]) -> None:
        requests = self.hub.requests
        for warning in caught:
            if warning.category is UserWarning:
                message = scrub(str(warning.message), requests.token)
                requests.report(f"warning: {message}")

    def _ensure_tag(self, commit: str) -> None:
        """Set the version's tag on a commit, if there is to be one.

        Raises:
            PublishError: it is set on another commit.
        """
        repo_id, tag = self.target.repo_id, self.target.tag
        if tag is None or self.survey.tagged:
            return
        self.hub.requests.report(f"tagging {short(commit)} as {tag}")
        self.hub.requests.change(
            lambda: self.hub.api.create_tag(repo_id, tag=tag, revision=commit),
            lambda: self._find_tag(tag, commit),
            f"tagging {tag}",
        )

    def _find_tag(self, tag: str, commit: str) -> str | None:
        """The commit of the tag, if it is set.

        Raises:
            PublishError: it is set on another commit.
        """
        repo_id = self.target.repo_id
        if tag not in self.hub.refs(repo_id).tags:
            return None
        tagged = self.hub.commit_of(repo_id, tag)
        if tagged != commit:
            remote = self.hub.files(repo_id, tagged)
            raise tag_conflict(self.target, tagged, self._plan(remote))
        return tagged
