"""How long publishing insists on an answer, and what it reports when none is good:
tries are counted, and a full storage is no missing right.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from checkpoint_release.core.errors import PublishError
from checkpoint_release.release import hub_errors
from tests.support.hub_server import Fault
from tests.support.publishing import REPO, SENDING, Publisher

pytestmark = pytest.mark.filterwarnings(SENDING)

TRIES_OF_THE_CLIENT = 6
"""By huggingface_hub, over 23 s."""
OUR_TRIES = 5
"""Over 15 s, of the requests that huggingface_hub sends once."""


def tries(publisher: Publisher, path: str, **fault: Any) -> int:
    """How often a request is sent that fails for ever."""
    publisher.hub.hub.create(REPO)
    publisher.hub.break_with(Fault("status", path=path, times=999, **fault))
    with pytest.raises(PublishError):
        publisher.publish()
    (broken,) = publisher.hub.broken
    return broken.happened


# Tries


@pytest.mark.parametrize("path", ["*/tree/*", "*/preupload/*", "*/objects/batch"])
def test_a_request_that_the_client_repeats_is_not_repeated_by_us_as_well(
    publisher: Publisher, path: str
) -> None:
    assert tries(publisher, path, status=500) == TRIES_OF_THE_CLIENT
    assert sum(publisher.slept) <= 23


@pytest.mark.parametrize("path", ["*/refs", "*/commit/*", f"/api/models/{REPO}"])
def test_a_request_that_the_client_sends_once_is_repeated_by_us(
    publisher: Publisher, path: str
) -> None:
    assert tries(publisher, path, status=500) == OUR_TRIES
    assert publisher.slept == [1, 2, 4, 8]


@pytest.mark.slow
def test_tries_multiply_where_the_failed_request_is_unknown(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_errors, "_request_of", lambda error: None)
    found = tries(publisher, "*/tree/*", status=500)
    assert found == TRIES_OF_THE_CLIENT * OUR_TRIES
    assert sum(publisher.slept) > 100


# A full storage

LIMIT_REACHED = "Private repository storage limit reached, please upgrade your plan"


def refused(publisher: Publisher, path: str, status: int, message: str) -> PublishError:
    """The error that publishing meets where the Hub answers so."""
    publisher.hub.hub.create(REPO)
    body = json.dumps({"error": message})
    publisher.hub.break_with(
        Fault("status", status=status, path=path, body=body, times=99)
    )
    with pytest.raises(PublishError) as caught:
        publisher.publish()
    assert not publisher.receipt_path.exists()
    return caught.value


@pytest.mark.parametrize("path", ["*/objects/batch"])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, LIMIT_REACHED),
        (403, "Your storage patterns tripped our internal systems!"),
        (402, "Payment required"),
        (413, "Payload too large"),
    ],
)
def test_a_full_storage_is_no_missing_right(
    publisher: Publisher, path: str, status: int, message: str
) -> None:
    error = refused(publisher, path, status, message)
    assert f"the Hub has no room for it ({status}" in error.problem
    assert message in error.problem
    assert "free storage" in error.remedy and "write access" not in error.remedy
    assert publisher.slept == []


def test_a_missing_right_is_no_full_storage(publisher: Publisher) -> None:
    error = refused(publisher, "*/commit/*", 403, "Forbidden: use a write token")
    assert "the token of ada has no right to do that (403" in error.problem
    assert "write access" in error.remedy


# Windows in which requests are counted

WINDOW = {"RateLimit": '"api";r=0;t=290'}


@pytest.mark.parametrize(
    ("path", "seconds"), [("*/commit/*", 290), ("*/tree/*", 291), ("*/refs", 290)]
)
def test_a_window_is_waited_out(
    publisher: Publisher, capsys: pytest.CaptureFixture[str], path: str, seconds: float
) -> None:
    """By the client itself, a second longer, or by us."""
    publisher.hub.hub.create(REPO)
    publisher.hub.break_with(Fault("status", status=429, headers=WINDOW, path=path))
    publisher.publish()
    publisher.require_published()
    assert publisher.slept == [seconds]
    assert "wait 290 s" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["*/commit/*", "*/tree/*", "*/refs"])
def test_windows_are_waited_out_up_to_a_limit_for_all_of_them(
    publisher: Publisher, path: str
) -> None:
    publisher.hub.hub.create(REPO)
    fault = Fault("status", status=429, headers=WINDOW, path=path, times=99)
    publisher.hub.break_with(fault)
    with pytest.raises(PublishError) as caught:
        publisher.publish()
    assert fault.happened == 3 and sum(publisher.slept) < 600
    assert "asks to wait 290 s" in caught.value.problem
    assert "after 580 s of waiting, and publish.patience is 600 s" in str(caught.value)
    assert "raise publish.patience" in caught.value.remedy
    publisher.hub.break_with()
    publisher.publish()
    publisher.require_published()


def test_who_has_no_patience_waits_for_no_window(publisher: Publisher) -> None:
    publisher.hub.break_with(
        Fault("status", status=429, headers=WINDOW, path="*/commit/*", times=99)
    )
    with pytest.raises(PublishError, match=r"patience is 10 s"):
        publisher.publish(patience=10.0)
    assert publisher.slept == []


def test_a_window_with_requests_left_is_no_reason_to_wait(
    publisher: Publisher,
) -> None:
    headers = {"RateLimit": '"api";r=7;t=290'}
    publisher.hub.break_with(
        Fault("status", status=503, headers=headers, path="*/commit/*")
    )
    publisher.publish()
    assert publisher.slept == [1]
