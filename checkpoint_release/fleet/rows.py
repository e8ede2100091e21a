"""One row for each release of a fleet, as the table and the page show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from checkpoint_release.fleet.outcome import Built, PointBuilt
from checkpoint_release.fleet.plan import Member
from checkpoint_release.release.publication import page_of

STEPS = ("global_step", "step", "iteration", "epoch")
"""Training facts that say how far a training was, the finest first."""


@dataclass(frozen=True)
class Row:
    """A release.

    Attributes:
        member, key: that it is of.
        point: of the matrix; "" where there is none.
        values: what the checkpoint's path gives.
        training: numbers that the checkpoint states about its training.
        limits: format → worst error as a share of what is allowed.
        sizes: format's folder → bytes.
        release: sha256 of release.json.
        built: digest of the files that don't depend on the machine.
        link: where it is published; "" where it isn't.
        seconds: that its `dvc repro` took.
    """

    member: str
    key: str
    point: str
    values: Mapping[str, str]
    training: Mapping[str, float]
    limits: Mapping[str, float]
    sizes: Mapping[str, int]
    release: str
    built: str
    link: str
    seconds: float

    @property
    def size(self) -> int:
        """Of the whole release, in bytes."""
        return sum(self.sizes.values())

    def flat(self) -> dict[str, Any]:
        """The row with a column for each figure."""
        flat: dict[str, Any] = {"member": self.member, "point": self.point}
        flat |= {f"path.{name}": value for name, value in self.values.items()}
        flat |= {f"training.{name}": value for name, value in self.training.items()}
        flat |= {f"parity.{name}": value for name, value in self.limits.items()}
        flat |= {f"bytes.{name}": value for name, value in self.sizes.items()}
        flat |= {"bytes": self.size, "seconds": self.seconds, "key": self.key}
        return flat | {"release": self.release, "built": self.built, "link": self.link}


def rows_of(member: Member, built: Built) -> Iterator[Row]:
    """The rows of a member, one for each point."""
    receipts = {each.target: each.receipt for each in built.publications}
    for place, point in enumerate(built.points):
        receipt = None
        if place < len(member.targets):
            receipt = receipts.get(member.targets[place].text)
        yield Row(
            member=member.name,
            key=member.key,
            point=point.name,
            values=member.checkpoint.values,
            training=_numbers(point.training),
            limits=point.limits,
            sizes=_sizes(point),
            release=point.release,
            built=point.built,
            link=page_of(receipt) if receipt else "",
            seconds=point.seconds,
        )


def _numbers(training: Mapping[str, Any]) -> dict[str, float]:
    """The training facts that are numbers."""
    return {
        name: value
        for name, value in training.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _sizes(point: PointBuilt) -> dict[str, int]:
    """Bytes by the folder that they lie in; what lies in the root is safetensors'."""
    sizes: dict[str, int] = {}
    for path, entry in point.files.items():
        folder = path.partition("/")[0] if "/" in path else "safetensors"
        sizes[folder] = sizes.get(folder, 0) + entry.size
    return sizes


def axis_of(rows: Sequence[Row]) -> tuple[str, list[float]]:
    """What the checkpoints are in the order of, and where each row is on it.

    It is the first number in their paths that differs, or else in their training facts,
    or else their order.
    """
    for name in rows[0].values:
        positions = [_number(row.values.get(name, "")) for row in rows]
        if (axis := _as_axis(positions)) is not None:
            return name, axis
    for name in STEPS:
        stated = [row.training.get(name) for row in rows]
        if (axis := _as_axis(stated)) is not None:
            return name, axis
    members = list(dict.fromkeys(row.member for row in rows))
    return "checkpoint", [float(members.index(row.member)) for row in rows]


def _as_axis(positions: Sequence[float | None]) -> list[float] | None:
    """The positions, if every row has one and they differ."""
    known = [each for each in positions if each is not None]
    if len(known) == len(positions) and len(set(known)) > 1:
        return known
    return None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def series_of(row: Row, axis: str) -> str:
    """What a row has in common with the others of its line in a chart: its point, and
    what its path gives beside the axis.
    """
    others = beside_axis(row, axis)
    return ", ".join([*others, row.point] if row.point else others)


def beside_axis(row: Row, axis: str) -> list[str]:
    """What a row's path gives beside the axis, such as "seed 2"."""
    return [f"{name} {value}" for name, value in row.values.items() if name != axis]
