"""publish under `dvc repro`: the receipt, DVC's caches and a clone, against a Hub on
loopback.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoint_release.core.artifacts.receipt import RECEIPT, Receipt
from checkpoint_release.core.artifacts.typed import read_record
from tests.support.hub_server import HubServer
from tests.support.project import Project, tree
from tests.support.publishing import REPO, TOKEN


@pytest.fixture
def environment(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
    }


def receipt(project: Project) -> Receipt:
    return read_record(project.path / "artifacts" / RECEIPT, Receipt)


def released(project: Project) -> dict[str, bytes]:
    return {
        name: content
        for name, content in tree(project.path / "artifacts/release").items()
        if not name.endswith(".gitignore")
    }


def on_hub(hub: HubServer) -> dict[str, bytes]:
    return {
        name: content
        for name, content in hub.repo(REPO).files().items()
        if name != ".gitattributes"
    }


def test_a_publication_is_made_once_and_a_clone_knows_of_it(
    project: Project, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    project.set(publish__repo_id=REPO, publish__version="v1.0.0")
    assert project.ran(project.dvc("repro", environment=environment).stdout) == [
        "model-card",  # which names the repository and the version
        "publish",
    ]
    assert on_hub(hub) == released(project)
    assert receipt(project).published is True
    project.commit("Published")
    assert project.ran(project.dvc("repro", environment=environment).stdout) == []

    project.dvc("push")
    project.git("clone", "-q", str(project.path), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.dvc("pull")
    hub.requests.clear()
    clone.dvc("repro", "--force", "--single-item", "publish", environment=environment)
    assert clone.git("status", "--porcelain") == ""
    assert {method for method, _, _ in hub.requests} <= {"GET", "HEAD"}


@pytest.mark.slow
def test_a_receipt_is_never_restored_from_a_cache(
    project: Project, hub: HubServer, environment: dict[str, str]
) -> None:
    """The Hub has lost everything; a receipt out of a cache would deny it."""
    project.set(publish__repo_id=REPO)
    project.dvc("repro", environment=environment)
    account = hub.hub.tokens[TOKEN]
    hub.reset()
    hub.add_token(TOKEN, account)
    (project.path / "artifacts/publish.json").unlink()
    assert project.ran(project.dvc("repro", environment=environment).stdout) == [
        "publish"
    ]
    assert on_hub(hub) == released(project) and receipt(project).changed is True


@pytest.mark.slow
def test_a_publication_that_fails_loses_nothing_and_shows_no_secret(
    project: Project, environment: dict[str, str]
) -> None:
    project.set(publish__repo_id=REPO, publish__version="v1.0.0")
    project.dvc("repro", "model-card")  # which names the repository and the version
    before = tree(project.path / "artifacts")
    wrong = "hf_aTokenThatNobodyKnows"
    failed = project.dvc(
        "repro", check=False, environment=environment | {"HF_TOKEN": wrong}
    )
    assert failed.returncode != 0
    assert "doesn't accept the token" in failed.stderr
    assert "what to do:" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert wrong not in failed.stdout + failed.stderr
    assert tree(project.path / "artifacts") == before


@pytest.mark.slow
def test_the_cards_examples_find_the_release_by_its_name(
    project: Project, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    """As they are printed, in an empty folder; of another version there is none."""
    project.set(publish__repo_id=REPO, publish__version="v1.0.0")
    project.dvc("repro", environment=environment)
    usage = on_hub(hub)["README.md"].decode().partition("### From the Hub\n")[2]
    blocks = usage.partition("### In its folder")[0].split("```")[1::2]
    (command, transformers, library) = blocks
    assert 'revision="v1.0.0"' in transformers and 'revision="v1.0.0"' in library
    elsewhere = Project(tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    elsewhere.run("sh", "-c", command.removeprefix("sh\n"), environment=environment)
    downloaded = tree(elsewhere.path / "stick")
    for name, content in released(project).items():
        assert downloaded[name] == content
    for block in (transformers, library):
        code = block.removeprefix("python\n")
        elsewhere.run("python", "-c", code, environment=environment)
        wrong = code.replace("v1.0.0", "v9.9.9")
        failed = elsewhere.run(
            "python", "-c", wrong, check=False, environment=environment
        )
        assert failed.returncode != 0 and "v9.9.9" in failed.stderr


@pytest.mark.slow
def test_a_version_is_promoted_by_a_tag_and_fetched_by_its_stage(
    project: Project, tmp_path: Path
) -> None:
    """GTO's tags, of which `dvc artifacts get` knows; nothing is uploaded twice."""

    def fetch(place: str, *which: str, check: bool = True) -> int:
        asked = ("get", str(project.path), "release", "-o", str(tmp_path / place))
        return project.dvc("artifacts", *asked, *which, check=check).returncode

    project.dvc("push")
    project.git("tag", "-a", "release@v1.0.0", "-m", "v1.0.0")
    project.git("tag", "-a", "release#staging#1", "-m", "to staging")
    assert fetch("early", "--stage", "production", check=False) != 0
    project.git("tag", "-a", "release#production#2", "-m", "to production")
    assert fetch("promoted", "--stage", "production") == 0
    assert tree(tmp_path / "promoted") == released(project)
    assert fetch("version", "--rev", "v1.0.0") == 0


@pytest.mark.slow
def test_a_merged_pull_request_is_tagged_by_the_next_repro(
    project: Project, hub: HubServer, environment: dict[str, str]
) -> None:
    def ran() -> list[str]:
        return project.ran(project.dvc("repro", environment=environment).stdout)

    hub.hub.create(REPO)
    project.set(
        publish__repo_id=REPO, publish__version="v1.0.0", publish__create_pr=True
    )
    assert ran() == ["model-card", "publish"]
    assert receipt(project).published is False
    project.commit("Pull request opened")
    assert ran() == ["publish"]  # still open
    assert receipt(project).published is False
    assert len(hub.repo(REPO).pulls) == 1
    hub.repo(REPO).merge(1)
    assert ran() == ["publish"]
    assert receipt(project).tag == "v1.0.0" and receipt(project).published is True
    assert hub.repo(REPO).tags["v1.0.0"] == hub.repo(REPO).branches["main"]
    hub.requests.clear()
    assert ran() == [] and hub.requests == []


@pytest.mark.slow
def test_a_file_of_ones_own_reruns_publish_alone_and_a_wrong_folder_costs_nothing(
    project: Project,
) -> None:
    (project.path / "checkpoints/extra/LICENSE").write_text("ours\n")
    assert project.ran(project.dvc("repro").stdout) == ["publish"]
    assert released(project)["LICENSE"] == b"ours\n"
    assert project.ran(project.dvc("repro").stdout) == []
    before = released(project)
    project.set(publish__extra="checkpoints/nowhere")
    failed = project.dvc("repro", check=False)
    assert failed.returncode != 0 and "checkpoints/nowhere" in failed.stderr
    assert released(project) == before


@pytest.mark.slow
def test_a_missing_token_is_reported_before_anything_is_sent(
    project: Project, hub: HubServer, environment: dict[str, str]
) -> None:
    project.set(publish__repo_id=REPO)
    failed = project.dvc(
        "repro", check=False, environment=environment | {"HF_TOKEN": ""}
    )
    assert "there is no token for the Hub" in failed.stderr
    assert "hf auth login" in failed.stderr
    assert hub.requests == []
