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


@pytest.mark.parametrize("path", ["*/objects/batch", "*/commit/*"])
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
