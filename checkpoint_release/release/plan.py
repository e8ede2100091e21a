"""What publishing works with: files here and on the Hub, where they go, what is there
already, and what is left to do.

These are values; nothing here talks to a Hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from checkpoint_release.core.files import FileEntry

HUB_FILES = frozenset({".gitattributes"})
"""Files that the Hub creates itself: neither compared nor deleted."""


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
        """Whether the Hub holds these bytes, by the strongest digest that it gives."""
        if self.size != remote.size:
            return False
        if remote.sha256:
            return self.sha256 == remote.sha256
        return self.blob_id == remote.blob_id


@dataclass(frozen=True)
class RemoteFile:
    """A file on the Hub: size in bytes, git blob id, and its sha256 if it is stored in
    LFS.
    """

    size: int
    blob_id: str
    sha256: str | None


@dataclass(frozen=True)
class Target:
    """Where a release goes.

    Attributes:
        repo_id: organisation/name.
        revision: the branch; created from main if it isn't there.
        private: visibility of a repository that is created; a public one that should be
            private is refused.
        tag: name of the version tag, or None.
        create_pr: open a pull request instead of committing to the branch.
        kept: paths that stay as people left them on the Hub, if they are there.
        deletable: patterns of people's files that may go, or be replaced in a
            repository that holds no release; `*` also stands for slashes.
        title, description: of the commit.
        transfer: how the bytes of large files go; auto: by Xet where the Hub has it.
    """

    repo_id: str
    revision: str = "main"
    private: bool = True
    tag: str | None = None
    create_pr: bool = False
    kept: frozenset[str] = frozenset()
    deletable: tuple[str, ...] = ()
    title: str = "Release"
    description: str = ""
    transfer: Literal["lfs", "xet", "auto"] = "lfs"


@dataclass(frozen=True)
class Plan:
    """What publishing would do to each path."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the Hub already holds exactly the release."""
        return not self.differing

    @property
    def uploaded(self) -> tuple[str, ...]:
        """The paths whose content goes to the Hub."""
        return self.added + self.changed

    @property
    def differing(self) -> tuple[str, ...]:
        """The paths that are not on the Hub as they are in the release."""
        return self.added + self.changed + self.deleted


def make_plan(
    local: Mapping[str, LocalFile],
    remote: Mapping[str, RemoteFile],
    kept: frozenset[str] = frozenset(),
    owned: Collection[str] = (),
) -> Plan:
    """What must be added, changed and deleted so that the Hub holds the local files,
    and of the release before them nothing else. People's files stay.

    Args:
        local: path in the release → file.
        remote: path on the Hub → file.
        kept: paths that are left alone where the Hub has them.
        owned: paths that may be deleted: of the release before.
    """
    left_alone = kept & remote.keys()
    wanted = local.keys() - left_alone
    present = remote.keys() - left_alone
    common = wanted & present
    unchanged = {path for path in common if local[path].equals(remote[path])}
    return Plan(
        added=tuple(sorted(wanted - present)),
        changed=tuple(sorted(common - unchanged)),
        deleted=tuple(sorted((present & set(owned)) - wanted - HUB_FILES)),
        unchanged=tuple(sorted(unchanged)),
    )


@dataclass(frozen=True)
class ReleaseCommit:
    """A commit on the Hub that holds exactly the release.

    Attributes:
        id: of the commit.
        pull_request: number of the open pull request, if that is where it is.
    """

    id: str
    pull_request: int | None = None


@dataclass(frozen=True)
class Survey:
    """The state of the Hub, as it was found.

    Attributes:
        plan: what is left to do.
        exists: whether the repository is there.
        head: the commit that the plan starts from; None where there is none.
        branch_exists: whether target.revision is there.
        release: the commit that holds exactly the release, if one was found.
        tagged: whether target.tag is set (on `release`).
        remote: the files at `head`.
        owned: paths there that aren't people's: of the release that is there, and those
            that target.deletable names.
        standing: path → size and digest of the evidence at the tag, where the same
            release was published from another machine: it stands.
    """

    plan: Plan
    exists: bool = True
    head: str | None = None
    branch_exists: bool = False
    release: ReleaseCommit | None = None
    tagged: bool = False
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)
    owned: frozenset[str] = frozenset()
    standing: Mapping[str, FileEntry] = field(default_factory=dict)

    def complete(self, target: Target) -> bool:
        """Whether nothing is left to do: the release is there, and tagged if it should
        be.
        """
        is_there = self.release is not None and self.branch_exists
        return is_there and (self.tagged or target.tag is None)

    @property
    def people_files(self) -> list[str]:
        """The paths that stay, because no release put them there."""
        touched = {*self.plan.differing, *self.plan.unchanged, *HUB_FILES}
        return sorted(self.remote.keys() - touched - self.owned)


@dataclass(frozen=True)
class Published:
    """What is on the Hub now, every hash of it read back.

    Attributes:
        commit: the commit that holds the release.
        tag: the version's tag, or None where none is set.
        pull_request: address of the pull request, if that is where it is.
        changed: whether anything had to be committed.
    """

    commit: str
    tag: str | None
    pull_request: str | None
    changed: bool
