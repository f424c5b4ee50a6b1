"""Whole answers, and answers with nothing in them, in every pair of APIs: figures, and what counts as an answer."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from headgate.model import Budget, Closed
from headgate.testing.provider.scripted import Script
from tests.dialects.anthropic_messages import streams
from tests.dialects.anthropic_messages.streams import end, events, start, stop
from tests.serving.apis import APIS, CHAT, MESSAGES
from tests.serving.calls import STREAM_HEAD, Answer, chunk_event, chunked, last_closed, whole_json, whole_stream
from tests.serving.test_api_pairs import ask, chain, closed, cut, read

PATHS = (CHAT, MESSAGES)
PAIRS = [(client, backend) for client in PATHS for backend in PATHS]
USED = (30, 6)
TOKEN_PRICES = (1000, 2000)  # nano-USD, as ``chain`` has them


def message(backend: str, said: str, used: tuple[int, int] | None = None) -> bytes:
    """A whole answer; an empty text is none."""
    found: dict[str, Any]
    if backend == CHAT:
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        found = {"id": "x", "object": "chat.completion", "created": 1, "model": "m-up", "choices": [choice]}
        usage = {"prompt_tokens": used[0], "completion_tokens": used[1], "total_tokens": sum(used)} if used else None
    else:
        content = [{"type": "text", "text": said}] if said else []
        found = {"id": "x", "type": "message", "role": "assistant", "model": "m-up", "content": content}
        found |= {"stop_reason": "end_turn", "stop_sequence": None}
        usage = {"input_tokens": used[0], "output_tokens": used[1]} if used else None
    return json.dumps({**found, "usage": usage} if usage else found).encode()


def empty_stream(backend: str) -> bytes:
    if backend == CHAT:
        return APIS[CHAT].pieces() + chunk_event({}, "stop") + b"data: [DONE]\n\n"
    return events(start(), end("end_turn", 1), streams.DONE)


def answering(data: bytes, *, stream: bool = False) -> Script:
    return [("expect_request",), ("send", (whole_stream if stream else whole_json)(data, b"connection: close"))]


def check_figures(client: str, answer: Answer, receipt: Closed) -> None:
    """The answer's own figures are those of its receipt."""
    prompt, _, completion = read(client, answer, False).usage
    assert (prompt, completion) == (receipt.prompt_tokens, receipt.completion_tokens)
    assert round(answer.json["headgate"]["cost_usd"] * 1e9) == receipt.cost
    assert receipt.cost == TOKEN_PRICES[0] * prompt + TOKEN_PRICES[1] * completion


@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_estimate_of_a_whole_answer_is_that_of_its_receipt(tmp_path: Path, client: str, backend: str) -> None:
    texts = ["ok", "x" * 23, "wörld " * 40]
    with chain(tmp_path / "s", (backend, [answering(message(backend, said)) for said in texts])) as (plane, _):
        for count, said in enumerate(texts, 1):
            answer = ask(plane, client, False)
            assert read(client, answer, False).text == said
            plane.wait_for(Closed, count)
            check_figures(client, answer, last_closed(plane))


@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_hollow_whole_answer_keeps_what_it_was_billed(tmp_path: Path, client: str, backend: str) -> None:
    hollow, fine = answering(message(backend, "", USED)), answering(message(backend, "fine", (40, 7)))
    with chain(tmp_path / "s", (backend, [hollow]), (backend, [fine])) as (plane, _):
        check_figures(client, ask(plane, client, False), receipt := closed(plane))
    assert [(one.code, one.prompt_tokens, one.completion_tokens) for one in receipt.attempts] == [
        ("upstream_hollow_answer", *USED), ("", 40, 7),
    ]  # fmt: skip


def with_result(client: str) -> dict[str, Any]:
    """A conversation that ends with the result of a tool."""
    call: dict[str, Any]
    if client == CHAT:
        call = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
        said = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "5"}]
    else:
        call = {"type": "tool_use", "id": "c", "name": "weather", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "c", "content": "5"}
        said = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return {"messages": [{"role": "user", "content": "Hi"}, *said], "tools": True}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_empty_stop_is_valid_only_after_a_tool_result(tmp_path: Path, client: str, backend: str, stream: bool) -> None:
    said = empty_stream(backend) if stream else message(backend, "", USED)
    with chain(tmp_path / "s", (backend, [answering(said, stream=stream)])) as (plane, _):
        found = read(client, ask(plane, client, stream, **with_result(client)), stream)
        assert (found.text, found.calls, found.reason) == ("", [], "stop")
        assert closed(plane).outcome == "delivered"
        assert ask(plane, client, stream).status == 502


