"""Which release of a fleet came before another in its repository."""

from __future__ import annotations

import pytest

from checkpoint_release.fleet.checkpoints import Checkpoint
from checkpoint_release.fleet.order import Order
from checkpoint_release.fleet.plan import Member, Target


def member(name: str, repository: str = "lab/steps", points: int = 1) -> Member:
    checkpoint = Checkpoint(
        kind="files", address=name, digest="sha256:0", size=1, file=f"{name}.pth"
    )
    targets = tuple(
        Target(repository, f"{name}-at-{place}", None, private=True)
        for place in range(points)
    )
    return Member(name, name, checkpoint, "new", targets)


def before(name: str, *others: str) -> list[str]:
    """The branches before a member's, the nearest first."""
    members = {each: member(each) for each in (name, *others)}
    order = Order(list(members.values()))
    earlier = order.before(members[name].targets[0])
    return [target.branch.removesuffix("-at-0") for target in earlier]


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("step-10", ["step-9", "step-100", "step-2"], ["step-9", "step-2"]),
        ("1-step-5", ["0-step-9", "1-step-4", "2-step-1"], ["1-step-4"]),
        ("epoch=2-step=50", ["epoch=1-step=90"], ["epoch=1-step=90"]),
        ("70m-global_step8", ["70m-global_step7", "71m-global_step1"], None),
        ("12", ["9"], ["9"]),
        ("seed-2-lr-1", ["seed-1-lr-1", "seed-2-lr-0"], []),
        ("mine", ["demo"], []),
        ("run-2-final", ["run-1-best"], []),
    ],
)
def test_members_of_one_training_follow_one_another(
    name: str, others: list[str], expected: list[str] | None
) -> None:
    if expected is None:
        expected = others[:1]
    assert before(name, *others) == expected


def test_neither_another_repository_nor_another_point_comes_before() -> None:
    first, second = member("step-1", points=2), member("step-2", points=2)
    elsewhere = member("step-0", repository="lab/other", points=2)
    order = Order([second, elsewhere, first])
    for place in (0, 1):
        found = list(order.before(second.targets[place]))
        assert found == [first.targets[place]]
    assert list(order.before(first.targets[0])) == []
