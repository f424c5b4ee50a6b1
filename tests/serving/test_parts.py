"""Calls of several attempts: what each one's part is, what it costs, and for whom none is started."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Closed, ModelRow
from headgate.testing.provider.scripted import Script
from tests.serving.calls import Answer, chunk_event, last_closed, opened
from tests.serving.test_failed_attempts import (
    DONE,
    FINE,
    HELLO,
    PRICE,
    ROLE,
    STOP,
    THOUGHT,
    WORLD,
    answered,
    ask,
    broken,
    chain,
    closed,
    hanging,
    refused,
    request,
)
from tests.serving.test_recovered import codes, rows
from tests.waiting import wait_until

INCLUDED = {"stream_options": {"include_usage": True}}


def usage(prompt: int, completion: int, **more: Any) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}
    return b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n"


def shown(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = next(chunk["usage"] for chunk in answer.chunks if chunk.get("usage"))
    return found


# ------------------------------------------------------------------------------------- what it costs


def test_reasoning_and_the_answer_of_another_are_both_counted(tmp_path: Path) -> None:
    thought = ROLE + THOUGHT * 60 + STOP + usage(10, 60) + DONE
    said = ROLE + WORLD * 20 + STOP + usage(10, 20) + DONE
    with chain(tmp_path / "s", [answered(thought)], [answered(said)]) as (plane, _):
        counts = shown(ask(plane, **INCLUDED))
        record = closed(plane)
    assert (counts["prompt_tokens"], counts["completion_tokens"], counts["total_tokens"]) == (10, 80, 90)
    assert counts["completion_tokens_details"] == {"reasoning_tokens": 60}
    assert (record.prompt_tokens, record.completion_tokens, record.basis) == (10, 80, "provider")
    assert record.cost == 10 * 1000 + 80 * 2000  # each token once


def test_a_prompt_that_was_cached_is_no_more_than_the_prompt(tmp_path: Path) -> None:
    """The text that a continuation was given comes out of its cache too: none of it is the client's prompt."""
    rest = ROLE + WORLD + STOP + usage(60, 1, prompt_tokens_details={"cached_tokens": 48}) + DONE
    with chain(tmp_path / "s", [broken(ROLE, *[chunk_event({"content": "a b c "})] * 48)], [answered(rest)]) as (
        plane,
        _,
    ):
        counts = shown(ask(plane, **INCLUDED))
        record = closed(plane)
    assert counts["prompt_tokens"] == 12 and counts["completion_tokens"] == 49
    assert counts.get("prompt_tokens_details", {}).get("cached_tokens", 0) <= 12
    assert record.cached_tokens <= record.prompt_tokens == 12
    assert record.cost == 12 * 1000 + 49 * 2000  # what the client reads is what it costs


def test_delivered_text_keeps_its_price(tmp_path: Path) -> None:
    silent: Script = [("expect_request",), ("expect_close",)]
    with rows(tmp_path / "s", (ModelRow("m", price=PRICE), [broken(ROLE, HELLO)]), (ModelRow("m"), [silent])) as (
        plane,
        up,
    ):
        with opened(plane, request()) as one:
            one.head().until(b"Hello")
            wait_until(lambda: up[1].requests)
            one.leave()
        plane.wait_for(Closed)
        record = last_closed(plane)
    assert [one.provider for one in record.attempts] == ["p0", "p1"] and record.outcome == "cancelled"
    assert record.cost == record.attempts[0].cost > 0


# ------------------------------------------------------------------------------------- as it was asked


def test_the_rows_own_limit_holds_for_the_whole_answer(tmp_path: Path) -> None:
    words = ["seven", "words", "which", "never", "say a", " thing", "twice"]  # a refrain could be an echo
    begun = broken(ROLE, *[chunk_event({"content": word}) for word in words])
    first = ModelRow("m", price=PRICE, param_defaults={"max_tokens": b"10"}), [begun]
    second = ModelRow("m", prefill="trailing"), [answered(FINE)]
    with rows(tmp_path / "s", first, second) as (plane, upstreams):
        assert ask(plane).text == "".join(words) + "world"
    asked = [json.loads(upstream.requests[0].body).get("max_tokens") for upstream in upstreams]
    assert asked == [10, 3]


@pytest.mark.parametrize(
    "default", [{"frequency_penalty": b"0.5"}, {"response_format": b'{"type":"json_object"}'}, {"logprobs": b"true"}]
)
def test_what_a_row_adds_may_forbid_to_go_on(tmp_path: Path, default: dict[str, bytes]) -> None:
    first = ModelRow("m", price=PRICE, param_defaults=default), [broken(ROLE, HELLO)]
    with rows(tmp_path / "s", first, (ModelRow("m", prefill="trailing"), [answered(FINE)])) as (plane, (_, second)):
        ask(plane).check_truncated("upstream_cut")
        assert not second.requests


