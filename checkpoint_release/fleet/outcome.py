"""What goes to a worker, and what comes back: a job, and what was built or went wrong.

All of it is a few kilobytes of JSON; the artifacts go to the DVC remote.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from checkpoint_release.core.artifacts.receipt import Receipt
from checkpoint_release.core.artifacts.typed import Record
from checkpoint_release.core.files import FileEntry
from checkpoint_release.fleet.checkpoints import Checkpoint
from checkpoint_release.fleet.points import Point


class Earlier(Record, frozen=True, kw_only=True):
    """What git keeps of a point that was built before, so that DVC skips what is still
    right.

    Attributes:
        lock, parity, statement, benchmark: texts of dvc.lock, parity.json, publish.json
            and benchmark.json.
    """

    lock: str
    parity: str
    statement: str
    benchmark: str = ""


class Job(Record, frozen=True, kw_only=True):
    """A member to build.

    Attributes:
        name: of the member.
        key: that states all that decides what is built.
        repository: folder or address that the commit is fetched from.
        commit: of the pipeline.
        folder: the project's in the repository, with a slash at its end; "" for the
            repository's own.
        root: the project's folder on the coordinator, which relative paths of
            checkpoints are below.
        checkpoint: what is released.
        points: of the matrix, in order.
        remote: name of the DVC remote.
        remotes: name → options of the DVC remotes.
        earlier: point's name → an earlier build of it.
        pins: whether the installed libraries must be those of constraints.txt.
    """

    name: str
    key: str
    repository: str
    commit: str
    folder: str
    root: str
    checkpoint: Checkpoint
    points: list[Point]
    remote: str
    remotes: dict[str, dict[str, str]]
    earlier: dict[str, Earlier] = msgspec.field(default_factory=dict)
    pins: bool = True


class PointBuilt(Record, frozen=True, kw_only=True):
    """One point of a member, released.

    Attributes:
        name: of the point.
        overrides: dotted key → value over the project's parameters.
        params, lock, parity, statement, benchmark: texts of params.yaml, dvc.lock,
            parity.json, publish.json and benchmark.json.
        release: sha256 of release.json.
        built: digest of all files that don't depend on the machine.
        files: path in the release → size and sha256.
        formats: the names of the formats in the release.
        limits: format → worst error as a share of what is allowed.
        training: what the checkpoint states about its training.
        values: number of values of the weights.
        ran: the stages whose commands ran, rather than being skipped.
        seconds: that `dvc repro` took.
    """

    name: str
    overrides: dict[str, Any]
    params: str
    lock: str
    parity: str
    statement: str
    release: str
    built: str
    files: dict[str, FileEntry]
    formats: list[str]
    limits: dict[str, float]
    training: dict[str, Any]
    values: int
    ran: list[str]
    seconds: float
    benchmark: str = ""

    @property
    def earlier(self) -> Earlier:
        """What a later build of it starts from."""
        return Earlier(
            lock=self.lock,
            parity=self.parity,
            statement=self.statement,
            benchmark=self.benchmark,
        )


class Publication(Record, frozen=True, kw_only=True):
    """A publication of one point.

    Attributes:
        target: repository, branch and tag, as one text.
        release: sha256 of release.json as the point's worker made it; the one on the
            Hub also lists what was brought in from there.
        receipt: what happened on the Hub.
    """

    target: str
    release: str
    receipt: Receipt


class Built(Record, frozen=True, kw_only=True):
    """A member that was built: member.json.

    Attributes:
        name, key, commit, checkpoint: as of its job.
        points: in the matrix' order.
        host: that it was built on.
        seconds: that all of it took there.
        publications: that happened, one for each target.
    """

    name: str
    key: str
    commit: str
    checkpoint: Checkpoint
    points: list[PointBuilt]
    host: str
    seconds: float
    publications: list[Publication] = msgspec.field(default_factory=list)

    def with_publication(self, target: str, release: str, receipt: Receipt) -> Built:
        """The same member with a publication on record.

        Args:
            target: where it went; an earlier publication there is replaced.
            release: as Publication has it.
            receipt: what happened on the Hub.
        """
        others = [each for each in self.publications if each.target != target]
        made = Publication(target=target, release=release, receipt=receipt)
        return msgspec.structs.replace(self, publications=[*others, made])


class Failed(Record, frozen=True, kw_only=True):
    """A member that wasn't built.

    Attributes:
        name, key: of the member.
        cause: "member" where the checkpoint or the parameters are at fault, so that
            another try would end the same; "host" where a machine, a network or a
            server is.
        stage: that failed; "" where it was none.
        message: what is wrong, for people.
        log: the last lines of output.
        host: that it failed on.
    """

    name: str
    key: str
    cause: Literal["member", "host"]
    stage: str
    message: str
    log: list[str]
    host: str


class Outcome(Record, frozen=True, kw_only=True):
    """What came of a job: exactly one of the two."""

    built: Built | None = None
    failed: Failed | None = None

    @property
    def name(self) -> str:
        """Of the member."""
        found = self.built or self.failed
        return found.name if found else ""
