"""The versions of a release that a Hub holds, and what is new since the last."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from checkpoint_release.core.artifacts.release import (
    CARD,
    CHANGES,
    RELEASE,
    Release,
)
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.text import printable
from checkpoint_release.release.comparison import compare
from checkpoint_release.release.earlier_signatures import SIGNED
from checkpoint_release.release.hub import Hub, Refs
from checkpoint_release.release.notes import notes
from checkpoint_release.release.peoples_fields import peoples_fields
from checkpoint_release.release.versions import previous_version
from checkpoint_release.release.view import ReleaseView, view_on_hub

_HEADING = "# Changelog\n\n"


@dataclass(frozen=True)
class Since:
    """What changed since an earlier release.

    Attributes:
        text: for people, as Markdown.
        older: the changes up to that release, as its CHANGELOG.md has them without its
            heading; empty where it has none.
    """

    text: str
    older: str


def changelog(title: str, since: str, older: str = "") -> str:
    """The text of a release's CHANGELOG.md.

    Args:
        title: of the release, such as its version.
        since: what changed since the one before.
        older: the changes before, without a heading.
    """
    section = f"## {title}\n\n{since}\n"
    return _HEADING + "\n".join(filter(None, [section, older]))


@dataclass
class History:
    """What a repository on a Hub holds of earlier versions.

    Attributes:
        hub: where it is.
        repo_id: organisation/name.
        branch: that is published to.
        version: that is to be published; None: it has none.
        dropped: front matter of the card there that shall go.
        report: takes a line about what is kept, or can't be done.
        notes: what changed since the version before; empty until `changes` was called,
            and where there is no such version.
    """

    hub: Hub
    repo_id: str
    branch: str
    version: str | None
    dropped: Collection[str] = ()
    report: Callable[[str], None] = print
    notes: str = field(default="", init=False)

    def card_fields(self, card: str) -> dict[str, Any]:
        """The front matter that people added to the card on the Hub.

        Args:
            card: that replaces it.

        Raises:
            PublishError: the Hub can't be asked.
        """
        refs = self._refs
        if refs is None:
            return {}
        revision = self._current_in(refs)
        if CARD not in self.hub.files(self.repo_id, revision):
            return {}
        there = self.hub.content(self.repo_id, CARD, revision)
        fields = peoples_fields(card, there.decode(errors="replace"), self.dropped)
        if fields:
            listed = ", ".join(printable(name) for name in fields)
            self.report(f"kept of the card on the Hub: {listed}")
        return fields

    def changes(self, folder: Path, release: Release) -> str | None:
        """Note what changed, and make the text of the release's CHANGELOG.md.

        A version that is published already keeps the one that it has. A release without
        a version has none: published again it would be compared with itself, and be
        another one.

        Args:
            folder: in which the release is made.
            release: its description, without that file.

        Returns:
            None where there is no version, it is the first, or people have such a
            file.

        Raises:
            PublishError: the Hub can't be asked.
        """
        refs = self._refs
        if refs is None:
            return None
        if self.version in refs.tags:
            return self._text_of(self.version)
        branch = self._branch_in(refs)
        if self.version is None:
            since = self._since(branch, ReleaseView("this release", release, folder))
            self.notes = since.text if since else ""
            return None
        before = previous_version(self.version, refs.tags)
        if before is None:
            return None
        since = self._since(before, ReleaseView(self.version, release, folder))
        if since is None:
            return None
        self.notes = since.text
        if self._is_of_people(branch):
            return None
        return changelog(self.version, since.text, since.older)

    def signed_files(self) -> list[bytes]:
        """The files that hold signatures, of the version where it is published, or of
        the branch.

        Raises:
            PublishError: the Hub can't be asked.
        """
        refs = self._refs
        if refs is None:
            return []
        revision = self._current_in(refs)
        files = self.hub.files(self.repo_id, revision)
        there = sorted(files.keys() & set(SIGNED))
        return [self.hub.content(self.repo_id, path, revision) for path in there]

    @property
    def has_branch(self) -> bool:
        """Whether the branch that is published to is there.

        Raises:
            PublishError: the Hub can't be asked.
        """
        return self._refs is not None and self.branch in self._refs.branches

    @cached_property
    def _refs(self) -> Refs | None:
        """The repository's branches and tags; None: it isn't there."""
        if self.hub.find_repo(self.repo_id) is None:
            return None
        return self.hub.refs(self.repo_id)

    def _current_in(self, refs: Refs) -> str:
        """The version, where it is published already; else the branch."""
        return self.version if self.version in refs.tags else self._branch_in(refs)

    def _branch_in(self, refs: Refs) -> str:
        """The branch that is published to, or main, which it will be made from."""
        return self.branch if self.branch in refs.branches else "main"

    def _since(
        self, before: str, new: ReleaseView, name: str | None = None
    ) -> Since | None:
        """What changed since a revision.

        Args:
            before: of the Hub.
            new: the release that is made.
            name: what to call the revision; None: what it is called.

        Returns:
            None where there is no release, or another version of this pipeline made it.

        Raises:
            PublishError: the Hub can't be asked.
        """
        if RELEASE not in self.hub.files(self.repo_id, before):
            return None
        try:
            with view_on_hub(self.hub, self.repo_id, before) as old:
                text = f"Since {name or before}:\n\n{notes(compare(old, new))}"
                return Since(text, old.text(CHANGES).removeprefix(_HEADING))
        except ArtifactError as error:
            self.report(f"no release notes: {error.problem}")
            return None

    def _text_of(self, tag: str) -> str | None:
        """The CHANGELOG.md of a version, where it is of the release."""
        files = self.hub.files(self.repo_id, tag)
        if RELEASE not in files or CHANGES not in files:
            return None
        try:
            with view_on_hub(self.hub, self.repo_id, tag) as published:
                return published.text(CHANGES) or None
        except ArtifactError:
            return None

    def _is_of_people(self, branch: str) -> bool:
        """Whether a branch holds a CHANGELOG.md that no release put there."""
        files = self.hub.files(self.repo_id, branch)
        if CHANGES not in files:
            return False
        if RELEASE not in files:
            return True
        try:
            with view_on_hub(self.hub, self.repo_id, branch) as current:
                return CHANGES not in current.release.files
        except ArtifactError:
            return True
