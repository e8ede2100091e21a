"""The plan of a fleet: its members, what is done and what is left to do."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from checkpoint_release.core.errors import ArtifactError, ParamsError
from checkpoint_release.core.params import Branch, Repository, value_problem
from checkpoint_release.fleet.checkpoints import Checkpoint, identity
from checkpoint_release.fleet.outcome import Built, Job
from checkpoint_release.fleet.patterns import fill
from checkpoint_release.fleet.points import Point, merged, points_of, require_valid
from checkpoint_release.fleet.project import Project
from checkpoint_release.fleet.refs import MemberRef, member_refs, read_members
from checkpoint_release.fleet.sources import find_checkpoints
from checkpoint_release.fleet.spec import FLEET, REMEDY, FleetSpec, PublishSpec

State = Literal["done", "stale", "new"]
Digest = str
_SHOWN = 12  # digits of a key for people


@dataclass(frozen=True)
class Target:
    """Where one release goes on the Hub; its text is what a receipt is kept under."""

    repository: str
    branch: str
    tag: str | None
    private: bool

    @property
    def text(self) -> str:
        """Repository, branch and tag."""
        tag = f" tag {self.tag}" if self.tag else ""
        return f"{self.repository} branch {self.branch}{tag}"

    @property
    def address(self) -> str:
        """What the card's examples name, as card.address has it."""
        return f"{self.repository}@{self.tag or self.branch}"

    def require_valid(self) -> None:
        """Require names that a Hub takes.

        Raises:
            ParamsError: one isn't.
        """
        names = {
            "repository": (self.repository, Repository),
            "branch": (self.branch, Branch),
            "tag": (self.tag, Branch | None),
        }
        for option, (name, kind) in names.items():
            problem = value_problem(kind, name, f"{FLEET}: publish.{option}")
            if problem:
                raise ParamsError(problem, REMEDY)


@dataclass(frozen=True)
class Member:
    """One checkpoint of a fleet, with all its points.

    Attributes:
        name: unique in the fleet, and part of a ref.
        key: digest over the pipeline, the parameters, the pins and the checkpoint.
        checkpoint: what is released.
        state: whether it was built with this key, with another, or never.
        targets: where each point goes; empty where nothing is published.
    """

    name: str
    key: str
    checkpoint: Checkpoint
    state: State
    targets: tuple[Target, ...] = ()


@dataclass(frozen=True)
class FleetPlan:
    """What a fleet consists of, and how far it is.

    Attributes:
        spec: fleet.yaml.
        project: that it is of.
        points: of the matrix.
        members: in the order of the sources.
        refs: name → ref of every member that was ever built.
    """

    spec: FleetSpec
    project: Project
    points: list[Point]
    members: list[Member]
    refs: Mapping[str, MemberRef]

    @property
    def todo(self) -> list[Member]:
        """The members that are new or stale."""
        return [member for member in self.members if member.state != "done"]

    @property
    def gone(self) -> list[str]:
        """The names of refs whose checkpoints fleet.yaml no longer names."""
        return sorted(self.refs.keys() - {member.name for member in self.members})

    @property
    def counts(self) -> dict[str, int]:
        """How many members are done, stale and new."""
        counted = Counter(member.state for member in self.members)
        return {state: counted[state] for state in get_args(State)}

    @cached_property
    def _by_key(self) -> dict[str, Member]:
        return {member.key: member for member in self.members}

    def member(self, text: str) -> Member:
        """The member of a name, a key, or the first digits of one.

        Raises:
            ParamsError: there is none, or several keys begin so.
        """
        exact = self._by_key.get(text)
        found = [exact] if exact else [m for m in self.members if m.name == text]
        if not found and len(text) >= 6:
            found = [m for m in self.members if m.key.startswith(text)]
        if len(found) != 1:
            problem = "is no member" if not found else "begins several keys"
            raise ParamsError(
                f"{text} {problem} of the fleet {self.spec.name} as it is planned now",
                "run `checkpoint-release fleet plan`, which lists names and keys",
            )
        return found[0]

    def job(self, member: Member, *, private: bool = True) -> Job:
        """What a worker needs to build a member.

        Args:
            member: to build.
            private: whether the worker is on this machine, and may have the
                credentials of .dvc/config.local.

        Raises:
            ArtifactError: the project has no DVC remote, or an earlier result can't be
                read.
        """
        remote, remotes = self._remotes(private)
        ref = self.refs.get(member.name)
        earlier = {}
        if ref is not None:
            for built in read_members(self.project.root, [ref.commit]):
                earlier = {point.name: point.earlier for point in built.points}
        points = [point.filled(member.checkpoint.values) for point in self.points]
        if member.targets:
            points = [
                point.published_to(target.address)
                for point, target in zip(points, member.targets, strict=True)
            ]
        return Job(
            name=member.name,
            key=member.key,
            repository=self.spec.repository or str(self.project.repository),
            commit=self.project.commit,
            folder=self.project.folder,
            root=str(self.project.root),
            checkpoint=member.checkpoint,
            points=points,
            remote=remote,
            remotes=remotes,
            earlier=earlier,
        )

    def _remotes(self, private: bool) -> tuple[str, dict[str, dict[str, str]]]:
        remote = self._remote_name
        remotes = self._all_remotes if private else self._public_remotes
        if remote not in remotes:
            raise ArtifactError(
                "the project has no default DVC remote, which the releases go to",
                "add one: dvc remote add -d storage s3://bucket/path, and commit it",
            )
        return remote, {remote: remotes[remote]}

    @cached_property
    def _all_remotes(self) -> dict[str, dict[str, str]]:
        return self.project.remotes(private=True)

    @cached_property
    def _public_remotes(self) -> dict[str, dict[str, str]]:
        return self.project.remotes(private=False)

    @cached_property
    def _remote_name(self) -> str:
        from dvc.config import Config

        return str(Config(str(self.project.root / ".dvc"))["core"].get("remote", ""))

    def built(self) -> Iterator[tuple[Member, Built]]:
        """The members that are done, each with what was built."""
        done = [member for member in self.members if member.state == "done"]
        commits = [self.refs[member.name].commit for member in done]
        yield from zip(done, read_members(self.project.root, commits), strict=True)

    def to_json(self, jobs: int) -> dict[str, Any]:
        """The plan as other programs read it.

        Args:
            jobs: how many jobs a CI matrix may have.
        """
        members = [
            {
                "name": member.name,
                "key": member.key,
                "state": member.state,
                "checkpoint": member.checkpoint.to_json(),
                "publish": [target.text for target in member.targets],
            }
            for member in self.members
        ]
        return {
            "fleet": self.spec.name,
            "commit": self.project.commit,
            "points": [point.to_json() for point in self.points],
            **self.counts,
            "members": members,
            "matrix": {"include": _jobs(self.todo, jobs)},
        }


