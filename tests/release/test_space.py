"""publish.space: the page is a Space beside the model; people's files there stay."""

from __future__ import annotations

from typing import Any

import pytest

from checkpoint_release.core.artifacts.receipt import PublishedSpace
from checkpoint_release.core.errors import ArtifactError, ParamsError, PublishError
from checkpoint_release.core.params import PublishParams, parse_section
from tests.support.hub_server import Repo
from tests.support.hub_server.app import SPACE
from tests.support.publishing import (
    PARAMS,
    SENDING,
    Publisher,
    fake_artifacts,
)

pytestmark = pytest.mark.filterwarnings(SENDING)
NAME = "ada/proof"


def space(publisher: Publisher) -> Repo:
    return publisher.hub.repo(f"{NAME}{SPACE}")


def stated(publisher: Publisher) -> PublishedSpace | None:
    """What the receipt states about the Space."""
    return publisher.receipt.space


def test_the_page_and_what_it_reads_are_a_space_in_one_commit(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish(space=NAME)
    publisher.require_published()
    files = space(publisher).files()
    assert {
        *("index.html", "README.md", "release/release.json", "release/page/index.html"),
        *("release/onnx/model.onnx", "release/sample/inputs.safetensors"),
    } <= files.keys()
    assert "release/model.safetensors" not in files  # which the page doesn't read
    assert files["release/onnx/model.onnx"] == publisher.on_hub()["onnx/model.onnx"]
    assert b"sdk: static" in files["README.md"] and b"- ada/stick" in files["README.md"]
    head = space(publisher).branches["main"]
    assert stated(publisher) == PublishedSpace(repo=NAME, commit=head)
    assert space(publisher).private
    assert f"Space {NAME}: create it, " in capsys.readouterr().out


def test_publishing_again_changes_nothing_there_either(publisher: Publisher) -> None:
    publisher.publish(space=NAME)
    before = publisher.receipt_path.read_bytes()
    publisher.hub.requests.clear()
    publisher.publish(space=NAME)
    assert publisher.receipt_path.read_bytes() == before
    assert {method for method, _, _ in publisher.hub.requests} <= {"GET", "HEAD"}


def test_the_next_release_replaces_the_page_s_files_and_none_of_people_s(
    publisher: Publisher,
) -> None:
    publisher.publish(space=NAME)
    own = {"README.md": b"---\nsdk: static\n---\n# Mine\n", "notes.txt": b"mine"}
    space(publisher).edit({**own, "release/stale.bin": b"of an older release"})
    fake_artifacts(publisher.artifacts, weights=b"other weights")
    publisher.publish(space=NAME, version="v1.1.0")
    files = space(publisher).files()
    assert {name: files[name] for name in own} == own
    assert "release/stale.bin" not in files
    assert files["release/onnx/model.onnx"] == b"graph of other weights"
    assert space(publisher).history()[0].title == "Release v1.1.0"


def test_a_space_that_fails_leaves_no_receipt_and_the_next_run_makes_it(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.lies["release/page/index.html"] = "stored"
    with pytest.raises(PublishError, match="page/index"):
        publisher.publish(space=NAME)
    assert publisher.receipt_text is None
    publisher.hub.hub.lies.clear()
    publisher.publish(space=NAME)
    publisher.require_published()
    assert b"?" not in space(publisher).files()["release/page/index.html"][-1:]
    assert stated(publisher) is not None


def refused(publisher: Publisher, **params: Any) -> PublishError:
    """The error of a publication that nothing came of."""
    with pytest.raises(PublishError) as caught:
        publisher.publish(**{"space": NAME, **params})
    assert publisher.receipt_text is None
    assert publisher.hub.hub.repos.keys() <= {f"{NAME}{SPACE}"}
    return caught.value


def test_a_token_without_rights_to_the_space_publishes_nothing(
    publisher: Publisher,
) -> None:
    error = refused(publisher, space="zoo/proof")
    assert "can't write to zoo/proof" in error.problem
    assert "{publish.space}" in error.message(lambda name: f"{{{name}}}")


def test_a_space_of_something_else_stays(publisher: Publisher) -> None:
    theirs = publisher.hub.hub.create(f"{NAME}{SPACE}")
    theirs.edit({"index.html": b"<h1>Somebody's game</h1>"})
    before = theirs.files()
    error = refused(publisher)
    assert "is no release's" in error.problem and "publish.space" in error.remedy
    assert theirs.files() == before


def test_a_public_space_is_not_given_a_private_model(publisher: Publisher) -> None:
    publisher.hub.hub.create(f"{NAME}{SPACE}", private=False)
    assert f"{NAME} is public and" in refused(publisher).problem


def test_a_release_without_onnx_has_no_page_to_show(publisher: Publisher) -> None:
    fake_artifacts(publisher.artifacts, onnx=False)
    with pytest.raises(ArtifactError, match="ONNX"):
        publisher.publish(space=NAME)
    assert publisher.receipt_text is None and not publisher.hub.hub.repos


def test_a_dry_run_says_what_would_happen_and_does_none_of_it(
    publisher: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.publish(space=NAME, dry_run=True)
    assert f"Space {NAME}: create it, " in capsys.readouterr().out
    assert not publisher.hub.hub.repos


def test_the_space_waits_for_the_pull_request(publisher: Publisher) -> None:
    publisher.hub.hub.create("ada/stick")
    publisher.publish(space=NAME, create_pr=True)
    assert publisher.receipt.pull_request and stated(publisher) is None
    assert f"{NAME}{SPACE}" not in publisher.hub.hub.repos
    publisher.repo.merge(1)
    publisher.publish(space=NAME, create_pr=True)
    assert stated(publisher) is not None
    assert "release/page/index.html" in space(publisher).files()


def test_a_space_needs_a_model_on_the_hub() -> None:
    with pytest.raises(ParamsError, match="repo_id is null"):
        parse_section(PublishParams, PARAMS | {"repo_id": None, "space": NAME})
