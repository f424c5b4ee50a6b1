"""Calls that come to a good end although their attempts did not: when they end, who is asked, and what is on record."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Alias, Closed, Grant, Limits, ModelRow, Provider, Snapshot, TargetRef
from headgate.policy.auth import digest
from headgate.testing.provider.scripted import Script, ScriptedUpstream
from tests.dataplane import TOKEN, DataPlane
from tests.serving.calls import chunk_event, scripted_in_thread, transcript
from tests.serving.test_failed_attempts import (
    COMPLAINT,
    DONE,
    FINE,
    HELLO,
    KEY,
    PRICE,
    ROLE,
    STOP,
    WORLD,
    answered,
    ask,
    broken,
    chain,
    closed,
    hanging,
    refused,
)


@contextlib.contextmanager
def rows(
    state: Path, *upstreams: tuple[ModelRow, list[Script]], **alias: Any
) -> Iterator[tuple[DataPlane, list[ScriptedUpstream]]]:
    """As ``chain``, each provider with a row of its own."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(scripted_in_thread(*scripts)) for _, scripts in upstreams]
        providers = {
            f"p{i}": Provider(f"p{i}", one.url, auth="none", models={"m": row})
            for i, (one, (row, _)) in enumerate(zip(running, upstreams, strict=True))
        }
        world = Snapshot(
            tokens={digest(KEY, TOKEN.encode()): Grant("t0", "test")},
            providers=providers,
            aliases={"chain": Alias("chain", tuple(TargetRef(f"{name}/m") for name in providers), **alias)},
        )
        state.mkdir(exist_ok=True)
        (state / "instance.key").write_bytes(KEY)
        yield stack.enter_context(DataPlane(state, snapshot=world, limits=Limits())), running


def codes(record: Closed) -> list[tuple[str, str, str]]:
    return [(one.provider, one.why, one.code) for one in record.attempts]


# ------------------------------------------------------------------------------------- when it ends


def test_a_fallback_that_allows_less_than_has_gone_by_is_asked(tmp_path: Path) -> None:
    """The end of a call does not come nearer with the next target."""
    slow = [("expect_request",), ("wait", 1.5), refused(b"503 Busy")[1]]
    first = ModelRow("m", price=PRICE, timeouts={"total": 10.0}), [slow]
    with rows(tmp_path / "s", first, (ModelRow("m", price=PRICE), [answered(FINE)]), timeouts={"total": 1.0}) as (
        plane, (_, second),
    ):  # fmt: skip
        answer = ask(plane)
        answer.check_stream("world")
        assert codes(closed(plane)) == [("p0", "first", "upstream_overloaded"), ("p1", "fallback", "")]
        assert len(second.requests) == 1


def test_a_retry_after_of_a_failure_is_waited_for(tmp_path: Path) -> None:
    scripts = [refused(b"500 Oops", "oops", b"retry-after: 1"), answered(FINE)]
    with chain(tmp_path / "s", scripts) as (plane, (only,)):
        began = time.monotonic()
        ask(plane).check_stream("world")
        assert time.monotonic() - began > 0.9 and len(only.requests) == 2


# ------------------------------------------------------------------------------------- who goes on


def test_who_says_nothing_takes_nobodys_turn_away(tmp_path: Path) -> None:
    busy = [[refused(b"503 Busy")], [refused(b"503 Busy")]]
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], *busy, [answered(FINE)]) as (plane, _):
        ask(plane).check_stream("Hello world")
        assert [one[0] for one in codes(closed(plane))] == ["p0", "p1", "p2", "p3"]


def test_six_attempts_are_the_bound_all_the_same(tmp_path: Path) -> None:
    busy = [[refused(b"503 Busy")] for _ in range(7)]
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], *busy) as (plane, _):
        ask(plane).check_truncated("upstream_cut")
        assert len(closed(plane).attempts) == 6