@pytest.mark.parametrize(("client", "backend"), PAIRS)
def test_a_stream_that_has_finished_is_not_waited_for(tmp_path: Path, client: str, backend: str) -> None:
    last = chunk_event({}, "stop") if backend == CHAT else events(stop(0), end("end_turn", 1))
    script: Script = [
        ("expect_request",), ("send", STREAM_HEAD + chunked(APIS[backend].pieces("Hello") + last)), ("expect_close",),
    ]  # fmt: skip
    with chain(tmp_path / "s", (backend, [script])) as (plane, _):
        began = time.monotonic()
        assert read(client, ask(plane, client, True), True).text == "Hello"
        assert time.monotonic() - began < 30  # the next token may take a minute
        assert closed(plane).outcome == "delivered"


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_continuation_without_a_report_is_counted_once(tmp_path: Path, client: str, first: str, second: str) -> None:
    """What the receipt says of the attempt that went on is what it says of that target's part of the answer."""
    rest = (" and" if second == MESSAGES else "and", " so", " on", " and", " on")
    said = APIS[second].stream(*rest) if second == MESSAGES else APIS[CHAT].pieces(*rest) + chunk_event({}, "stop")
    if second == MESSAGES:
        said = said.replace(b'"output_tokens": 4', b'"x": 0').replace(b'"output_tokens": 1', b'"x": 0')
    with chain(
        tmp_path / "s",
        (first, [cut(first, "Hello ", "wonder", "ful ", "world ")]),
        (second, [answering(said, stream=True)]),
    ) as (plane, _):
        found = read(client, ask(plane, client, True), True)
        receipt = closed(plane)
    assert found.text == "Hello wonderful world and so on and on"
    assert found.usage[2] == receipt.completion_tokens
    assert [one.completion_tokens for one in receipt.shares] == [one.completion_tokens for one in receipt.attempts]


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_continuation_may_have_nothing_to_add(tmp_path: Path, client: str, first: str, second: str) -> None:
    broken = [cut(first, "Hello ", "wonder", "ful ", "world")]
    with chain(tmp_path / "s", (first, broken), (second, [answering(empty_stream(second), stream=True)])) as (plane, _):
        found = read(client, ask(plane, client, True), True)
        receipt = closed(plane)
    assert (found.text, found.reason) == ("Hello wonderful world", "stop")
    assert [(one.why, one.code) for one in receipt.attempts] == [("first", "upstream_cut"), ("continue", "")]


@pytest.mark.parametrize("client", PATHS)
def test_error_behind_a_stop_reason_is_no_end(tmp_path: Path, client: str) -> None:
    """The stop reason said that the limit was reached; it is not made a stop."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    said = APIS[MESSAGES].pieces("Hello ", "world") + events(stop(0), end("max_tokens", 9), error)
    with chain(tmp_path / "s", (MESSAGES, [answering(said, stream=True)])) as (plane, _):
        answer = ask(plane, client, True, headgate={"on_midstream_failure": "error", "retries": 0})
        assert closed(plane).code == "upstream_overloaded"
    assert b"upstream_overloaded" in answer.raw and b'"stop"' not in answer.raw


# ------------------------------------------------------------------------------------- ended by the gateway


def words(backend: str, number: int) -> bytes:
    """The text of a stream.  A Messages stream has reported one token at its beginning, and nothing since."""
    if backend == CHAT:
        return b"".join(chunk_event({"content": " word"}) for _ in range(number))
    return events(*(streams.text(0, " word") for _ in range(number)))


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("backend", PATHS)
def test_a_stream_that_its_budget_ends_is_charged(tmp_path: Path, client: str, backend: str) -> None:
    script: Script = [("expect_request",), ("send", STREAM_HEAD + chunked(APIS[backend].pieces("The first")))]
    script = [*script, ("wait", 0.2), ("send", chunked(words(backend, 3000))), ("expect_close",)]
    most = 4_000_000  # nano-USD: 2,000 tokens
    with chain(tmp_path / "s", (backend, [script]), budget=Budget(most, "day", "hard")) as (plane, _):
        found = read(client, ask(plane, client, True, max_tokens=100_000), True)
        receipt = closed(plane)
    assert (receipt.outcome, found.reason) == ("budget_exceeded", "length")
    assert found.usage[2] == receipt.completion_tokens > 1500
    assert most * 3 // 4 < receipt.cost <= most + 18 * TOKEN_PRICES[0]  # its prompt was an estimate


@pytest.mark.parametrize("client", PATHS)
@pytest.mark.parametrize("backend", PATHS)
def test_a_cut_answer_of_all_its_tokens_is_charged(tmp_path: Path, client: str, backend: str) -> None:
    said = STREAM_HEAD + chunked(APIS[backend].pieces("The first") + words(backend, 19))
    script: Script = [("expect_request",), ("send", said), ("close",)]
    with chain(tmp_path / "s", (backend, [script])) as (plane, _):
        found = read(client, ask(plane, client, True, max_tokens=20), True)
        receipt = closed(plane)
    assert (receipt.outcome, found.reason) == ("delivered", "length")
    assert found.usage[2] == receipt.completion_tokens >= 20