def _jobs(todo: list[Member], most: int) -> list[dict[str, str]]:
    """The keys of the members to build, dealt to at most so many jobs."""
    count = min(most, len(todo))
    dealt = [todo[place::count] for place in range(count)]
    return [
        {
            "name": f"{members[0].name}, …" if len(members) > 1 else members[0].name,
            "keys": " ".join(member.key for member in members),
        }
        for members in dealt
    ]


def make_plan(root: Path, spec: FleetSpec) -> FleetPlan:
    """Look up everything that a fleet consists of.

    Args:
        root: the project's folder.
        spec: fleet.yaml.

    Raises:
        ParamsError: fleet.yaml asks for what can't be.
        CheckpointError: a source can't be read.
        ArtifactError: the folder is no project.
    """
    project = Project.open(root)
    points = points_of(spec)
    checkpoints = find_checkpoints(project, spec.sources)
    first = next(iter(checkpoints.values()))
    require_valid(project.params, [point.filled(first.values) for point in points])
    refs = member_refs(root, spec.name)
    base = _base(project, points)
    members = []
    for name, checkpoint in checkpoints.items():
        targets = tuple(_targets(spec.publish, name, checkpoint, points))
        key = _key(base, checkpoint, points, targets)
        ref = refs.get(name)
        state: State = "new"
        if ref is not None:
            state = "done" if ref.key == key else "stale"
        members.append(Member(name, key, checkpoint, state, targets))
    _require_distinct(members)
    return FleetPlan(spec, project, points, members, refs)


def _base(project: Project, points: list[Point]) -> Digest:
    """A digest over what all members have in common."""
    params = [merged(project.params, point.overrides) for point in points]
    for each in params:
        each["checkpoint"].pop("path", None)
    return _digest({"pipeline": project.digest, "params": params})


def _key(
    base: Digest,
    checkpoint: Checkpoint,
    points: list[Point],
    targets: Sequence[Target],
) -> Digest:
    decisive: dict[str, Any] = {"base": base, **identity(checkpoint)}
    if points[0].placeholders:
        values = checkpoint.values
        decisive["filled"] = [point.filled(values).overrides for point in points]
    decisive["addresses"] = [target.address for target in targets]
    return _digest(decisive)


def _digest(value: Any) -> Digest:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _targets(
    publish: PublishSpec | None,
    name: str,
    checkpoint: Checkpoint,
    points: list[Point],
) -> Iterator[Target]:
    """Where each point of a member goes.

    Raises:
        ParamsError: a text names something that has no value, or isn't a name that a
            Hub takes.
    """
    if publish is None:
        return
    for point in points:
        values = {"name": name, **point.values, **checkpoint.values}
        target = Target(
            repository=fill(publish.repository, values),
            branch=fill(publish.branch, values),
            tag=fill(publish.tag, values) if publish.tag else None,
            private=publish.private,
        )
        target.require_valid()
        yield target


def _require_distinct(members: list[Member]) -> None:
    """Require that no two releases go to the same place.

    Raises:
        ParamsError: two do.
    """
    taken: dict[tuple[str, str], str] = {}
    for member in members:
        for target in member.targets:
            places = [f"branch {target.branch}"]
            if target.tag:
                places.append(f"tag {target.tag}")
            for place in places:
                other = taken.get((target.repository, place))
                if other is not None:
                    raise ParamsError(
                        f"{other} and {member.name} would both be published to"
                        f" {target.repository}, {place}",
                        "tell them apart there, as in step-{step}, and name the"
                        " matrix' keys too, as in opset-{onnx.opset}",
                    )
                taken[target.repository, place] = member.name


def short(key: str) -> str:
    """A key for people."""
    return key[:_SHOWN]
