"""How many choices and tool calls one answer may have, streamed and whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.base import Reply
from headgate.dialects.openai_chat import answer, answer_from_stream
from headgate.dialects.openai_chat.stream.calls import MOST_CALLS
from headgate.dialects.openai_chat.stream.chunks import MOST_CHOICES, MOST_IN_ONE
from tests.dialects.openai_chat.streams import chunk, events, parse, run


@pytest.mark.parametrize("index", [128, 100_000, 2**31, 2**63, 10**30, 1e18])
def test_unexpected_index_ends_the_stream(index: float) -> None:
    body = events(chunk({"content": "a"}), chunk({"content": "b"}, index=index), chunk({}, "stop"), "[DONE]")  # type: ignore[arg-type]
    out, stream = run([body])
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_GARBAGE
    assert b"[DONE]" not in out
    whole = answer_from_stream(body, Reply(ident="i", created=1, model="m"))
    assert whole.error is not None and whole.error.kind is errors.UPSTREAM_GARBAGE


def test_ever_new_indices_end_the_stream() -> None:
    body = events(*(chunk({"content": "a"}, index=index) for index in range(1000)))
    out, stream = run([body], choices=1)
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_GARBAGE
    assert {choice["index"] for one in parse(out)[:-1] for choice in one["choices"]} <= set(range(MOST_CHOICES))


@pytest.mark.parametrize("index", [-1, -(2**40), None, "x"])
def test_an_index_that_is_none_is_the_position(index: Any) -> None:
    out, stream = run([events(chunk({"content": "a"}, index=index), chunk({}, "stop", index=index), "[DONE]")])
    assert stream.error is None
    assert {choice["index"] for one in parse(out) for choice in one["choices"]} == {0}


def test_as_many_choices_as_were_asked_for_are_served() -> None:
    asked = 200
    body = events(*(chunk({"content": "a"}, "stop", index=index) for index in range(asked)), "[DONE]")
    out, stream = run([body], choices=asked)
    assert stream.error is None and stream.done
    assert {choice["index"] for one in parse(out) for choice in one["choices"]} == set(range(asked))


def call(index: int) -> dict[str, Any]:
    return {"index": index, "id": f"c{index}", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_ever_new_tool_calls_end_the_stream() -> None:
    each = [chunk({"tool_calls": [call(index)]}) for index in range(MOST_CALLS + 1)]
    at_once = [chunk({"tool_calls": [call(index) for index in range(MOST_CALLS + 1)]})]
    for payloads in (each, at_once):
        out, stream = run([events(*payloads, chunk({}, "tool_calls"), "[DONE]")])
        assert stream.error is not None and stream.error.kind is errors.UPSTREAM_GARBAGE
        assert b"[DONE]" not in out
    fine, stream = run([events(*each[:-1], chunk({}, "tool_calls"), "[DONE]")])
    assert stream.error is None and b"[DONE]" in fine


def whole(**members: Any) -> bytes:
    return json.dumps({"id": "x", "object": "chat.completion", "created": 1, "model": "m", **members}).encode()


def test_a_whole_answer_with_too_many_choices_or_calls_is_none() -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
    calls = {"role": "assistant", "content": None, "tool_calls": [call(index) for index in range(MOST_CALLS + 1)]}
    for body in (whole(choices=[choice] * (MOST_IN_ONE + 1)), whole(choices=[{"message": calls}])):
        result = answer(body, Reply(ident="i", created=1, model="m"))
        assert result.error is not None and result.error.kind is errors.UPSTREAM_GARBAGE
    assert answer(whole(choices=[choice] * 128), Reply(ident="i", created=1, model="m")).error is None
