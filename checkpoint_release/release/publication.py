"""One publication: what is published, where to, whether it may be, and its receipt."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoint_release.core.artifacts.manifest import digests
from checkpoint_release.core.artifacts.receipt import (
    RECEIPT,
    Checkout,
    PublishedSpace,
    Receipt,
    Statement,
    last_receipt,
)
from checkpoint_release.core.artifacts.release import CARD, RELEASE, read_release
from checkpoint_release.core.errors import PublishError, first_few
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.core.params import PublishParams
from checkpoint_release.core.text import printable
from checkpoint_release.release.plan import LocalFile, Published, Survey, Target

if TYPE_CHECKING:  # with it comes the Hub's whole client
    from checkpoint_release.release.hub import Hub


MAX_PEOPLE_FILES = 8
"""How many are listed."""


@dataclass(frozen=True)
class AssembledRelease:
    """A release's folder, and what is in it.

    Attributes:
        folder: which assembling wrote.
        files: path in the release → size and sha256, of every file.
    """

    folder: Path
    files: Mapping[str, FileEntry]

    @classmethod
    def open(cls, folder: Path) -> AssembledRelease:
        """Digest the folder; what its release.json lists isn't read again.

        Raises:
            ArtifactError: release.json is missing, or can't be read.
        """
        return cls(folder, digests(folder, read_release(folder).files))

    @property
    def evidence(self) -> set[str]:
        """The paths of what differs between machines, and of what lists it."""
        release = read_release(self.folder)
        return {*release.evidence.files, *release.unlisted}

    def as_published(self, survey: Survey) -> dict[str, FileEntry]:
        """The files that the Hub holds once the release is published, as `files`.

        Args:
            survey: names the evidence that stands there.
        """
        if not survey.standing:
            return dict(self.files)
        evidence = self.evidence
        same = {
            path: entry for path, entry in self.files.items() if path not in evidence
        }
        return same | dict(survey.standing)

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(entry.size for entry in self.files.values())

    @property
    def local_files(self) -> dict[str, LocalFile]:
        """Path in the release → the file, as it is compared with a Hub's."""
        return {
            name: LocalFile(self.folder / name, entry.size, entry.sha256)
            for name, entry in self.files.items()
        }


def make_target(
    params: PublishParams,
    repo_id: str,
    release: AssembledRelease,
    checkout: Checkout | None,
    notes: str = "",
) -> Target:
    """Where the release goes, and how its commit is described.

    Args:
        params: what was asked for.
        repo_id: organisation/name.
        release: what goes there.
        checkout: the sources that it was made from; the commit's description names
            them.
        notes: what changed since the version before, for the commit's description.

    Returns:
        A target whose commit is titled by the version, or by the first 12 digits of
        release.json's sha256 where none is stated.
    """
    name = params.version or sha256(release.folder / RELEASE)[:12]
    paragraphs = [notes] if notes else []
    if checkout:
        changes = " with changes" if checkout.dirty else ""
        paragraphs.append(f"Made from git commit {checkout.commit}{changes}")
    return Target(
        repo_id=repo_id,
        revision=params.revision,
        private=params.private,
        tag=params.version,
        create_pr=params.create_pr,
        kept=frozenset({CARD}) if params.card == "keep" else frozenset(),
        deletable=tuple(params.delete),
        title=f"Release {name}",
        description="\n\n".join(paragraphs),
        transfer=params.transfer,
    )


def previous_receipt(artifacts: Path, address: str, repo_id: str) -> Receipt | None:
    """The receipt of the last publication, if it was to this repository.

    Args:
        artifacts: the folder that holds the receipt.
        address: the Hub's, without credentials.
        repo_id: organisation/name.

    Returns:
        None, if nothing was published yet, or the last release went elsewhere.
    """
    receipt = last_receipt(artifacts)
    if receipt is None or (receipt.endpoint, receipt.repo) != (address, repo_id):
        return None
    return receipt


def require_new_version(
    previous: Receipt | None,
    target: Target,
    files: Mapping[str, FileEntry],
    evidence: Collection[str] = (),
) -> None:
    """Make sure that a published version isn't published again with other files, even
    if its tag is gone from the Hub.

    Args:
        previous: the receipt of the last publication to this repository.
        target: has the version as its tag.
        files: path in the release → size and sha256.
        evidence: the paths that may differ, of a version that is still on the Hub.

    Raises:
        PublishError: the receipt lists other files.
    """
    if previous is None or target.tag is None or previous.tag != target.tag:
        return
    paths = (previous.files.keys() | files.keys()) - set(evidence)
    if any(previous.files.get(path) != files.get(path) for path in paths):
        raise PublishError(
            f"{target.tag} of {target.repo_id} was published as commit"
            f" {previous.commit[:12]} with other files",
            f"raise {{publish.version}} (or remove the receipt {RECEIPT}, if that"
            " publication no longer counts)",
            options=["publish.version"],
        )


# The plan, as it is printed


