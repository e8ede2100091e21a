"""What `fleet collect` writes, and how it compares members."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from checkpoint_release.__main__ import main
from checkpoint_release.core.errors import ParamsError
from checkpoint_release.fleet.collect import compared
from checkpoint_release.fleet.outcome import Failed, Outcome
from checkpoint_release.fleet.plan import FleetPlan, make_plan
from checkpoint_release.fleet.refs import member_refs, write_member
from checkpoint_release.fleet.results import result_path
from checkpoint_release.fleet.rows import axis_of, rows_of
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import FOLDER, Fleet, imagined, small_project

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    fleet = small_project(tmp_path / "project", steps=3)
    monkeypatch.chdir(fleet.path)
    return fleet


def planned(fleet: Fleet) -> FleetPlan:
    return make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))


class Page(HTMLParser):
    """The tags of a page, in order, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.shown += data


def test_results_of_other_engines_become_refs_a_table_and_a_page(fleet: Fleet) -> None:
    plan = planned(fleet)
    results = fleet.path / "fleet-results"
    results.mkdir()
    one, two, three = plan.members
    for member in (one, two):
        outcome = Outcome(
            built=imagined(plan, member, **{HOSTILE: 0.5 / member.checkpoint.size})
        )
        outcome.write(result_path(results, member))
    failed = Failed(
        name=three.name,
        key=three.key,
        cause="member",
        stage="load",
        message=HOSTILE,
        log=[],
        host="there",
    )
    Outcome(failed=failed).write(result_path(results, three))
    (results / "other.json").write_text("{}")

    assert main(["fleet", "collect"]) == 1  # one failed
    assert list(member_refs(fleet.path, "tiny")) == ["step-1", "step-2"]

    stated = json.loads((fleet.path / "fleet/fleet.json").read_text())
    assert [member["name"] for member in stated["members"]] == ["step-1", "step-2"]
    assert (stated["failed"][0]["name"], stated["to_build"]) == ("step-3", ["step-3"])
    with (fleet.path / "fleet/fleet.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["training.val_loss"] for row in rows] == ["1.0", "0.5"]
    assert [row["parity.onnx"] for row in rows] == ["0.25", "0.5"]

    page = Page((fleet.path / "fleet/index.html").read_text())
    assert page.tags.index("svg") < page.tags.index("table")
    assert "script" not in page.tags
    assert HOSTILE in page.shown  # as text
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert links == []  # nothing is loaded from elsewhere
    for expected in ("val_loss", "step-2", "Worst error", "0.25"):
        assert expected in page.shown


def test_members_are_compared_by_their_figures(fleet: Fleet) -> None:
    plan = planned(fleet)
    for member in plan.members[:2]:
        write_member(plan.project, "tiny", imagined(plan, member))
    plan = planned(fleet)
    text = compared(plan, "step-1", "step-2")
    (loss,) = (line for line in text.splitlines() if "val_loss" in line)
    assert loss.split()[2:] == ["1", "0.5", "-0.5"]
    (size,) = (line for line in text.splitlines() if "bytes" in line)
    assert size.split()[2:] == ["3000", "4000", "+1,000"]
    with pytest.raises(ParamsError, match="step-3 is new, so there is nothing"):
        compared(plan, "step-1", "step-3")


def test_checkpoints_stand_on_the_axis_by_the_number_in_their_paths(
    fleet: Fleet,
) -> None:
    plan = planned(fleet)
    rows = [
        row
        for member in plan.members
        for row in rows_of(member, imagined(plan, member))
    ]
    assert axis_of(rows) == ("step", [1.0, 2.0, 3.0])

    fleet.spec(source=[{"files": f"{FOLDER}/*.pth"}])
    plan = planned(fleet)
    rows = [
        row
        for step, member in enumerate(plan.members, 1)
        for row in rows_of(member, imagined(plan, member, global_step=7 * step))
    ]
    assert axis_of(rows) == ("global_step", [7, 14, 21])


def test_a_fleet_without_results_says_what_to_do(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fleet", "collect"]) == 1
    printed = capsys.readouterr().err
    assert "no member of the fleet tiny is built yet" in printed
    assert not (fleet.path / "fleet").exists()
