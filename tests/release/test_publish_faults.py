"""Whatever goes wrong at whichever request of a publication, running it again ends with
exactly the release.

A clean run is recorded; then every one of its requests is broken in every way, once and
lastingly.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import _auth

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release.hub import Hub
from checkpoint_release.release.plan import LocalFile, Published, Survey, Target
from checkpoint_release.release.tokens import require_token
from tests.support.hub_server import Account, Fault
from tests.support.hub_server.trusted import MINT
from tests.support.publishing import (
    REPO,
    SENDING,
    TOKEN,
    Publisher,
    become_job,
    fake_artifacts,
)

pytestmark = [
    pytest.mark.filterwarnings(SENDING),
    pytest.mark.timeout(1800),  # some publish a hundred times
]

Setting = Callable[[Publisher], None]
Request = tuple[str, str, int]  # method, path, how many of the same came before


def start(publisher: Publisher, setting: Setting) -> None:
    """An empty Hub, no receipt, and what the setting adds."""
    publisher.hub.reset()
    publisher.hub.add_token(TOKEN, Account("ada"))
    publisher.receipt_path.unlink(missing_ok=True)
    setting(publisher)
    publisher.hub.requests.clear()


def recorded(publisher: Publisher, setting: Setting, **params: Any) -> list[Request]:
    """The requests of a publication in which nothing goes wrong."""
    start(publisher, setting)
    publisher.publish(**params)
    seen: Counter[tuple[str, str]] = Counter()
    requests = []
    for method, path, _ in publisher.hub.requests:
        requests.append((method, path, seen[method, path]))
        seen[method, path] += 1
    return requests


def attempt(publisher: Publisher, **params: Any) -> None:
    """Publish; it may fail, with one clear error and without a receipt."""
    before = publisher.receipt_text
    try:
        publisher.publish(**params)
    except PublishError as error:
        assert error.problem and error.remedy and TOKEN not in str(error)
        assert publisher.receipt_text == before


def survives(
    publisher: Publisher, setting: Setting, fault: Fault, releases: int, **params: Any
) -> None:
    """After the fault and one more run, everything is as if nothing had been."""
    start(publisher, setting)
    publisher.hub.break_with(fault)
    attempt(publisher, **params)
    assert fault.happened, "the fault did not strike"
    publisher.hub.break_with()
    publisher.publish(**params)
    publisher.require_published(
        version=params.get("version", "v1.0.0"), releases=releases
    )


def nothing(publisher: Publisher) -> None:
    """No repository yet."""


def earlier_release(publisher: Publisher) -> None:
    """A repository with another release, which had a format more; now with files in
    parts and lists in pages.
    """
    fake_artifacts(publisher.artifacts)
    publisher.publish(version="v0.9.0")
    publisher.repo.edit({"retired.bin": b"of a retired format"}, title="Release v0.9.1")
    publisher.repo.tags["v0.9.1"] = publisher.repo.branches["main"]
    publisher.receipt_path.unlink()
    publisher.deletable = ["retired.bin"]
    hub = publisher.hub.hub
    hub.multipart_over, hub.chunk_size, hub.page_size = 100, 64, 4
    fake_artifacts(publisher.artifacts, weights=bytes(range(200)))


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_an_error_after_the_server_acted_is_survived_at_any_request(
    publisher: Publisher, step: int
) -> None:
    """At every third one, and at each one in the slow tests."""
    for method, path, nth in recorded(publisher, nothing)[::step]:
        fault = Fault(
            "status", status=504, after=True, method=method, path=path, nth=nth
        )
        survives(publisher, nothing, fault, releases=1)


@pytest.mark.slow
def test_a_cut_connection_is_survived_at_any_request(publisher: Publisher) -> None:
    for method, path, nth in recorded(publisher, nothing):
        survives(
            publisher,
            nothing,
            Fault("cut", method=method, path=path, nth=nth),
            releases=1,
        )


@pytest.mark.slow
def test_a_publication_that_dies_at_any_request_is_finished_by_the_next(
    publisher: Publisher,
) -> None:
    """From some request on the Hub is gone, as if the process or the network had been
    killed there.
    """
    for position in range(len(recorded(publisher, nothing))):

        class Gone(Fault):
            def strikes(self, method: str, path: str, since: int = position) -> bool:
                self.seen += 1
                self.happened += self.seen > since
                return self.seen > since

        survives(publisher, nothing, Gone("cut"), releases=1)


STATUSES = [
    *((429, 1, False), (429, 99, False), (500, 1, True), (500, 99, False)),
    *((503, 1, False), (503, 99, True), (504, 1, True), (504, 99, True)),
]


@pytest.mark.slow
@pytest.mark.parametrize("setting", [nothing, earlier_release])
@pytest.mark.parametrize(("status", "times", "after"), STATUSES)
def test_a_status_once_or_lastingly_at_any_request_is_survived(
    publisher: Publisher, setting: Setting, status: int, times: int, after: bool
) -> None:
    requests = recorded(publisher, setting)
    assert len(requests) > 15
    for method, path, nth in requests:
        only = nth if times == 1 else None
        fault = Fault(
            "status",
            after=after,
            status=status,
            method=method,
            path=path,
            nth=only,
            times=times,
        )
        survives(publisher, setting, fault, releases=1 if setting is nothing else 3)


@pytest.mark.slow
@pytest.mark.parametrize("setting", [nothing, earlier_release])
@pytest.mark.parametrize("kind", ["cut", "hang"])
@pytest.mark.parametrize("after", [False, True])
def test_every_lost_answer_is_survived(
    publisher: Publisher, setting: Setting, kind: Any, after: bool
) -> None:
    for method, path, nth in recorded(publisher, setting):
        fault = Fault(kind, after=after, method=method, path=path, nth=nth)
        survives(
            publisher,
            setting,
            fault,
            releases=1 if setting is nothing else 3,
            timeout=0.5,
        )


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_pull_request_is_opened_once_whatever_goes_wrong(
    publisher: Publisher, after: bool
) -> None:
    def exists(publisher: Publisher) -> None:
        publisher.hub.hub.create(REPO)

    for method, path, nth in recorded(publisher, exists, create_pr=True):
        start(publisher, exists)
        publisher.hub.break_with(
            Fault("status", after=after, status=504, method=method, path=path, nth=nth)
        )
        attempt(publisher, create_pr=True)
        publisher.hub.break_with()
        publisher.publish(create_pr=True)
        assert len(publisher.repo.pulls) == 1
        assert publisher.on_hub("refs/pr/1") == publisher.release
        assert str(publisher.receipt.pull_request).endswith("/discussions/1")
        assert publisher.on_hub() == {}


# Requests that only some publications make


@pytest.fixture
def job(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """A job of CI, whose token is exchanged for its identity."""
    become_job(publisher, monkeypatch)
    return publisher


def trusted(publisher: Publisher) -> None:
    """A repository that trusts the job, which has no token yet."""
    publisher.hub.hub.create(REPO)
    publisher.hub.trusted.trusted[REPO] = {"repository": "ada/training"}
    publisher.hub.trusted.job = {"repository": "ada/training"}
    _auth._OIDC_TOKEN_CACHE = None


def in_xet(publisher: Publisher) -> None:
    """A repository that stores large files in Xet, and weights that it never saw: its
    client remembers what it sent.
    """
    fake_artifacts(publisher.artifacts, weights=secrets.token_bytes(100))
    publisher.hub.hub.create(REPO)
    publisher.hub.xet.spoken = True


@pytest.fixture
def _uncompressed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the Xet storage of the tests wants it."""
    monkeypatch.setenv("HF_XET_XORB_COMPRESSION_POLICY", "none")
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path_factory.mktemp("xet")))


