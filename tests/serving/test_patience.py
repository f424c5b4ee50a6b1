"""The deadlines of an attempt, on a wheel whose time is an argument."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from headgate.errors import UPSTREAM_TIMEOUT, GatewayError
from headgate.model import Timeouts
from headgate.serving.loop.wheel import NEVER
from headgate.serving.upstream.patience import Patience

TIMEOUTS = Timeouts(headers=10.0, first_token=20.0, stall=5.0)
DEADLINE = 100.0


class Attempt:
    """A Patience and what it has reported."""

    def __init__(self, *, streamed: bool = True) -> None:
        self.wheel = SimpleNamespace(now=0.0, set=self._set, drop=self._drop)
        self.errors: list[GatewayError] = []
        self.patience = Patience(cast(Any, self.wheel), self.errors.append)
        self.patience.begin(TIMEOUTS, DEADLINE, streamed)

    def _set(self, entry: Patience, due: float) -> None:
        entry.due, entry.slot = due, 1

    def _drop(self, entry: Patience) -> None:
        entry.slot = -1

    def advance(self, seconds: float) -> None:
        """Let time pass; a deadline that it reaches expires at its instant."""
        until = self.wheel.now + seconds
        while self.patience.slot >= 0 and self.patience.due <= until and not self.errors:
            self.wheel.now = max(self.wheel.now, self.patience.due)
            self.patience.expire(self.wheel.now)
        self.wheel.now = until

    @property
    def reason(self) -> str:
        (error,) = self.errors
        assert error.kind is UPSTREAM_TIMEOUT
        return error.message


def test_head_has_a_deadline_of_its_own() -> None:
    attempt = Attempt()
    attempt.advance(9.9)
    assert not attempt.errors
    attempt.advance(0.1)
    assert "the response head took too long" in attempt.reason


def test_whole_answer_has_only_the_deadline_of_the_attempt() -> None:
    attempt = Attempt(streamed=False)
    attempt.advance(99.9)
    assert not attempt.errors
    attempt.advance(0.1)
    assert "the whole answer took too long" in attempt.reason


def test_first_token_then_silence_between_events() -> None:
    attempt = Attempt()
    attempt.patience.begin_first_token()
    attempt.advance(19.0)
    attempt.patience.begin_stalling()
    for _ in range(10):
        attempt.advance(4.9)
        attempt.patience.last_event_at = attempt.wheel.now  # an event
    assert not attempt.errors
    attempt.advance(5.0)
    assert "the next token took too long" in attempt.reason


def test_no_phase_outlasts_the_attempt() -> None:
    attempt = Attempt()
    attempt.patience.begin_stalling()
    while not attempt.errors:
        attempt.advance(4.0)
        attempt.patience.last_event_at = attempt.wheel.now
    assert DEADLINE <= attempt.wheel.now <= DEADLINE + 4.0
    assert "the whole answer took too long" in attempt.reason


def test_the_end_has_the_time_that_it_was_given() -> None:
    attempt = Attempt()
    attempt.patience.begin_stalling()
    attempt.patience.begin_ending(1.0)
    attempt.advance(1.0)
    assert "the end of the answer took too long" in attempt.reason


@pytest.mark.parametrize(
    ("phase", "seconds", "name"),
    [("begin_first_token", 20.0, "the first token"), ("begin_stalling", 5.0, "the next token")],
)
def test_a_paused_attempt_does_not_stall(phase: str, seconds: float, name: str) -> None:
    attempt = Attempt()
    getattr(attempt.patience, phase)()
    attempt.patience.pause()
    attempt.advance(50.0)
    assert not attempt.errors
    attempt.patience.resume()
    attempt.advance(seconds - 0.1)
    assert not attempt.errors
    attempt.advance(0.1)
    assert f"{name} took too long" in attempt.reason


def test_a_phase_that_begins_while_paused_is_the_one_to_go_on_with() -> None:
    """The last read before the pause may bring the first token, and the end's announcement too."""
    attempt = Attempt()
    attempt.patience.begin_first_token()
    attempt.patience.pause()
    attempt.patience.begin_stalling()
    assert attempt.patience.due == DEADLINE
    attempt.patience.begin_ending(1.0)
    attempt.patience.resume()
    attempt.advance(1.0)
    assert "the end of the answer took too long" in attempt.reason


def test_nothing_is_waited_for_between_two_attempts() -> None:
    attempt = Attempt()
    attempt.patience.end()
    attempt.patience.begin_stalling()  # a pump that says what it had left to say
    assert attempt.patience.due == NEVER
    attempt.patience.begin(TIMEOUTS, attempt.wheel.now + DEADLINE, True)
    attempt.advance(10.0)
    assert "the response head took too long" in attempt.reason
