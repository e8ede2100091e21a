"""What can't succeed is found before a byte is uploaded, in a dry run too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from checkpoint_release.core.errors import PublishError
from tests.support.hub_server import Account, Fault
from tests.support.publishing import REPO, SENDING, TOKEN, Publisher, fake_artifacts

pytestmark = pytest.mark.filterwarnings(SENDING)

Refused = Callable[..., PublishError]
UPLOADS = ("/preupload/", "/lfs/", "/storage/", "/commit/", "/repos/create")


@pytest.fixture(
    params=[True, pytest.param(False, marks=pytest.mark.slow)], ids=["dry run", ""]
)
def refused(publisher: Publisher, request: pytest.FixtureRequest) -> Refused:
    """Publish, in earnest and dry; it fails, and nothing went up."""

    def refuse(**asked: Any) -> PublishError:
        publisher.hub.requests.clear()
        with pytest.raises(PublishError) as caught:
            publisher.publish(dry_run=request.param, **asked)
        assert caught.value.remedy and not publisher.receipt_path.exists()
        for _, path, _ in publisher.hub.requests:
            assert not any(part in path for part in UPLOADS), path
        return caught.value

    return refuse


def as_account(publisher: Publisher, account: Account) -> None:
    publisher.hub.add_token(TOKEN, account)


def test_a_token_that_may_only_read_is_refused(
    publisher: Publisher, refused: Refused
) -> None:
    as_account(publisher, Account("ada", role="read"))
    assert "token of ada can't write to ada/stick: it may only" in refused().problem
    as_account(publisher, Account("ada"))
    publisher.publish()
    publisher.require_published()


@pytest.mark.parametrize(
    ("repo_id", "reason"),
    [("zoo/stick", "role there is read"), ("nobody/stick", "neither nobody nor one")],
)
def test_a_namespace_of_others_is_refused(
    refused: Refused, repo_id: str, reason: str
) -> None:
    error = refused(repo_id=repo_id)
    assert f"can't write to {repo_id}" in error.problem and reason in error.problem
    assert "write access to that namespace" in error.remedy


def test_a_fine_grained_token_needs_the_right_there(
    publisher: Publisher, refused: Refused
) -> None:
    as_account(
        publisher,
        Account("ada", role="fineGrained", scoped={"lab": ["repo.write"]}),
    )
    assert "it is fine-grained, and lacks repo.write there" in refused().problem
    as_account(
        publisher,
        Account("ada", role="fineGrained", scoped={"ada": ["repo.write"]}),
    )
    publisher.publish()
    publisher.require_published()


def test_anybody_may_open_a_pull_request_where_they_may_read(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.create("zoo/stick")
    publisher.publish(repo_id="zoo/stick", create_pr=True)
    assert len(publisher.hub.repo("zoo/stick").pulls) == 1


@pytest.mark.parametrize(
    "card",
    [
        "---\nlicense: [mit\n---\n",
        "---\nlicense: my-own\n---\n",
        "---\nmodel-index:\n- results: []\n---\n",
    ],
)
def test_a_card_that_the_hub_refuses_is_found_first(
    publisher: Publisher, refused: Refused, card: str
) -> None:
    fake_artifacts(publisher.artifacts, card=card)
    error = refused()
    assert "the Hub refuses the card, README.md: " in error.problem
    assert "options of card" in error.remedy


def test_a_repository_that_takes_no_pull_requests_is_one_clear_error(
    publisher: Publisher, refused: Refused
) -> None:
    publisher.hub.hub.create(REPO).pulls_disabled = True
    assert "takes no pull requests" in refused(create_pr=True).problem
    publisher.publish()
    publisher.require_published()


def test_a_hub_that_knows_neither_question_is_published_to(
    publisher: Publisher,
) -> None:
    publisher.hub.break_with(
        Fault("status", status=404, path="/api/whoami-v2", times=99),
        Fault("status", status=404, path="/api/validate-yaml", times=1),
    )
    publisher.publish()
    publisher.require_published()


def test_nothing_is_asked_where_nothing_is_left_to_do(publisher: Publisher) -> None:
    publisher.publish()
    publisher.hub.requests.clear()
    publisher.publish()
    asked = {path for _, path, _ in publisher.hub.requests}
    assert not asked & {"/api/whoami-v2", "/api/validate-yaml"}


def test_a_draft_that_holds_the_release_counts_as_its_pull_request(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.create(REPO)
    publisher.publish(create_pr=True)
    publisher.repo.pulls[0].status = "draft"
    publisher.publish(create_pr=True)
    assert len(publisher.repo.pulls) == 1


# What the Hub makes of a repository


def test_a_repository_that_was_renamed_is_named(
    publisher: Publisher, refused: Refused
) -> None:
    publisher.hub.hub.create("ada/figure")
    publisher.hub.hub.renamed[REPO] = "ada/figure"
    error = refused()
    assert "ada/stick is called ada/figure on the Hub by now" in error.problem
    assert "set publish.repo_id to ada/figure" in error.remedy
    publisher.publish(repo_id="ada/figure")
    assert publisher.hub.repo("ada/figure").tags.keys() == {"v1.0.0"}


def test_what_is_large_or_no_text_goes_to_lfs_and_stays_people_s_gitattributes(
    publisher: Publisher,
) -> None:
    """The Hub adds a line for each to .gitattributes, in the release's own commit."""
    publisher.hub.hub.lfs_over = 3000
    extra = publisher.artifacts.parent / "extra"
    (extra / "tokenizer.dat").write_bytes(b"\0binary")
    (extra / "long.md").write_text("text\n" * 1000)
    publisher.publish(extra=str(extra))
    publisher.require_published()
    stored = publisher.repo.resolve("main").files
    in_lfs = {path for path, entry in stored.items() if entry.sha256}
    assert {"tokenizer.dat", "long.md", "model.safetensors"} <= in_lfs
    assert "README.md" not in in_lfs
    lines = publisher.repo.files()[".gitattributes"].decode()
    assert "tokenizer.dat filter=lfs" in lines and "*.onnx filter=lfs" in lines
    publisher.publish(extra=str(extra))
    publisher.require_published()


def test_what_storage_has_no_room_for_is_found_before_its_bytes_go_up(
    publisher: Publisher,
) -> None:
    publisher.hub.hub.room = 100
    with pytest.raises(PublishError, match="has no room for it"):
        publisher.publish()
    assert not [path for method, path, _ in publisher.hub.requests if method == "PUT"]
    publisher.hub.hub.room = 10_000
    publisher.publish()
    publisher.require_published()
