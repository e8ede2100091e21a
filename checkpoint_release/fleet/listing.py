"""The plan of a fleet for people."""

from __future__ import annotations

from checkpoint_release.core.errors import first_few
from checkpoint_release.core.text import printable
from checkpoint_release.fleet.plan import FleetPlan, Member, short
from checkpoint_release.fleet.progress import table

_ROWS = 40  # of a long plan, what is shown: the first of each state


def listing(plan: FleetPlan) -> str:
    """What the fleet consists of and how far it is."""
    counts = [f"{count} {state}" for state, count in plan.counts.items()]
    points = f" × {len(plan.points)} points" if len(plan.points) > 1 else ""
    lines = [
        f"{plan.spec.name}: {len(plan.members)} members{points} at commit"
        f" {plan.project.commit[:12]}: {', '.join(counts)}"
    ]
    if plan.project.changes:
        changed = first_few(plan.project.changes, 5)
        lines.append(f"note: not in that commit, so not in the fleet: {changed}")
    if plan.gone:
        lines.append(f"note: built, and no longer named: {first_few(plan.gone, 5)}")
    lines += _table(plan)
    return "\n".join(lines)


def _table(plan: FleetPlan) -> list[str]:
    publishes = plan.spec.publish is not None
    head = ["member", "key", "state", "size", "checkpoint"]
    rows = [[*head, "goes to"] if publishes else head]
    for member in plan.members[:_ROWS]:
        row = _row(member)
        if publishes:
            more = f", … ({len(member.targets)})" if len(member.targets) > 1 else ""
            row.append(f"{member.targets[0].text}{more}")
        rows.append(row)
    lines = table(rows).split("\n")
    left = len(plan.members) - _ROWS
    if left > 0:
        lines.append(f"… and {left:,} more; --json lists them all")
    return lines


def _row(member: Member) -> list[str]:
    size = member.checkpoint.size
    megabytes = f"{size / 1e6:,.1f} MB" if size else "-"
    address = printable(member.checkpoint.address)
    if member.checkpoint.kind == "hub":
        address += f" {printable(member.checkpoint.file)}"
    return [member.name, short(member.key), member.state, megabytes, address]
