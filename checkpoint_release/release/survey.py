"""What a Hub holds of a release, and what is left to publish."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from checkpoint_release.core.artifacts.release import (
    CARD,
    RELEASE,
    SUMS,
    Release,
    read_release,
)
from checkpoint_release.core.errors import ArtifactError, PublishError, first_few
from checkpoint_release.core.files import FileEntry
from checkpoint_release.release.conflicts import tag_conflict
from checkpoint_release.release.hub import Hub, Refs
from checkpoint_release.release.plan import (
    HUB_FILES,
    LocalFile,
    Plan,
    ReleaseCommit,
    RemoteFile,
    Survey,
    Target,
    make_plan,
)
from checkpoint_release.release.standing import is_same_build, standing_evidence

MAX_REPLACED = 5
"""How many of people's files a message names."""


def survey(hub: Hub, local: Mapping[str, LocalFile], target: Target) -> Survey:
    """Read what the Hub holds, and plan what is left to do.

    Args:
        hub: where to look.
        local: path in the release → file.
        target: where the release goes.

    Raises:
        PublishError: the version's tag is at other files, the repository has another
            name by now or another visibility than asked for, people's files would be
            replaced, or the Hub can't be asked.
    """
    repo = hub.find_repo(target.repo_id)
    if repo is None:
        return Survey(make_plan(local, {}), exists=False)
    _require_name(target, str(repo.id))
    _require_visibility(target, is_private=bool(repo.private))
    refs = hub.refs(target.repo_id, pull_requests=target.create_pr)
    looking = _Look(hub, local, target)
    if target.tag and target.tag in refs.tags:
        return looking.at_tag(target.tag)
    return looking.at_branch(refs)


def _require_name(target: Target, name: str) -> None:
    """Require that the repository has the name that it is asked by.

    A Hub leads on from a former name, which somebody else may take one day.

    Raises:
        PublishError: it hasn't.
    """
    if "/" in name and name != target.repo_id:
        raise PublishError(
            f"{target.repo_id} is called {name} on the Hub by now",
            f"set {{publish.repo_id}} to {name}",
            options=["publish.repo_id"],
        )


def _require_visibility(target: Target, *, is_private: bool) -> None:
    """Require that the repository is as private as it should be.

    Raises:
        PublishError: it isn't.
    """
    if is_private == target.private:
        return
    found, wanted = ("private", "public") if is_private else ("public", "private")
    value, other = ("false", "true") if is_private else ("true", "false")
    raise PublishError(
        f"{target.repo_id} is {found} and {{publish.private}} is {value}",
        f"make the repository {wanted} in its settings on the Hub, or set"
        f" {{publish.private}} to {other}",
        options=["publish.private"],
    )


