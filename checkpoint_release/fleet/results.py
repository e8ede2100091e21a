"""Results as files: what `fleet member` leaves where no coordinator listens.

A CI job or a batch system builds members on machines that may not write git; the
coordinator reads their files and writes the refs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from checkpoint_release.core.artifacts.typed import read_record
from checkpoint_release.core.errors import ArtifactError
from checkpoint_release.fleet.outcome import Outcome
from checkpoint_release.fleet.plan import FleetPlan, Member
from checkpoint_release.fleet.refs import write_member

RESULTS = Path("fleet-results")


def result_name(key: str) -> str:
    """The name of the file with the result of a member of that key."""
    return f"{key}.json"


def result_path(folder: Path, member: Member) -> Path:
    """Where a member's result is."""
    return folder / result_name(member.key)


def read_result(folder: Path, member: Member) -> Outcome | None:
    """A member's result; None where there is none that can be read."""
    try:
        return read_record(result_path(folder, member), Outcome)
    except ArtifactError:
        return None


def take_in(plan: FleetPlan, folder: Path) -> Iterator[Outcome]:
    """Write the refs of members whose results lie in a folder.

    Args:
        plan: of the fleet; results of members that are done are passed over, and so are
            those with a key that no member has now.
        folder: that holds the results.

    Returns:
        The outcomes that were new, the failed ones among them.

    Raises:
        ArtifactError: git can't be written.
    """
    for member in plan.todo:
        outcome = read_result(folder, member)
        if outcome is None:
            continue
        if outcome.built is not None:
            write_member(plan.project, plan.spec.name, outcome.built)
        yield outcome
