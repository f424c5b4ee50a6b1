"""Streams that pass from a Messages upstream to a Messages client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from headgate import errors
from headgate.dialects import registry
from headgate.dialects.anthropic_messages.dialect import BACKEND, CLIENT
from headgate.dialects.anthropic_messages.stream import MessagesStream
from headgate.dialects.base import Reply
from headgate.dialects.seam import Seam
from headgate.model import Usage
from tests.dialects.anthropic_messages.streams import (
    DONE,
    HELLO,
    PLAIN,
    REPLY,
    TOOLS,
    block,
    check_order,
    delta,
    end,
    events,
    parse,
    start,
    stop,
    text,
)
from tests.dialects.openai_chat.streams import bytewise, split

NATIVE = replace(REPLY, family="anthropic")
SEARCHED = (
    start(),
    block(0, type="server_tool_use", id="srvtoolu_1", name="web_search", input={}),
    delta(0, "input_json_delta", partial_json='{"query": "x"}'),
    stop(0),
    block(1, type="web_search_tool_result", tool_use_id="srvtoolu_1", content=[{"type": "later", "odd": [1]}]),
    stop(1),
    block(2, type="text", text=""),
    delta(2, "citations_delta", citation={"type": "web_search_result_location", "url": "https://example.com"}),
    text(2, "Found."),
    stop(2),
    {"type": "vendor_event", "odd": {"a": 1}},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "pause_turn", "stop_sequence": None, "container": {"id": "c"}},
        "usage": {"output_tokens": 9, "server_tool_use": {"web_search_requests": 1}},
        "context_management": {"applied_edits": []},
    },
    DONE,
)


def passed(pieces: list[bytes], reply: Reply = NATIVE, clean: bool = True) -> tuple[bytes, MessagesStream]:
    stream = MessagesStream(reply)
    out = b"".join(stream.feed(piece) for piece in pieces)
    if not stream.done and stream.error is None:
        out += stream.close(clean)
    return out + stream.tail(stream.used.delivered), stream


def without_pings(*payloads: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in payloads if one["type"] != "ping"]


def as_sent(*payloads: dict[str, Any]) -> list[dict[str, Any]]:
    """An upstream's events as its client gets them: with the gateway's id."""
    head, *rest = payloads
    return [{**head, "message": {**head["message"], "id": REPLY.ident}}, *rest]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("body", [PLAIN, TOOLS, SEARCHED], ids=["text", "tools", "server tools"])
def test_events_pass_however_cut(body: Any, line_end: str) -> None:
    data = events(*body, end=line_end)
    for pieces in ([data], bytewise(data), *(split(data, seed) for seed in range(20))):
        out, stream = passed(pieces)
        found = parse(out)
        check_order(found)
        assert without_pings(*found) == as_sent(*without_pings(*body))
        assert stream.done and stream.error is None and stream.skipped == 0 and stream.model == "claude-up"


def test_bytes_of_a_delta_pass_as_they_are() -> None:
    padded = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
        b'{"type":"text_delta","text":" \\u00fc\\n"}     }\n\n'
    )
    stream = MessagesStream(replace(NATIVE, keep=True))
    stream.feed(events(*HELLO[:4]))
    assert stream.feed(padded * 3) == padded * 3
    assert stream.view.text == "Hello " + " ü\n" * 3
    assert stream.events == 3 + 3  # a ping is none
    broken = padded.replace(b"\\u00fc", b"\xff")
    assert b"\xff" not in stream.feed(broken)


def test_usage_of_each_kind_is_observed() -> None:
    written = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 1}
    used = {
        "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5,
        "cache_creation": written, "output_tokens": 1, "service_tier": "standard",
    }  # fmt: skip
    out, stream = passed([events(start(**used), *PLAIN[1:])])
    usage = stream.used.billed
    assert (usage.prompt, usage.completion, usage.cached, usage.cache_write, usage.basis) == (18, 15, 5, 3, "provider")
    assert usage.details is not None and usage.details.cache_write_1h == 1
    assert parse(out)[0]["message"]["usage"] == used


def test_answer_without_usage_gets_an_estimate() -> None:
    head = start()
    del head["message"]["usage"]
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    out, _ = passed([events(head, *HELLO[1:], last, DONE)])
    assert parse(out)[-2]["usage"]["output_tokens"] > 0


def test_nothing_is_sent_before_there_is_something_to_see() -> None:
    stream = MessagesStream(NATIVE)
    assert stream.feed(events(*HELLO[:3])) == b"" and not stream.visible and stream.events == 2
    assert [one["type"] for one in parse(stream.feed(events(HELLO[3])))] == [
        "message_start", "content_block_start", "content_block_delta",
    ]  # fmt: skip
    assert stream.visible


@pytest.mark.parametrize(("count", "size"), [(65, 1), (2, 200_000)])
def test_little_waits_for_something_to_see(count: int, size: int) -> None:
    stream = MessagesStream(NATIVE)
    odd = {"type": "vendor_event", "odd": "x" * size}
    assert stream.feed(events(start(), *[odd] * (count - 1))) == b""
    assert len(parse(stream.feed(events(odd)))) == 1 + count


def test_type_of_an_event_cannot_add_lines() -> None:
    stream = MessagesStream(NATIVE)
    stream.feed(events(*HELLO[:4]))
    data = b'{"type": "odd\\ndata: {}"}'
    assert stream.feed(b"data: " + data + b"\n\n") == b"data: " + data + b"\n\n"


def test_error_behind_the_head_shows_nothing() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    stream = MessagesStream(NATIVE)
    assert stream.feed(events(*HELLO[:3], error)) == b""
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_OVERLOADED and not stream.visible


def test_error_behind_text_is_an_error_event() -> None:
    error = {"type": "error", "error": {"type": "api_error", "message": "Broke"}}
    out, stream = passed([events(*HELLO[:4], error)])
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_FAILED
    assert parse(out)[-1]["type"] == "error"


def test_second_beginning_breaks_a_stream() -> None:
    stream = MessagesStream(NATIVE)
    stream.feed(events(*HELLO[:4], start(), *HELLO[1:]))
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_CUT


def test_hollow_answer_is_an_error() -> None:
    stream = MessagesStream(NATIVE)
    assert stream.feed(events(start(), block(0, type="text", text=""), stop(0), end("end_turn"), DONE)) == b""
    assert stream.error is not None and stream.error.kind is errors.UPSTREAM_HOLLOW


def test_ping_is_progress_while_the_model_hides_its_thoughts() -> None:
    stream = MessagesStream(NATIVE)
    ping = {"type": "ping"}
    assert stream.feed(events(start(), block(0, type="thinking", thinking="", signature=""))) == b""
    seen = stream.events
    assert parse(stream.feed(events(ping)))[-1] == ping and stream.visible and stream.events == seen + 1
    stream.feed(events(delta(0, "signature_delta", signature="c2ln"), stop(0)))
    seen = stream.events
    assert parse(stream.feed(events(ping))) == [ping] and stream.events == seen


@pytest.mark.parametrize(("family", "mark"), [("anthropic", ""), ("up", "hg1:up:")])
def test_signatures_name_their_maker(family: str, mark: str) -> None:
    out, _ = passed([events(*TOOLS)], replace(REPLY, family=family))
    (signed,) = [one["delta"] for one in parse(out) if one.get("delta", {}).get("type") == "signature_delta"]
    assert signed["signature"] == f"{mark}c2ln"
    redacted = block(0, type="redacted_thinking", data="eA==")
    out, _ = passed([events(start(), redacted, stop(0), *PLAIN[1:])], replace(REPLY, family=family))
    assert parse(out)[1]["content_block"]["data"] == f"{mark}eA=="
    content = [{"type": "thinking", "thinking": "x", "signature": "c2ln"}, {"type": "text", "text": "Hi", "odd": 1}]
    body = json.dumps({**start()["message"], "content": content, "stop_reason": "end_turn"}).encode()
    assert BACKEND.passes is not None
    answer = BACKEND.passes.answer(body, replace(REPLY, family=family))
    assert not isinstance(answer, type(iter(())))
    found = json.loads(answer.write(b'{"a":1}', None))  # type: ignore[union-attr]
    assert found["content"] == [{**content[0], "signature": f"{mark}c2ln"}, content[1]]
    assert (found["id"], found["model"], found["headgate"]) == (REPLY.ident, "claude-up", {"a": 1})


@pytest.mark.parametrize("hold", ["tools", "all"])
def test_held_parts_come_when_they_are_complete(hold: str) -> None:
    stream = MessagesStream(replace(NATIVE, hold=hold))
    begun = stream.feed(events(*TOOLS[:12]))
    kinds = [one.get("content_block", {}).get("type") for one in parse(begun) if one["type"] == "content_block_start"]
    assert kinds == (["thinking", "text"] if hold == "tools" else [])
    out = begun + stream.feed(events(*TOOLS[12:])) + stream.tail(stream.used.delivered)
    assert parse(out) == as_sent(*TOOLS)


def test_budget_ends_a_stream() -> None:
    stream = MessagesStream(NATIVE)
    out = stream.feed(events(*HELLO[:4]))
    stream.stop("length")
    found = parse(out + stream.tail(Usage(7, 1)))
    check_order(found)
    assert found[-2]["delta"]["stop_reason"] == "max_tokens" and found[-2]["usage"]["output_tokens"] == 1


def test_whole_message_comes_as_a_stream() -> None:
    content = [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}]
    stream = MessagesStream(NATIVE)
    body = json.dumps({**start()["message"], "content": content, "stop_reason": "tool_use"}).encode()
    found = parse(stream.whole(body) + stream.tail(stream.used.delivered))
    check_order(found)
    assert found[0]["message"]["id"] == REPLY.ident and found[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize("cut", range(4, 9))
def test_broken_stream_goes_on_in_its_block(cut: int) -> None:
    said = (start(), block(0, type="thinking", thinking=""), delta(0, "thinking_delta", thinking="Hm."), stop(0))
    body = (*said, block(1, type="text", text=""), *(text(1, one) for one in ("One ", "two ", "three ", "four")))
    first = MessagesStream(replace(NATIVE, keep=True))
    out = first.feed(events(*body[:cut]))
    first.close(clean=False)
    delivered = first.delivered
    assert delivered is not None and first.error is not None and first.error.kind is errors.UPSTREAM_CUT
    seam = Seam(delivered.text or "", afresh=True)
    second = registry.join_stream(CLIENT, BACKEND, first, seam, replace(NATIVE, before=first.used.delivered))
    rest = (*body, stop(1), end("end_turn"), DONE)
    found = parse(out + second.feed(events(*rest)) + second.tail(second.used.delivered))
    check_order(found)
    assert sum(one["type"] == "message_start" for one in found) == 1
    texts = [one["delta"]["text"] for one in found if one.get("delta", {}).get("type") == "text_delta"]
    assert "".join(texts) == "One two three four" and found[-1] == DONE
