"""Publishing what a fleet built: the coordinator does it, one release after the other.

All branches first, and only then tags. A release that the Hub holds already is found
there and not sent again, so that an interrupted publication goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoint_release.core.artifacts.receipt import Checkout
from checkpoint_release.core.artifacts.release import (
    CARD,
    RELEASE,
    SBOM,
    read_release,
)
from checkpoint_release.core.errors import CheckpointReleaseError, PublishError
from checkpoint_release.core.files import FileEntry, sha256
from checkpoint_release.core.yaml_text import parse_yaml
from checkpoint_release.fleet.order import Order
from checkpoint_release.fleet.outcome import Built, PointBuilt
from checkpoint_release.fleet.plan import FleetPlan, Member, Target
from checkpoint_release.fleet.refs import write_member
from checkpoint_release.fleet.workspace import scratch_clone
from checkpoint_release.release.complete import complete
from checkpoint_release.release.plan import Target as HubTarget
from checkpoint_release.release.publication import AssembledRelease, make_receipt

if TYPE_CHECKING:  # with it comes the Hub's whole client
    from checkpoint_release.release.hub import Hub


@dataclass(frozen=True)
class Due:
    """A release that isn't on the Hub yet as fleet.yaml asks for it."""

    member: Member
    built: Built
    point: PointBuilt
    target: Target


def due(plan: FleetPlan) -> Iterator[Due]:
    """The releases to publish: those built of which no publication at the same place
    is on record.
    """
    if plan.spec.publish is None:
        return
    for member, built in plan.built():
        published = {each.target: each.release for each in built.publications}
        for point, target in zip(built.points, member.targets, strict=True):
            if published.get(target.text) != point.release:
                yield Due(member, built, point, target)


def publish(
    plan: FleetPlan,
    home: Path,
    done: Callable[[Due, CheckpointReleaseError | None], None],
    report: Callable[[str], None],
) -> None:
    """Publish what is due.

    Args:
        plan: made after the last member was built.
        home: the fleet's folder on this host.
        done: is called with each release, and why it couldn't be published.
        report: takes a line about progress.

    Raises:
        PublishError: there is no token for the Hub.
    """
    from checkpoint_release.release.hub import Hub, default_endpoint
    from checkpoint_release.release.tokens import require_token

    waiting = list(due(plan))
    if not waiting:
        return
    options = plan.project.params["publish"]
    hub = Hub(
        default_endpoint(),
        require_token,
        timeout=float(options["timeout"]),
        patience=float(options["patience"]),
        report=report,
    )
    publisher = _Publisher(plan, home, hub)
    on_branches = []
    for each in waiting:
        error = publisher.try_to_publish(each, tag=False)
        if error is None and each.target.tag:
            on_branches.append(each)
        else:
            done(each, error)
    for each in on_branches:
        done(each, publisher.try_to_publish(each, tag=True))


class _Publisher:
    """Publishes releases of one fleet.

    Args:
        plan: of the fleet.
        home: the fleet's folder on this host.
        hub: where to.
    """

    def __init__(self, plan: FleetPlan, home: Path, hub: Hub) -> None:
        self._plan, self._home, self._hub = plan, home, hub
        self._order = Order(plan.members)
        self._latest: dict[str, Built] = {}

    def try_to_publish(self, each: Due, *, tag: bool) -> CheckpointReleaseError | None:
        """Publish one release; what went wrong, or None."""
        try:
            self._publish(each, tag=tag)
        except CheckpointReleaseError as error:
            return error
        except OSError as error:
            return PublishError(str(error), "check the disk, and run the fleet again")
        return None

    def _publish(self, each: Due, *, tag: bool) -> None:
        from checkpoint_release.release import upload
        from checkpoint_release.release.preflight import require_publishable
        from checkpoint_release.release.survey import survey

        plan = self._plan
        job = plan.job(each.member)
        with scratch_clone(self._home, job, each.built.commit) as folder:
            release = _pulled(folder, each.point)
            wants_tag = tag or not each.target.tag
            target = self._target(each, release.folder, tag=tag)
            release = AssembledRelease.open(release.folder)
            state = survey(self._hub, release.local_files, target)
            require_publishable(self._hub, release.local_files, target, state)
            published = upload.publish(self._hub, release.local_files, target, state)
            if not wants_tag:
                return
            checkout = Checkout(commit=each.built.commit, dirty=False)
            receipt = make_receipt(
                published, target, self._hub.address, release.files, checkout
            )
        latest = self._latest.get(each.member.name, each.built)
        latest = latest.with_publication(each.target.text, each.point.release, receipt)
        self._latest[each.member.name] = latest
        write_member(plan.project, plan.spec.name, latest)

    def _target(self, each: Due, folder: Path, *, tag: bool) -> HubTarget:
        """Bring what the Hub holds of earlier releases into this one, and decide where
        it goes, what stays of people's there, and what its commit says.

        Args:
            each: the release.
            folder: that holds it, as its worker made it.
            tag: whether its branch is published already, and the tag is to be set.

        Raises:
            PublishError: the Hub can't be asked.
        """
        from checkpoint_release.fleet.history import MemberHistory

        params = parse_yaml(each.point.params.encode())
        options = params["publish"]
        history = MemberHistory(
            self._hub,
            each.target.repository,
            each.target.branch,
            version=each.target.tag,
            dropped=_dropped(params["card"]["metadata"]),
            report=self._hub.requests.report,
            earlier=list(self._order.before(each.target)),
        )
        release = read_release(folder)
        kept = release.card == "keep"
        if SBOM in release.files:  # it lists the card as it was made
            card = (folder / CARD).read_text(encoding="utf-8")
            kept = kept or bool(history.card_fields(card))
        complete(folder, history, keeps_card=kept)
        origin = f"Made from git commit {each.built.commit}"
        return HubTarget(
            repo_id=each.target.repository,
            revision=each.target.branch,
            private=each.target.private,
            tag=each.target.tag if tag else None,
            kept=frozenset({CARD}) if kept else frozenset(),
            deletable=tuple(options["delete"]),
            title=f"Release {each.target.tag or each.target.branch}",
            description="\n\n".join(filter(None, [history.notes, origin])),
            transfer=options["transfer"],
        )


def _dropped(metadata: Mapping[str, Any]) -> list[str]:
    """The front matter of a card on the Hub that its author wants gone."""
    return [name for name, value in metadata.items() if value is None]


def _pulled(clone: Path, point: PointBuilt) -> AssembledRelease:
    """A member's release, brought from the host's cache or the remote, and checked
    against what its worker stated.

    Raises:
        PublishError: it can't be had, or is another.
    """
    from contextlib import chdir

    from dvc.cli import main as dvc

    with chdir(clone):
        Path("params.yaml").write_text(point.params)
        Path("dvc.lock").write_text(point.lock)
        status = dvc(["pull", "--quiet", "artifacts/release"])
    folder = clone / "artifacts/release"
    if status or not (folder / RELEASE).is_file():
        raise PublishError(
            "DVC can't bring the release from the remote",
            "check the remote; if its files are gone, run the fleet with --again",
        )
    found = {name: FileEntry.of(folder / name) for name in point.files}
    if found != point.files or sha256(folder / RELEASE) != point.release:
        raise PublishError(
            "the release from the remote is not the one that was built",
            "run the fleet with --again, which builds it anew",
        )
    return AssembledRelease.open(folder)
