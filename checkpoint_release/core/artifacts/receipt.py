"""publish.json: the receipt of a publication, or the statement that there was none.

It is tracked by git and never cached, and speaks only of what happened.

.dvc/pull-request.yaml counts how often publish found its pull request open. Nothing of
the project changes when somebody merges it, so that DVC would never run publish again
to set the tag; but this number is in the stage's command, and DVC keeps the command
that it ran.
"""

from __future__ import annotations

from pathlib import Path

from checkpoint_release.core.artifacts.typed import Record, as_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.core.files import FileEntry, read_json, replace_file

RECEIPT = "publish.json"
LOOKS = ".dvc/pull-request.yaml"


class Checkout(Record, frozen=True, kw_only=True):
    """The git commit that the pipeline ran from, and whether its sources differed from
    it.
    """

    commit: str
    dirty: bool


class Statement(Record, frozen=True, kw_only=True, omit_defaults=False):
    """That a release was assembled and not published, and why."""

    published: bool = False
    reason: str
    files: dict[str, FileEntry]


class PublishedSpace(Record, frozen=True, kw_only=True):
    """The Space with the release's page, and the commit there that holds it."""

    repo: str
    commit: str


class Receipt(Record, frozen=True, kw_only=True, omit_defaults=False):
    """A publication that happened, or a pull request that was opened.

    Attributes:
        published: whether the branch holds the release; false while the pull request
            is open.
        changed: whether this run changed anything on the Hub.
        endpoint: the Hub's address, without credentials.
        repo: organisation/name.
        revision: the branch.
        commit: the commit on the Hub that holds the release.
        tag: the version's tag; None: none was asked for, or none is set yet.
        pull_request: address of the pull request; None: the branch itself was committed
            to.
        time: when, in UTC, as 2026-01-31T12:00:00Z.
        git: what the pipeline ran from; None: not a git checkout.
        files: path → size and sha256 of everything in the release.
        space: where its page is; None: none was asked for, or the pull request is open.
    """

    published: bool = True
    changed: bool
    endpoint: str
    repo: str
    revision: str
    commit: str
    tag: str | None
    pull_request: str | None
    time: str
    git: Checkout | None
    files: dict[str, FileEntry]
    space: PublishedSpace | None = None

    def says_the_same_as(self, other: Receipt) -> bool:
        """Whether both state the same about the Hub, whenever they were written.

        The time, what was changed, and the git commit that it was published from may
        differ: a repeated publication that finds nothing to do is no news.

        Args:
            other: the receipt of another run.
        """
        return all(getattr(self, name) == getattr(other, name) for name in _LASTING)


_LASTING = (
    *("endpoint", "repo", "revision", "commit", "tag", "pull_request", "files"),
    "space",
)


def last_receipt(artifacts: Path) -> Receipt | None:
    """The receipt of the last publication or pull request.

    Args:
        artifacts: the folder that holds publish.json.

    Returns:
        None where nothing went to a Hub, or the file is missing or can't be read.
    """
    path = artifacts / RECEIPT
    try:
        return as_record(read_json(path), Receipt, str(path))
    except ArtifactError:
        return None


def count_look(project: Path) -> None:
    """Count that a pull request is still open, so that DVC runs publish again.

    Args:
        project: the folder with dvc.yaml. Without a count there, nothing is done.
    """
    path = project / LOOKS
    if not path.is_file():
        return
    comments, number = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comments.append(line)
        elif "looks: " in line:
            digits = line.partition("looks: ")[2].rstrip("}")
            number = int(digits) if digits.isdecimal() else 0
    entry = f"pull_request: {{looks: {number + 1}}}"
    replace_file(path, "\n".join([*comments, entry, ""]).encode())
