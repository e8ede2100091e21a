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