EXCHANGE = (MINT, "/oauth/token")
KINDS: list[dict[str, Any]] = [
    *({"kind": "status", "status": 504, "after": each} for each in (False, True)),
    *({"kind": "cut", "after": each} for each in (False, True)),
    {"kind": "hang"},
    *({"kind": "status", "status": 429, "times": each} for each in (1, 99)),
    *({"kind": "status", "status": 500, "times": each} for each in (1, 99)),
    *({"kind": "status", "status": 503, "times": each} for each in (1, 99)),
]


@pytest.mark.slow
@pytest.mark.parametrize("path", EXCHANGE)
@pytest.mark.parametrize("fault", KINDS, ids=str)
def test_whatever_goes_wrong_with_the_exchange_of_a_token_is_survived(
    job: Publisher, path: str, fault: dict[str, Any]
) -> None:
    survives(
        job,
        trusted,
        Fault(path=path, **fault),
        releases=1,
        token=require_token,
        timeout=0.5,
    )


@pytest.mark.slow
def test_a_token_that_ends_at_any_request_is_exchanged_anew(job: Publisher) -> None:
    """Each is good for one request; and whichever request fails, the next run ends."""
    requests = recorded(job, trusted, token=require_token)
    assert {path for _, path, _ in requests} >= set(EXCHANGE)
    for method, path, nth in requests:
        start(job, trusted)
        job.hub.trusted.lifetime, job.hub.trusted.uses = 300, 1
        job.hub.break_with(
            Fault("status", status=504, after=True, method=method, path=path, nth=nth)
        )
        attempt(job, token=require_token)
        job.hub.break_with()
        job.publish(token=require_token)
        job.require_published()


@pytest.mark.slow
@pytest.mark.usefixtures("_uncompressed")
@pytest.mark.parametrize("fault", KINDS, ids=str)
def test_whatever_goes_wrong_with_the_question_for_xet_is_survived(
    publisher: Publisher, fault: dict[str, Any]
) -> None:
    path = "*/xet-write-token/*"
    asked = {"transfer": "auto", "timeout": 0.5}
    survives(publisher, in_xet, Fault(path=path, **fault), releases=1, **asked)


@pytest.mark.slow
@pytest.mark.usefixtures("_uncompressed")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "path", ["*/v1/xorbs/*", "*/v1/shards", "*/commit/*", "*/tag/*"]
)
def test_an_error_at_any_step_of_xet_is_survived(
    publisher: Publisher, path: str, after: bool
) -> None:
    fault = Fault("status", status=503, after=after, path=path)
    survives(publisher, in_xet, fault, releases=1, transfer="xet")


def commit_carelessly(
    hub: Hub, local: Mapping[str, LocalFile], target: Target, survey: Survey
) -> Published:
    """Send a commit again without looking, and without naming its parent."""
    hub.api.create_repo(target.repo_id)
    additions = [CommitOperationAdd(path, file.path) for path, file in local.items()]
    for _ in range(3):
        with suppress(HfHubHTTPError):
            commit = hub.api.create_commit(
                target.repo_id, additions, commit_message=target.title
            )
            return Published(commit.oid, None, None, changed=True)
    raise AssertionError("three faults in a row")


def test_a_client_that_sends_again_without_looking_is_caught_by_these_tests(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("checkpoint_release.release.upload.publish", commit_carelessly)
    start(publisher, nothing)
    publisher.hub.break_with(Fault("status", status=504, after=True, path="*/commit/*"))
    publisher.publish(version=None)
    with pytest.raises(AssertionError, match="Release"):
        publisher.require_published(version=None)