def test_each_target_may_refuse_the_field_that_we_added(tmp_path: Path) -> None:
    no = b"400 Bad", "Unrecognized request argument supplied: stream_options"
    first: list[Script] = [refused(*no), refused(b"503 Busy")]
    with chain(tmp_path / "s", first, [refused(*no), answered(FINE)]) as (plane, upstreams):
        ask(plane).check_stream("world")
        assert [one.why for one in closed(plane).attempts] == ["first", "retry", "fallback", "retry"]
        asked = [["stream_options" in json.loads(r.body) for r in upstream.requests] for upstream in upstreams]
    assert asked == [[True, False], [True, False]]


def test_it_may_refuse_it_as_well_when_it_is_to_go_on(tmp_path: Path) -> None:
    no = b"400 Bad", "Unrecognized request argument supplied: stream_options"
    with chain(tmp_path / "s", [refused(*no), broken(ROLE, HELLO)], [refused(*no), answered(FINE)]) as (
        plane,
        (_, two),
    ):
        ask(plane).check_stream("Hello world")
        assert [one.why for one in closed(plane).attempts] == ["first", "retry", "continue", "continue"]
        assert [json.loads(r.body)["messages"][-1]["role"] for r in two.requests] == ["assistant"] * 2


# ------------------------------------------------------------------------------------- when it may be asked


def test_the_first_attempt_waits_where_the_target_said_when(tmp_path: Path) -> None:
    slow = refused(b"429 Slow", "later", b"retry-after: 2")
    with chain(tmp_path / "s", [slow, answered(FINE)], retries=0) as (plane, (upstream,)):
        assert ask(plane).status == 429
        began = time.monotonic()
        ask(plane).check_stream("world")
        assert time.monotonic() - began > 1.5
        assert len(upstream.requests) == 2 and len(last_closed(plane).attempts) == 1


def test_departed_client_starts_no_second_attempt(tmp_path: Path) -> None:
    slow = refused(b"429 Slow", "later", b"retry-after: 2")
    with chain(tmp_path / "s", [slow, answered(FINE)], retries=0) as (plane, (upstream,)):
        assert ask(plane).status == 429
        with opened(plane, request()) as one:
            time.sleep(0.3)
            one.leave()
        plane.wait_for(Closed, 2)
        time.sleep(2.5)
        assert len(upstream.requests) == 1 and last_closed(plane).outcome == "cancelled"


def test_an_error_inside_a_stream_says_when_as_a_status_does(tmp_path: Path) -> None:
    said = b'data: {"error":{"code":429,"message":"Rate limit reached. Please try again in 20s."}}\n\n'
    with chain(tmp_path / "s", [answered(said)], timeouts={"total": 5.0}) as (plane, (upstream,)):
        answer = ask(plane)
        assert (answer.status, answer.headers["retry-after"]) == (429, "20") and len(upstream.requests) == 1


def test_continuation_overrides_our_own_guess(tmp_path: Path) -> None:
    """A 429 that does not say how long: of the only target, which the least bad serves."""
    busy = refused(b"429 Slow", "slow down")
    with chain(tmp_path / "s", [broken(ROLE, HELLO), busy, answered(FINE)]) as (plane, _):
        ask(plane).check_stream("Hello world")
        assert codes(closed(plane))[1:] == [("p0", "continue", "rate_limit_exceeded"), ("p0", "continue", "")]


# ------------------------------------------------------------------------------------- for whom


@pytest.mark.parametrize("first", [broken(ROLE, HELLO), refused(b"503 Busy")], ids=["in mid stream", "before its head"])
def test_drained_stream_of_departed_client_ends(tmp_path: Path, first: Script) -> None:
    late: Script = [first[0], *([("send", first[1][1]), ("wait", 0.6), ("reset",)] if len(first) > 2 else
                                [("wait", 0.6), first[1]])]  # fmt: skip
    drains = {"on_disconnect": "drain", "drain_s": 20.0, "drain_tokens": 1000}
    with chain(tmp_path / "s", [late], [answered(FINE)], **drains) as (plane, (_, second)):
        with opened(plane, request()) as one:
            if len(first) > 2:
                one.head().until(b"Hello")
            time.sleep(0.2)
            one.leave()
        plane.wait_for(Closed)
        record = last_closed(plane)
        assert (record.outcome, record.status) == ("cancelled", 499) and not second.requests


def test_who_leaves_after_the_finish_has_had_all_of_it(tmp_path: Path) -> None:
    """Many clients stop reading there; the usage behind it is for those who asked."""
    with chain(tmp_path / "s", [hanging(ROLE, HELLO, STOP)]) as (plane, _):
        with opened(plane, request()) as one:
            one.head().until(b'"stop"')
            one.leave()
        plane.wait_for(Closed)
        record = last_closed(plane)
    assert (record.outcome, record.status, record.code) == ("delivered", 200, "")
    assert record.completion_tokens > 0 and codes(record) == [("p0", "first", "")]


def test_who_leaves_before_it_has_not(tmp_path: Path) -> None:
    with chain(tmp_path / "s", [hanging(ROLE, HELLO)]) as (plane, _):
        with opened(plane, request()) as one:
            one.head().until(b"Hello")
            one.leave()
        wait_until(lambda: plane.wait_for(Closed))
        assert last_closed(plane).outcome == "cancelled"
