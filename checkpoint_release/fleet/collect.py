"""What came of a fleet: fleet.json, fleet.csv, a page, and comparisons of members."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from checkpoint_release.core.errors import ArtifactError, ParamsError
from checkpoint_release.core.files import replace_file, write_json
from checkpoint_release.fleet.atlas import atlas
from checkpoint_release.fleet.outcome import Built, Failed, PointBuilt
from checkpoint_release.fleet.plan import FleetPlan, Member
from checkpoint_release.fleet.progress import table
from checkpoint_release.fleet.rows import Row, rows_of


def collect(plan: FleetPlan, folder: Path, failed: Sequence[Failed]) -> Iterator[str]:
    """Write what is known of a fleet's members.

    Args:
        plan: of the fleet.
        folder: where to; files of an earlier call are replaced.
        failed: members whose last result is a failure.

    Returns:
        A line for each file that was written.

    Raises:
        ArtifactError: no member is built yet, or a ref can't be read.
    """
    built = list(plan.built())
    if not built:
        raise ArtifactError(
            f"no member of the fleet {plan.spec.name} is built yet",
            "run `checkpoint-release fleet run`, or name the folder with the results of"
            " `fleet member` in --results",
        )
    rows = [row for member, each in built for row in rows_of(member, each)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "fleet.json", _json(plan, built, failed))
    replace_file(folder / "fleet.csv", _csv(rows).encode())
    page = atlas(plan, rows, failed)
    replace_file(folder / "index.html", page.encode())
    for name in ("fleet.json", "fleet.csv", "index.html"):
        yield f"{folder / name}: {len(built)} members, {len(rows)} releases"


def _json(
    plan: FleetPlan, built: Sequence[tuple[Member, Built]], failed: Sequence[Failed]
) -> dict[str, Any]:
    return {
        "fleet": plan.spec.name,
        "commit": plan.project.commit,
        "counts": plan.counts,
        "members": [_member(plan, member, each) for member, each in built],
        "failed": [each.to_json() for each in failed],
        "to_build": [member.name for member in plan.todo],
    }


def _member(plan: FleetPlan, member: Member, built: Built) -> dict[str, Any]:
    publications = {each.target: each.receipt.to_json() for each in built.publications}
    for receipt in publications.values():
        receipt.pop("files")  # each point lists its own
    # which the ref's commits hold
    texts = ("params", "lock", "parity", "statement", "benchmark")
    points = [
        {key: value for key, value in point.to_json().items() if key not in texts}
        for point in built.points
    ]
    return {
        "name": member.name,
        "key": member.key,
        "ref": f"refs/fleet/{plan.spec.name}/{member.name}",
        "commit": plan.refs[member.name].commit,
        "checkpoint": member.checkpoint.to_json(),
        "host": built.host,
        "seconds": built.seconds,
        "points": points,
        "publications": publications,
    }


def _csv(rows: Sequence[Row]) -> str:
    """A line for each release; the columns of all rows together."""
    columns: dict[str, None] = {}
    flat = [row.flat() for row in rows]
    for each in flat:
        columns |= dict.fromkeys(each)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def compared(plan: FleetPlan, first: str, second: str) -> str:
    """Two members side by side, point by point: what differs, and by how much.

    Args:
        plan: of the fleet.
        first, second: their names or keys.

    Raises:
        ParamsError: one is no member, or isn't built.
    """
    members = [plan.member(first), plan.member(second)]
    built = {member.name: each for member, each in plan.built()}
    for member in members:
        if member.name not in built:
            raise ParamsError(
                f"{member.name} is {member.state}, so there is nothing to compare",
                "build it: checkpoint-release fleet run",
            )
    left, right = (built[member.name] for member in members)
    lines: list[tuple[str, ...]] = [
        ("point", "figure", left.name, right.name, "change")
    ]
    for a, b in zip(left.points, right.points, strict=True):
        lines += _differences(a, b)
    if len(lines) == 1:
        return f"{left.name} and {right.name} have the same figures"
    return table(lines)


def _differences(a: PointBuilt, b: PointBuilt) -> Iterator[tuple[str, ...]]:
    """The figures that differ between two releases."""
    figures_a, figures_b = _figures(a), _figures(b)
    for name in figures_a | figures_b:
        one, other = figures_a.get(name), figures_b.get(name)
        if one == other:
            continue
        change = "-"
        if isinstance(one, int | float) and isinstance(other, int | float):
            change = f"{other - one:+,}" if _is_whole(one, other) else ""
            change = change or f"{other - one:+.6g}"
        yield (a.name or "-", name, _shown(one), _shown(other), change)


def _is_whole(*values: float) -> bool:
    return all(isinstance(value, int) for value in values)


def _figures(point: PointBuilt) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, value in point.training.items():
        if isinstance(value, int | float | str):
            figures[f"training.{name}"] = value
    for name, limit in point.limits.items():
        figures[f"parity.{name}"] = limit
    figures["release.bytes"] = sum(entry.size for entry in point.files.values())
    return figures


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