def print_plan(
    hub: Hub,
    survey: Survey,
    target: Target,
    files: Mapping[str, FileEntry],
    previous: Receipt | None,
) -> None:
    """Print what publishing will do to every path, before anything is done.

    Args:
        hub: where the release goes; it is asked whether people edited the card.
        survey: what is there.
        target: where on the Hub.
        files: path in the release → size and sha256.
        previous: the last receipt from here.

    Raises:
        PublishError: the Hub can't be asked.
    """
    version = f", version {target.tag}" if target.tag else ""
    print(
        f"plan for {target.repo_id} at {hub.address}, branch"
        f" {target.revision}{version}:"
    )
    if not survey.exists:
        print(f"  create the repository ({'private' if target.private else 'public'})")
    for line in [*_changes(survey, files), *_notes(survey, target)]:
        print(f"  {line}")
    if _card_was_edited(hub, survey, target, previous):
        print(f"  note: {CARD} was edited on the Hub since it was published")


def _card_was_edited(
    hub: Hub, survey: Survey, target: Target, previous: Receipt | None
) -> bool:
    """Whether people edited the card on the Hub since it was published.

    Args:
        hub: is asked for the card, if the receipt can be compared with it.
        survey: what is on the Hub, and what publishing would change there.
        target: where on the Hub.
        previous: the last receipt from here.

    Raises:
        PublishError: the Hub can't be asked.
    """
    if survey.head is None or CARD not in survey.plan.changed:
        return False
    if previous is None or CARD not in previous.files:
        return False
    current = hub.content(target.repo_id, CARD, survey.head)
    return hashlib.sha256(current).hexdigest() != previous.files[CARD].sha256


def _changes(survey: Survey, files: Mapping[str, FileEntry]) -> Iterator[str]:
    """What happens to each path, one line each, and how many stay.

    Args:
        survey: has the plan, and the sizes on the Hub.
        files: path in the release → size and sha256.
    """
    plan = survey.plan
    for name in plan.added:
        yield f"add    {printable(name)} ({files[name].size:,} bytes)"
    for name in plan.changed:
        sizes = f"{survey.remote[name].size:,} to {files[name].size:,} bytes"
        yield f"change {printable(name)} ({sizes})"
    for name in plan.deleted:
        yield f"delete {printable(name)} ({survey.remote[name].size:,} bytes)"
    line = f"{len(plan.unchanged)} files unchanged"
    yield f"{line}; nothing to upload" if plan.empty else line


def _notes(survey: Survey, target: Target) -> Iterator[str]:
    """What a reader of the plan wouldn't expect, one line each.

    Args:
        survey: what is on the Hub.
        target: where on the Hub, and which of its files are kept.
    """
    if survey.people_files:
        listed = first_few(survey.people_files, MAX_PEOPLE_FILES)
        yield f"keep   {listed}, which no release put there"
    kept = target.kept & survey.remote.keys()
    if kept:
        yield (
            f"keep   {', '.join(sorted(kept))} as it is on the Hub (publish.card is"
            " keep)"
        )
    if survey.standing:
        yield (
            f"{target.tag} was built the same, byte for byte, on another machine or"
            " with other packages: what was published with it stands"
        )
    if survey.release and survey.release.pull_request:
        yield f"pull request {survey.release.pull_request} already holds this release"
    is_merged = survey.release is not None and survey.release.pull_request is None
    if target.create_pr and target.tag and not is_merged:
        yield f"no tag yet: {target.tag} is set when the pull request is merged"


# The receipt


def make_receipt(
    published: Published,
    target: Target,
    address: str,
    files: Mapping[str, FileEntry],
    checkout: Checkout | None,
    space: PublishedSpace | None = None,
) -> Receipt:
    """The receipt of a publication, or of a pull request, that is there now.

    Args:
        published: what the Hub holds now.
        target: where the release went.
        address: the Hub's, without credentials.
        files: path in the release → size and sha256.
        checkout: the sources that it was made from.
        space: where its page is; None: nowhere.
    """
    return Receipt(
        published=published.pull_request is None,
        changed=published.changed,
        endpoint=address,
        repo=target.repo_id,
        revision=target.revision,
        commit=published.commit,
        tag=published.tag,
        pull_request=published.pull_request,
        time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        git=checkout,
        files=dict(files),
        space=space,
    )


def write_receipt(artifacts: Path, receipt: Receipt | Statement) -> None:
    """Write publish.json, whole or not at all.

    Args:
        artifacts: the folder that holds the receipt.
        receipt: of a publication, or why there was none.

    Raises:
        PublishError: it can't be written.
    """
    path = artifacts / RECEIPT
    try:
        receipt.write(path)
    except OSError as error:
        raise PublishError(
            f"{path} can't be written: {error.strerror or error}",
            "make room on the disk or check it, then publish again: that finds what the"
            " Hub holds and records it",
        ) from None


def page_of(receipt: Receipt) -> str:
    """The address at which people find what was published."""
    if receipt.pull_request:
        return receipt.pull_request
    return f"{receipt.endpoint}/{receipt.repo}/tree/{receipt.tag or receipt.revision}"


def outcome(receipt: Receipt, target: Target) -> str:
    """What a receipt states, and where people find it, as one line.

    Args:
        receipt: of a publication, or of a pull request.
        target: where it went; has the version.
    """
    if receipt.pull_request:
        tagged = f"tags it as {target.tag}" if target.tag else "records it"
        return (
            f"pull request open: {page_of(receipt)}; the next `dvc repro` after it"
            f" is merged {tagged}"
        )
    if receipt.changed:
        return f"published: {page_of(receipt)}"
    return f"the Hub already holds exactly this release: {page_of(receipt)}"
