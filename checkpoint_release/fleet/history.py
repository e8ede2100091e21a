"""What a Hub holds of the releases before a member's, and what is new since them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checkpoint_release.core.artifacts.attestation import RECORD
from checkpoint_release.core.artifacts.release import (
    CARD,
    CHANGES,
    RELEASE,
    Release,
)
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry
from checkpoint_release.core.params import is_version
from checkpoint_release.fleet.plan import Target
from checkpoint_release.release.history import History, changelog
from checkpoint_release.release.hub import Refs
from checkpoint_release.release.versions import previous_version
from checkpoint_release.release.view import ReleaseView, view_on_hub

_OF_THE_PUBLICATION = frozenset({CARD, CHANGES, RECORD})
"""Files in which a release on the Hub may differ from what its worker made."""


@dataclass
class MemberHistory(History):
    """What a repository holds of the releases before a member's.

    Attributes:
        earlier: where the members before it went, the nearest first.
    """

    earlier: Sequence[Target] = ()

    def changes(self, folder: Path, release: Release) -> str | None:
        """Note what changed, and make the text of the release's CHANGELOG.md.

        The notes say what changed since what the branch held, or, where it is new,
        since the release before. CHANGELOG.md says the latter, and of versions also
        what changed before. A release that the Hub holds already keeps the file that it
        has: what came before it may have become more since.

        Args:
            folder: in which the release is made.
            release: its description, without that file.

        Returns:
            None where no release came before, or people have such a file.

        Raises:
            PublishError: the Hub can't be asked.
        """
        refs = self._refs
        if refs is None:
            return None
        published = self._text_as_published(refs, release)
        if published:
            return published
        title = self.version or self.branch
        new = ReleaseView(title, release, folder)
        if self.has_branch:
            replaced = self._since(self.branch, new)
            self.notes = replaced.text if replaced else ""
        before = self._before(refs)
        since = self._since(before.revision, new, before.name) if before else None
        if before is None or since is None:
            return None
        self.notes = self.notes or since.text
        if self._is_of_people(self._branch_in(refs)):
            return None
        return changelog(title, since.text, since.older if before.is_version else "")

    def _text_as_published(self, refs: Refs, release: Release) -> str | None:
        """What the Hub has in CHANGELOG.md beside this very release, if it has it."""
        current = self._current_in(refs)
        return self._text_of(current) if self._holds(current, release) else None

    def _holds(self, revision: str, release: Release) -> bool:
        """Whether a revision is this release already, as it is published."""
        if RELEASE not in self.hub.files(self.repo_id, revision):
            return False
        try:
            with view_on_hub(self.hub, self.repo_id, revision) as there:
                return _as_made(there.release) == _as_made(release)
        except ArtifactError:
            return False

    def _before(self, refs: Refs) -> _Before | None:
        """The release before: of the member before, or else by the order of versions.

        A member that isn't on the Hub, because it failed, is passed over.
        """
        for target in self.earlier:
            is_there = target.branch in refs.branches
            if is_there and RELEASE in self.hub.files(self.repo_id, target.branch):
                name = target.tag or target.branch
                return _Before(target.branch, name, is_version=False)
        if self.version is not None and is_version(self.version):
            tag = previous_version(self.version, refs.tags)
            if tag is not None:
                return _Before(tag, tag, is_version=True)
        return None


@dataclass(frozen=True)
class _Before:
    """The release before: its revision on the Hub, what to call it, and whether the
    order of versions says so.
    """

    revision: str
    name: str
    is_version: bool


def _as_made(release: Release) -> dict[str, FileEntry]:
    """The files of a release that its worker decides."""
    files = release.files
    return {name: files[name] for name in files.keys() - _OF_THE_PUBLICATION}
