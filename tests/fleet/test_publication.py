"""Publishing a fleet: each release once, branches before tags, and on from where it
was interrupted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_release.fleet.plan import make_plan
from checkpoint_release.fleet.publication import due
from checkpoint_release.fleet.spec import load_spec
from tests.support.fleets import WEIGHTS_ONLY, Fleet, fleet_checkout
from tests.support.hub_server import HubServer
from tests.support.publishing import TOKEN

REPO = "lab/steps"
TARGET = {"repository": REPO, "branch": "step-{step}", "tag": "v-{step}"}


def waiting(fleet: Fleet) -> list[str]:
    plan = make_plan(fleet.path, load_spec(fleet.path / "fleet.yaml"))
    return [each.target.branch for each in due(plan)]


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
