"""What changes something on a Hub is sent once, and believed only when it was seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from checkpoint_release.release.hub_errors import RequestError
from checkpoint_release.release.requests import WAITS, Requests

SEEN = "the result"


class Hub:
    """A Hub that fails as often as it should, and shows what it did late or never.

    Args:
        failures: one for each request that fails, in order.
        shown_after: how often the result is looked for in vain; None: it never shows.
    """

    def __init__(self, *failures: RequestError, shown_after: int | None = None) -> None:
        self.sent = self.looked_at = 0
        self.slept: list[float] = []
        self._failures: Iterator[RequestError] = iter(failures)
        self._shown_after = shown_after

    def act(self) -> None:
        self.sent += 1
        failure = next(self._failures, None)
        if failure is not None:
            raise failure

    def find_result(self) -> str | None:
        self.looked_at += 1
        if self._shown_after is None or self.looked_at <= self._shown_after:
            return None
        return SEEN

    def change(self) -> str:
        address = "http://localhost"
        requests = Requests(address, None, timeout=1.0, sleep=self.slept.append)
        return requests.change(self.act, self.find_result, "committing")


def lost() -> RequestError:
    """An answer that got lost: the Hub may have acted."""
    return RequestError("no answer", "try again", transient=True)


def test_what_the_hub_confirmed_is_looked_at() -> None:
    hub = Hub(shown_after=0)
    assert hub.change() == SEEN
    assert hub.sent == hub.looked_at == 1 and not hub.slept


def test_what_shows_late_is_waited_for_and_not_sent_again() -> None:
    hub = Hub(shown_after=2)
    assert hub.change() == SEEN
    assert hub.sent == 1 and hub.slept == [*WAITS[:2]]


def test_what_never_shows_is_not_believed() -> None:
    hub = Hub()
    with pytest.raises(
        RequestError, match="confirmed it, but doesn't show it"
    ) as error:
        hub.change()
    assert error.value.problem.startswith("committing: ")
    assert hub.sent == 1 and hub.slept == [*WAITS]
    assert hub.looked_at == len(WAITS) + 1


def test_what_happened_although_its_answer_was_lost_is_not_sent_again() -> None:
    hub = Hub(lost(), shown_after=0)
    assert hub.change() == SEEN
    assert hub.sent == 1 and not hub.slept


def test_what_did_not_happen_is_sent_again() -> None:
    hub = Hub(lost(), lost(), shown_after=2)
    assert hub.change() == SEEN
    assert hub.sent == 3 and hub.slept == [*WAITS[:2]]


def test_what_keeps_failing_is_given_up() -> None:
    hub = Hub(*(lost() for _ in range(9)))
    with pytest.raises(RequestError, match="no answer"):
        hub.change()
    assert hub.sent == hub.looked_at == len(WAITS) + 1 and hub.slept == [*WAITS]


def test_what_was_refused_is_neither_looked_for_nor_sent_again() -> None:
    hub = Hub(RequestError("no right to it", "ask for it"), shown_after=0)
    with pytest.raises(RequestError, match="no right to it"):
        hub.change()
    assert hub.sent == 1 and hub.looked_at == 0 and not hub.slept