@dataclass(frozen=True)
class _Look:
    """A look at a repository that exists."""

    hub: Hub
    local: Mapping[str, LocalFile]
    target: Target

    def at_tag(self, tag: str) -> Survey:
        """The state where the version is tagged already, also by a release that was
        built the same and measured on another machine.

        Raises:
            PublishError: its commit holds other files.
        """
        commit = self.hub.commit_of(self.target.repo_id, tag)
        remote = self.hub.files(self.target.repo_id, commit)
        owned = self._owned(remote, commit)
        plan = self._plan(remote, owned)
        standing: dict[str, FileEntry] = {}
        if not plan.empty:
            here = read_release(self.local[RELEASE].path.parent)
            there = self._release_at(commit) if RELEASE in remote else None
            if there is None or not is_same_build(here, there, plan):
                raise tag_conflict(self.target, commit, plan)
            repo_id = self.target.repo_id
            standing = standing_evidence(self.hub, repo_id, there, remote, commit)
            plan = Plan(unchanged=plan.unchanged)
        return Survey(
            plan,
            head=commit,
            branch_exists=True,
            release=ReleaseCommit(commit),
            tagged=True,
            remote=remote,
            owned=owned,
            standing=standing,
        )

    def at_branch(self, refs: Refs) -> Survey:
        """The state of the branch, or of main where it has still to be made.

        Raises:
            PublishError: people's files would be replaced.
        """
        head = refs.branches.get(self.target.revision, refs.branches.get("main"))
        if head is None:
            return Survey(make_plan(self.local, {}))
        remote = self.hub.files(self.target.repo_id, head)
        owned = self._owned(remote, head)
        plan = self._plan(remote, owned)
        _require_consent(self.target, plan, owned, has_release=RELEASE in remote)
        release = None
        if plan.empty:
            release = ReleaseCommit(head)
        elif self.target.create_pr:
            release = self._find_pull_request(refs, owned)
        return Survey(
            plan,
            head=head,
            branch_exists=self.target.revision in refs.branches,
            release=release,
            remote=remote,
            owned=owned,
        )

    def _plan(self, remote: Mapping[str, RemoteFile], owned: frozenset[str]) -> Plan:
        return make_plan(self.local, remote, self.target.kept, owned)

    def _owned(self, remote: Mapping[str, RemoteFile], revision: str) -> frozenset[str]:
        """The paths at a revision that aren't people's.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        owned: set[str] = set()
        if RELEASE in remote:
            owned |= self._released(remote, revision)
        for path in remote:
            if any(fnmatchcase(path, pattern) for pattern in self.target.deletable):
                owned.add(path)
        return frozenset(owned)

    def _released(
        self, remote: Mapping[str, RemoteFile], revision: str
    ) -> frozenset[str]:
        """The paths that the release at a revision put there.

        A release.json of another version of this pipeline may not be readable; then
        SHA256SUMS, whose form never changes, lists the same paths.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        release = self._release_at(revision)
        if release is not None:
            return frozenset(release.files) | release.unlisted
        if SUMS not in remote:
            return frozenset({RELEASE})
        sums = self.hub.content(self.target.repo_id, SUMS, revision)
        return frozenset({RELEASE, SUMS, *_summed_paths(sums)})

    def _release_at(self, revision: str) -> Release | None:
        """What release.json says at a revision; None: this version can't read it.

        Raises:
            PublishError: the Hub doesn't answer.
        """
        text = self.hub.content(self.target.repo_id, RELEASE, revision)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / RELEASE).write_bytes(text)
            try:
                return read_release(Path(folder))
            except ArtifactError:
                return None

    def _find_pull_request(
        self, refs: Refs, owned: frozenset[str]
    ) -> ReleaseCommit | None:
        """The open pull request of our title that holds exactly these files.

        Raises:
            PublishError: people closed the only one that does.
        """
        repo_id = self.target.repo_id
        closed = None
        for number, status in self.hub.pull_requests(
            repo_id, self.target.title
        ).items():
            head = refs.pull_requests.get(f"refs/pr/{number}")
            if head is None:
                continue
            remote = self.hub.files(repo_id, head)
            if not self._plan(remote, owned).empty:
                continue
            if status != "closed":
                return ReleaseCommit(head, number)
            closed = number
        if closed is not None:
            raise PublishError(
                f"people closed pull request {closed} of {repo_id}, which holds exactly"
                " this release, and didn't merge it",
                "open it again on the Hub, or release something else",
            )
        return None


def _summed_paths(sums: bytes) -> list[str]:
    """The paths of a SHA256SUMS: of each line, what follows the digest."""
    lines = sums.decode(errors="replace").splitlines()
    return [line.partition("  ")[2] for line in lines]


def _require_consent(
    target: Target, plan: Plan, owned: frozenset[str], *, has_release: bool
) -> None:
    """Replace none of people's files without their consent.

    Args:
        target: names what may go.
        plan: what would be done.
        owned: paths that aren't people's.
        has_release: whether a release of this pipeline is there.

    Raises:
        PublishError: another file than the card would be replaced.
    """
    may_change = owned | HUB_FILES | {CARD}
    replaced = [path for path in plan.changed if path not in may_change]
    if not replaced:
        return
    listed = first_few(replaced, MAX_REPLACED)
    if has_release:
        raise PublishError(
            f"{listed} of {target.repo_id} would be replaced, and no release put it"
            " there",
            "leave it out of {publish.extra}; or name in {publish.delete} what may be"
            " replaced",
            options=["publish.extra", "publish.delete"],
        )
    raise PublishError(
        f"{target.repo_id} holds no release, and {listed} of it would be replaced",
        "publish to another repository; or name in {publish.delete} what may go, as"
        " patterns such as '*'",
        options=["publish.delete"],
    )
