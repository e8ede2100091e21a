"""Publishing a fleet: each release once, branches before tags, and on from where it
was interrupted.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.project import Project
from checkpoint_release.fleet.publication import due
from checkpoint_release.fleet.refs import write_member
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import WEIGHTS_ONLY, Fleet, fleet_checkout
from tests.support.hub_server import HubServer
from tests.support.publishing import TOKEN

REPO = "lab/steps"
TARGET = {"repository": REPO, "branch": "step-{step}", "tag": "v-{step}"}


def waiting(fleet: Fleet) -> list[str]:
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    return [each.target.branch for each in due(plan)]


def verify(
    fleet: Fleet, environment: Mapping[str, str], revision: str
) -> subprocess.CompletedProcess[str]:
    """Run `checkpoint-release verify` on a release on the Hub."""
    command = [sys.executable, "-P", "-m", "checkpoint_release", "verify", REPO]
    return fleet.project.run(
        *command, "--revision", revision, environment=environment, check=False
    )


def forget_publications(fleet: Fleet) -> None:
    """Take the receipts off the members' refs, as if the coordinator had died before it
    wrote them.
    """
    project = Project.open(fleet.path)
    for built in fleet.built().values():
        write_member(project, "tiny", msgspec.structs.replace(built, publications=[]))


@pytest.mark.slow
def test_every_release_is_published_once_and_tags_come_last(
    hub: HubServer, tmp_path: Path
) -> None:
    fleet = fleet_checkout(tmp_path, steps=2, params=WEIGHTS_ONLY, publish=TARGET)
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hub"),
    }
    built = fleet.command("run", "--cluster", "local:2", "--no-publish").stdout
    assert "published: 0; not yet: 2" in built
    assert hub.requests == []

    wrong = environment | {"HF_TOKEN": "hf_aTokenThatNobodyKnows"}
    failed = fleet.command("run", check=False, environment=wrong)
    assert failed.returncode == 1
    assert "not published: lab/steps branch step-1" in failed.stdout
    assert "hf_aTokenThatNobodyKnows" not in failed.stdout + failed.stderr
    assert waiting(fleet) == ["step-1", "step-2"]

    hub.requests.clear()
    done = fleet.command("run", environment=environment)
    assert "published: 2; not yet: 0" in done.stdout
    assert waiting(fleet) == []
    repo = hub.repo(REPO)
    for step in (1, 2):
        card = repo.files(f"step-{step}")["README.md"].decode()
        assert f"hf download {REPO} --revision v-{step} --local-dir steps" in card
        assert f'load("{REPO}", revision="v-{step}")' in card
        receipt = fleet.built()[f"step-{step}"].publications[0].receipt
        assert repo.branches[f"step-{step}"] == repo.tags[f"v-{step}"] == receipt.commit
        files = repo.files(f"step-{step}")
        assert set(files) - {".gitattributes"} == set(receipt.files)
    paths = [path for method, path, _ in hub.requests if method == "POST"]
    changes = [path for path in paths if "/commit/" in path or "/tag/" in path]
    assert ["/tag/" in path for path in changes] == [False, False, True, True]

    hub.requests.clear()
    assert "published: 0; not yet: 0" in fleet.command("run").stdout
    assert hub.requests == []

    assert "CHANGELOG.md" not in repo.files("step-1")
    entries = repo.files("step-2")["CHANGELOG.md"].decode()
    title = "# Changelog\n\n## v-2\n\nSince v-1:\n\n- Weights: "
    assert entries.startswith(title), entries
    assert repo.history("step-2")[0].message.startswith("Since v-1:\n\n- Weights: ")
    assert repo.history("step-1")[0].message.startswith("Made from git commit")
    for step in (1, 2):
        verified = verify(fleet, environment, f"v-{step}")
        assert verified.returncode == 0, verified.stdout + verified.stderr

    forget_publications(fleet)
    heads = dict(repo.branches)
    again = fleet.command("run", environment=environment)
    assert "published: 2; not yet: 0" in again.stdout
    assert repo.branches == heads


@pytest.mark.slow
def test_what_people_did_on_the_hub_stays_and_the_commit_says_what_changed(
    hub: HubServer, tmp_path: Path
) -> None:
    target = {"repository": "lab/{step}"}
    options = {**WEIGHTS_ONLY, "publish": {"delete": ["old.txt"]}}
    fleet = fleet_checkout(tmp_path, steps=2, params=options, publish=target)
    environment = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hub"),
    }
    fleet.command("run", "--cluster", "local:2", environment=environment)
    gated, replaced = hub.repo("lab/1"), hub.repo("lab/2")
    card = gated.files()["README.md"].decode()
    asking = card.replace("---\n", "---\nextra_gated_prompt: Who are you?\n", 1)
    gated.edit({"README.md": asking.encode(), "LICENSE": b"own", "old.txt": b"old"})

    before = replaced.files()["README.md"]
    options |= {"safetensors": {"dtype": "float16"}}
    fleet.spec(params=options, publish=target)
    done = fleet.command("run", "--cluster", "local:2", environment=environment)
    assert "published: 2; not yet: 0" in done.stdout
    assert "kept of the card on the Hub: extra_gated_prompt" in done.stdout
    files = gated.files()
    new_card = files["README.md"].decode()
    assert "\nextra_gated_prompt: Who are you?\n" in new_card
    body = "\n---\n"
    assert new_card.partition(body)[2] != asking.partition(body)[2]
    assert files["LICENSE"] == b"own" and "old.txt" not in files
    assert replaced.files()["README.md"] != before
    for repo in (gated, replaced):
        message = repo.history()[0].message
        assert message.startswith("Since main:"), done.stdout
        assert "Made from git commit" in message
        assert "float16" in message or "Weights:" in message
