"""Streams and whole messages of an Anthropic upstream, read as deltas."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from headgate import errors
from headgate.dialects.anthropic_messages.dialect import BACKEND
from headgate.dialects.anthropic_messages.source import MessagesSource
from headgate.dialects.base import Finish, RawDelta, ReasoningDelta, TextDelta, ToolDelta, ToolStart
from headgate.dialects.openai_chat.face import ChatFace
from headgate.errors import Kind
from headgate.model import Usage
from tests.dialects.anthropic_messages.streams import (
    DONE,
    HELLO,
    PLAIN,
    REPLY,
    TOOLS,
    block,
    delta,
    end,
    events,
    merged,
    run,
    start,
    stop,
    text,
)
from tests.dialects.openai_chat.streams import bytewise, split

SAID = [TextDelta("Hello wörld 🌍"), Finish("stop")]
CALLED = [
    ReasoningDelta("Let me look."),
    ReasoningDelta("", "c2ln"),
    TextDelta("I look."),
    ToolStart(0, "toolu_1", "weather"),
    ToolDelta(0, '{"city": "Köln"}'),
    ToolStart(1, "toolu_2", "now"),
    ToolDelta(1, "{}"),
    Finish("tool_calls"),
]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("body", "wanted"), [(PLAIN, SAID), (TOOLS, CALLED)], ids=["text", "tools"])
def test_streams_read_alike_however_cut(body: Any, wanted: list[Any], line_end: str, named: bool) -> None:
    data = events(*body, named=named, end=line_end)
    for pieces in ([data], bytewise(data), *(split(data, seed) for seed in range(20))):
        deltas, source = run(pieces)
        assert merged(deltas) == wanted
        assert source.done and source.error is None and source.skipped == 0 and source.model == "claude-up"
        assert source.reported == Usage(18, 15, 5, 3, 0, "provider")


@pytest.mark.parametrize(
    ("reason", "sequence", "wanted"),
    [
        ("end_turn", None, Finish("stop")),
        ("stop_sequence", "END", Finish("stop", "", "END")),
        ("max_tokens", None, Finish("length")),
        ("tool_use", None, Finish("stop")),  # without a call that a client could answer
        ("refusal", None, Finish("content_filter", "refusal")),
        ("pause_turn", None, Finish("stop", "pause_turn")),
        ("model_context_window_exceeded", None, Finish("length", "model_context_window_exceeded")),
    ],
)
def test_stop_reasons(reason: str, sequence: str | None, wanted: Finish) -> None:
    deltas, source = run([events(*HELLO, end(reason, sequence=sequence), DONE)])
    assert deltas[-1] == wanted and source.done


def test_stop_behind_a_call_is_tool_calls() -> None:
    deltas, _ = run([events(*(one for one in TOOLS[:-2]), end("end_turn"), DONE)])
    assert deltas[-1] == Finish("tool_calls")


def test_input_that_comes_with_its_block_is_read() -> None:
    body = (start(), block(0, type="tool_use", id="t", name="f", input={"a": 1}), stop(0), end("tool_use"), DONE)
    assert run([events(*body)])[0][:2] == [ToolStart(0, "t", "f"), ToolDelta(0, '{"a": 1}')]


def test_call_without_its_stop_still_has_arguments() -> None:
    body = (start(), block(0, type="tool_use", id="t", name="f", input={}), end("tool_use"), DONE)
    assert run([events(*body)])[0] == [ToolStart(0, "t", "f"), ToolDelta(0, "{}"), Finish("tool_calls")]


def test_unknown_events_and_deltas_lose_nothing() -> None:
    odd = ({"type": "later"}, delta(0, "citations_delta", citation={}), block(1, type="redacted_thinking", data="x"))
    deltas, source = run([events(*HELLO[:-1], *odd, stop(0), end("end_turn"), DONE)])
    assert merged(deltas) == SAID and source.skipped == 0


def test_cited_pages_are_a_chat_clients_annotations() -> None:
    page = {"type": "web_search_result_location", "url": "https://example.com/a", "title": "A", "cited_text": "x"}
    other = {"type": "char_location", "document_index": 0}
    body = (
        start(), block(0, type="text", text=""), text(0, "Hello "), stop(0),
        block(1, type="text", text="", citations=[]),
        delta(1, "citations_delta", citation=page), delta(1, "citations_delta", citation=other), text(1, "world"),
        stop(1), end("end_turn"), DONE,
    )  # fmt: skip
    deltas, _ = run([events(*body)])
    (raw,) = [one for one in deltas if isinstance(one, RawDelta)]
    cited = {"start_index": 6, "end_index": 11, "url": "https://example.com/a", "title": "A"}
    assert (raw.key, raw.api) == ("annotations", "openai_chat")
    assert json.loads(bytes(raw.value)) == [{"type": "url_citation", "url_citation": cited}]
    chat = ChatFace(REPLY)
    message = json.loads(chat.whole(deltas, "m", Usage(), None, None))["choices"][0]["message"]
    assert message["content"] == "Hello world" and message["annotations"][0]["url_citation"] == cited
    assert b'"annotations":[{"type":"url_citation"' in ChatFace(REPLY).put(deltas[:-1], "m")


def test_unknown_blocks_are_for_clients_of_this_api_and_counted_as_lost_for_others() -> None:
    odd = (block(1, type="web_search_tool_result", content=[]), stop(1))
    deltas, source = run([events(*HELLO, *odd, end("end_turn"), DONE) + b"data: {broken\n\n"])
    assert [one for one in merged(deltas) if not isinstance(one, RawDelta)] == SAID and source.skipped == 1
    _, source = run([events(*HELLO[:3]) + b"data: nonsense\n\n" + events(*HELLO[3:], end("end_turn"), DONE)])
    assert source.done and source.skipped == 1


@pytest.mark.parametrize("clean", [True, False])
def test_torn_stream_is_cut(clean: bool) -> None:
    data = events(*HELLO)
    for size in range(len(data)):
        _, source = run([data[:size]], clean=clean)
        assert source.error is not None and source.error.kind is errors.UPSTREAM_CUT and not source.done


def test_only_the_last_event_is_missing() -> None:
    source = MessagesSource(REPLY)
    source.feed(events(*HELLO))
    assert source.quiet == 0.0
    source.feed(events(end("end_turn")))
    assert source.quiet == 2.0 and not source.done
    source.close(False)
    assert source.done and source.error is None


# ------------------------------------------------------------------------------------- usage


def test_usage_before_the_end_has_the_prompt() -> None:
    source = MessagesSource(REPLY)
    assert source.reported is None
    source.feed(events(*HELLO))
    assert source.reported == Usage(18, 1, 5, 3, 0, "provider")


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        ({"input_tokens": 10, "output_tokens": 1}, {"output_tokens": 4}, Usage(10, 4, 0, 0, 0, "provider")),
        ({"input_tokens": 10, "output_tokens": 1}, {"output_tokens": 9, "input_tokens": 12},
         Usage(12, 9, 0, 0, 0, "provider")),
        ({"input_tokens": 0, "output_tokens": 0}, {"output_tokens": 9, "input_tokens": 12},
         Usage(12, 9, 0, 0, 0, "provider")),
        ({"input_tokens": 2, "cache_read_input_tokens": 900, "cache_creation_input_tokens": None}, {"output_tokens": 9},
         Usage(902, 9, 900, 0, 0, "provider")),
        ({"input_tokens": 0, "output_tokens": 0}, {"output_tokens": 9}, Usage(7, 9)),
    ],
)  # fmt: skip
def test_usage_of_a_stream(first: dict[str, Any], last: dict[str, Any], wanted: Usage) -> None:
    closing = {**end("end_turn"), "usage": last}
    _, source = run([events(start(**first), *HELLO[1:], closing, DONE)])
    assert source.reported == wanted


def test_stream_that_never_counts_its_answer_reports_nothing() -> None:
    closing = {key: value for key, value in end("end_turn").items() if key != "usage"}
    _, source = run([events(*HELLO, closing, DONE)])
    assert source.done and source.reported is None


# ------------------------------------------------------------------------------------- errors

SAYS = {"not_found_error": "model: claude-none"}
CLASSES = [
    ("overloaded_error", 529, errors.UPSTREAM_OVERLOADED),
    ("rate_limit_error", 429, errors.RATE_LIMITED),
    ("api_error", 500, errors.UPSTREAM_FAILED),
    ("authentication_error", 401, errors.UPSTREAM_AUTH),
    ("permission_error", 403, errors.UPSTREAM_DENIED),
    ("not_found_error", 404, errors.UPSTREAM_MODEL_NOT_FOUND),
    ("request_too_large", 413, errors.PAYLOAD_TOO_LARGE),
    ("invalid_request_error", 400, errors.UPSTREAM_REFUSED),
    ("billing_error", 402, errors.UPSTREAM_UNPAID),
    ("timeout_error", 504, errors.UPSTREAM_TIMEOUT),
]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(("word", "status", "kind"), CLASSES)
def test_error_events(word: str, status: int, kind: Kind, named: bool) -> None:
    error = {"type": "error", "error": {"type": word, "message": SAYS.get(word, "No.")}, "request_id": "req_1"}
    _, source = run([events(*HELLO, error, named=named)])
    assert source.error is not None and not source.done
    assert source.error.kind is kind, source.error.kind


@pytest.mark.parametrize(("word", "status", "kind"), CLASSES)
def test_error_answers(word: str, status: int, kind: Kind) -> None:
    error = {"type": "error", "error": {"type": word, "message": SAYS.get(word, "No.")}, "request_id": "req_1"}
    found = BACKEND.failure(status, {}, json.dumps(error).encode(), REPLY, 0.0)
    assert found.kind is kind, found.kind


def test_event_beyond_the_bound_is_an_error() -> None:
    _, source = run([events(*HELLO, text(0, "x" * 5000))], replace(REPLY, max_event=1000))
    assert source.error is not None and source.error.kind is errors.UPSTREAM_TOO_LARGE


def test_nothing_is_read_behind_the_end() -> None:
    source = MessagesSource(REPLY)
    source.feed(events(*PLAIN))
    assert source.feed(events(*HELLO)) == () and source.close() == () and source.done


# ------------------------------------------------------------------------------------- whole answers


def message(*content: dict[str, Any], reason: str = "end_turn", **more: Any) -> bytes:
    head = {"id": "msg_up", "type": "message", "role": "assistant", "model": "claude-up", "stop_sequence": None}
    usage = {**USED_WHOLE}
    return json.dumps({**head, "content": content, "stop_reason": reason, "usage": usage, **more}).encode()


USED_WHOLE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3, "output_tokens": 15}


def test_whole_message_reads_as_its_stream() -> None:
    source = MessagesSource(REPLY)
    deltas = source.whole(
        message(
            {"type": "thinking", "thinking": "Let me look.", "signature": "c2ln"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
            reason="tool_use",
        )
    )
    assert list(deltas[1:4]) == [TextDelta("I look."), ToolStart(0, "toolu_1", "weather"), deltas[3]]
    assert deltas[0] == ReasoningDelta("Let me look.", "c2ln") and deltas[-1] == Finish("tool_calls")
    assert isinstance(deltas[3], ToolDelta) and json.loads(deltas[3].arguments) == {"city": "Köln"}
    assert source.done and source.model == "claude-up" and source.reported == Usage(18, 15, 5, 3, 0, "provider")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', errors.UPSTREAM_OVERLOADED),
        (b"<html>", errors.UPSTREAM_GARBAGE),
        (b"", errors.UPSTREAM_GARBAGE),
        (b'{"type":"message","content":[{"type":"te', errors.UPSTREAM_GARBAGE),
    ],
)
def test_whole_body_that_is_no_message(body: bytes, kind: Kind) -> None:
    source = MessagesSource(REPLY)
    assert list(source.whole(body)) == []
    assert source.error is not None and source.error.kind is kind and not source.done
