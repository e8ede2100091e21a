"""Publishing from CI without a secret: the job's identity is exchanged for a token."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _auth

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub_errors import scrub
from checkpoint_release.release.requests import Requests
from checkpoint_release.release.tokens import require_token
from tests.support.hub_server import Fault
from tests.support.hub_server.trusted import MINT, environment
from tests.support.publishing import REPO, SENDING, Publisher

pytestmark = pytest.mark.filterwarnings(SENDING)

CLAIMS = {"repository": "ada/training", "workflow": "release.yml"}


@pytest.fixture
def job(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A job of GitHub's that the repository trusts; there is no other token."""
    monkeypatch.setattr(constants, "ENDPOINT", publisher.hub.url)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    monkeypatch.setattr(_auth, "_OIDC_TOKEN_CACHE", None)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_OIDC_ID_TOKEN", raising=False)
    for name, value in environment(publisher.hub.url, REPO).items():
        monkeypatch.setenv(name, value)
    publisher.hub.hub.create(REPO)
    publisher.hub.hub.tokens.clear()
    publisher.hub.trusted.trusted[REPO] = CLAIMS
    publisher.hub.trusted.job = {**CLAIMS, "ref": "refs/tags/v1.0.0"}
    return publisher


def refused(job: Publisher, **asked: Any) -> PublishError:
    """Publishing fails before a byte goes up."""
    with pytest.raises(PublishError) as caught:
        job.publish(token=require_token, **asked)
    assert caught.value.remedy and not job.receipt_path.exists()
    assert {method for method, path, _ in job.hub.requests} <= {"GET", "POST"}
    assert job.titles() == ["initial commit"]
    return caught.value


def test_a_job_that_the_repository_trusts_publishes_without_a_secret(
    job: Publisher, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    job.publish(token=require_token)
    job.require_published()
    assert job.repo.history()[0].author == "[OIDC] ada/training"
    (token,) = job.hub.trusted.given
    printed = capfd.readouterr()
    everything = printed.out + printed.err + caplog.text + str(job.receipt_text)
    assert token not in everything and "hf_jwt" not in everything
    asked = [path for _, path, _ in job.hub.requests]
    assert asked.count("/oauth/token") == 1 and "/api/whoami-v2" not in asked


def test_a_token_that_ends_during_the_upload_is_renewed(job: Publisher) -> None:
    """Each is good for one request, and huggingface_hub reuses headers for several."""
    job.hub.trusted.lifetime, job.hub.trusted.uses = 300, 1
    job.publish(token=require_token)
    job.require_published()
    assert len(job.hub.trusted.given) > 10
    assert max(job.hub.trusted.given.values()) == 1


def test_a_token_that_is_not_renewed_ends(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Requests, "_authorise", lambda self, request: None)
    job.hub.trusted.lifetime, job.hub.trusted.uses = 300, 1
    error = refused(job)
    assert "doesn't accept the token (401" in error.problem
    assert "run the job again" in error.remedy and "HF_TOKEN" not in error.remedy


@pytest.mark.parametrize(
    ("name", "value"), [("repository", "eve/training"), ("workflow", "other.yml")]
)
def test_a_job_that_makes_another_claim_gets_no_token(
    job: Publisher, name: str, value: str
) -> None:
    job.hub.trusted.job[name] = value
    error = refused(job)
    assert f"no token for {REPO} in exchange for the job's ID token (400" in str(error)
    assert "under Trusted Publishers" in error.remedy
    assert error.problem.count("invalid_grant") == 1
    assert job.slept == []


def test_a_repository_that_is_not_there_is_made_by_hand_first(job: Publisher) -> None:
    del job.hub.hub.repos[REPO]
    with pytest.raises(PublishError, match="in exchange") as caught:
        job.publish(token=require_token)
    assert "made by hand first" in caught.value.remedy


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_token_for_another_repository_is_found_first(
    job: Publisher, dry_run: bool
) -> None:
    error = refused(job, repo_id="ada/other", dry_run=dry_run)
    assert "token is for ada/stick, and publish.repo_id is ada/other" in str(error)
    assert "HF_OIDC_RESOURCE" in error.remedy


def test_a_space_needs_a_user_s_token(job: Publisher) -> None:
    error = refused(job, space="ada/proof")
    assert "token is for ada/stick alone, and publish.space is ada/proof" in str(error)
    assert "set publish.space to null" in error.remedy


@pytest.mark.parametrize(
    "name", ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
)
def test_a_job_without_the_permission_is_one_clear_error(
    job: Publisher, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv(name)
    error = refused(job)
    assert "HF_OIDC_RESOURCE is set, and this job has no ID token" in error.problem
    assert "permissions: id-token: write" in error.remedy


def test_outside_ci_there_is_no_id_token(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    assert "HF_OIDC_ID_TOKEN" in refused(job).remedy


def test_another_ci_hands_its_id_token_over(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't be had again, and neither can a token, once both have ended."""
    trusted = job.hub.trusted
    minted = trusted.mint("Bearer a-secret-of-the-runner", job.hub.url)["value"]
    monkeypatch.delenv("GITHUB_ACTIONS")
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", minted)
    trusted.uses = 3
    assert "run the job again" in refused(job).remedy
    trusted.uses = None
    job.publish(token=require_token)
    job.require_published()
    monkeypatch.setenv("HF_OIDC_ID_TOKEN", "e30.e30.e30")
    monkeypatch.setattr(_auth, "_OIDC_TOKEN_CACHE", None)
    with pytest.raises(PublishError, match="in exchange") as caught:
        job.publish(token=require_token)
    assert "if the ID token of HF_OIDC_ID_TOKEN has ended" in caught.value.remedy


@pytest.mark.parametrize("path", [MINT, "/oauth/token"])
def test_an_exchange_that_fails_once_is_tried_again(job: Publisher, path: str) -> None:
    job.hub.break_with(Fault("status", status=503, path=path), Fault("cut", path=path))
    job.publish(token=require_token)
    job.require_published()
    assert job.slept == [1, 2]


def test_an_exchange_that_fails_for_ever_is_given_up(job: Publisher) -> None:
    fault = Fault("status", status=500, path="/oauth/token", times=99)
    job.hub.break_with(fault)
    assert "(status 500" in refused(job).problem
    assert fault.happened == 5 and job.slept == [1, 2, 4, 8]


def test_the_window_of_the_exchange_is_waited_out(job: Publisher) -> None:
    window = {"RateLimit": '"oauth";r=0;t=120'}
    job.hub.break_with(Fault("status", status=429, headers=window, path="/oauth/token"))
    job.publish(token=require_token)
    job.require_published()
    assert job.slept == [120]


def test_a_ci_that_does_not_answer_is_named(
    job: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", "http://127.0.0.1:9/token")
    assert "127.0.0.1 doesn't answer" in refused(job).problem


def test_tokens_of_jobs_are_scrubbed() -> None:
    text = "sent eyJhbGciOi.eyJzdWIi.c2lnbmVk for hf_jwt_eyJhbGciOi.eyJzdWIi.c2ln_-bmVk"
    assert scrub(text) == "sent (token) for (token)"