@pytest.mark.parametrize("status", [b"429 Slow", b"503 Busy"])
def test_retry_after_is_awaited_without_alternative(tmp_path: Path, status: bytes) -> None:
    scripts = [broken(ROLE, HELLO), refused(status, "slow", b"retry-after: 1"), answered(FINE)]
    with chain(tmp_path / "s", scripts) as (plane, _):
        began = time.monotonic()
        ask(plane).check_stream("Hello world")
        assert time.monotonic() - began > 0.9
        assert [one[1] for one in codes(closed(plane))] == ["first", "continue", "continue"]


def test_a_filter_is_no_refusal_of_a_prefill(tmp_path: Path) -> None:
    second = [refused(b"400 Bad", "blocked by the content filter")]
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], second) as (plane, (_, other)):
        assert ask(plane).text == "Hello "
        assert codes(closed(plane))[1:] == [("p1", "continue", "content_filter")] and len(other.requests) == 1


# ------------------------------------------------------------------------------------- what is complete


def test_events_are_no_tokens(tmp_path: Path) -> None:
    """Ten events of a character each are not the ten tokens that were asked for."""
    letters = [chunk_event({"content": letter}) for letter in "abcdefghij"]
    with chain(tmp_path / "s", [broken(ROLE, *letters)], [answered(transcript("klm"))]) as (plane, (_, second)):
        ask(plane, max_tokens=10).check_stream("abcdefghijklm")
    assert json.loads(second.requests[0].body)["max_tokens"] == 8


def _reported(text: str, tokens: int) -> bytes:
    usage = b'"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}' % (tokens, tokens + 7)
    return chunk_event({"content": text}).replace(b'"choices"', usage + b',"choices"')


@pytest.mark.parametrize(
    "events",
    [
        [chunk_event({"content": f"word{i} "}) for i in range(6)],
        [_reported("a", 2), _reported("b", 4), _reported("c", 6)],
    ],
    ids=["as long as tokens are", "as its provider reports"],
)
def test_all_that_was_asked_for_is_complete(tmp_path: Path, events: list[bytes]) -> None:
    with chain(tmp_path / "s", [broken(ROLE, *events)], [answered(FINE)]) as (plane, (_, second)):
        answer = ask(plane, max_tokens=6)
        assert answer.finishes == ["length"] and answer.raw.endswith(DONE) and not second.requests
        assert codes(closed(plane)) == [("p0", "first", "")]


@pytest.mark.parametrize("late", [COMPLAINT, b""], ids=["an error", "silence"])
def test_who_has_said_all_has_delivered(tmp_path: Path, late: bytes) -> None:
    """Whatever came behind the finish reason: one attempt, in each place where a client can read of it."""
    first = answered(ROLE + HELLO + STOP + late) if late else hanging(ROLE, HELLO, STOP)
    with chain(tmp_path / "s", [first], [answered(FINE)], timeouts={"stall": 0.5}) as (plane, (_, second)):
        answer = ask(plane, stream_options={"include_usage": True}, include_route_trace=True)
        record = closed(plane)
    last = answer.chunks[-1]
    assert (answer.text, not second.requests, answer.headers["x-headgate-attempts"]) == ("Hello ", True, "1")
    assert last["headgate"]["attempts"] == 1
    (told,) = last["route_trace"]["attempts"]
    assert (told["status"], told["code"]) == (200, None)
    assert (record.outcome, codes(record), record.attempts[0].status) == ("delivered", [("p0", "first", "")], 200)


def test_a_continuation_that_has_said_all_has_delivered(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [broken(ROLE, HELLO)], [answered(ROLE + WORLD + STOP + COMPLAINT)]) as (plane, _):
        answer = ask(plane, stream_options={"include_usage": True})
        record = closed(plane)
    assert answer.text == "Hello world" and answer.chunks[-1]["headgate"]["attempts"] == 2
    assert codes(record) == [("p0", "first", "upstream_cut"), ("p1", "continue", "")]
    assert record.attempts[1].completion_tokens > 0
