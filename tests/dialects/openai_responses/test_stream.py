"""Responses streams: deltas in and numbered events out, and the reverse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import errors
from headgate.dialects.base import (
    Delta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    Reply,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.dialects.openai_responses.face import ResponsesFace
from headgate.dialects.openai_responses.request import read
from headgate.dialects.openai_responses.source import ResponsesSource
from headgate.errors import GatewayError
from headgate.model import Usage
from tests.dialects.anthropic_messages.streams import parse

IDENT = "resp_0123456789abcdef01234567"
USAGE = Usage(18, 15, 5, 0, 3, "provider")
STOP = Finish("stop")
ANSWER: list[Delta] = [
    ReasoningDelta("Let me "),
    ReasoningDelta("look."),
    TextDelta("I "),
    TextDelta("look 🌍."),
    ToolStart(0, "call_1", "weather"),
    ToolDelta(0, '{"city": "K'),
    ToolStart(1, "call_2", "patch"),
    ToolDelta(1, '{"input": "*** Be'),
    ToolDelta(0, 'öln"}'),
    ToolDelta(1, 'gin"}'),
]
REQUEST = {
    "model": "m",
    "input": "Hi",
    "instructions": "Be short.",
    "temperature": 0.5,
    "tools": [{"type": "custom", "name": "patch"}, {"type": "namespace", "name": "w", "tools": [
        {"type": "function", "name": "weather"}]}],
}  # fmt: skip


def reply(**members: Any) -> Reply:
    prompt = read(json.dumps({**REQUEST, **members}).encode()).prompt
    return Reply(IDENT, 1_800_000_000, "target-model", True, provider="up", prompt_tokens=7, prompt=prompt)


def streamed(deltas: list[Delta], finish: Finish = STOP) -> list[dict[str, Any]]:
    face = ResponsesFace(reply())
    found = parse(b"".join(face.put([one], "m-up") for one in deltas) + face.tail(finish, USAGE, None, None))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def source_of(*payloads: dict[str, Any], size: int = 1 << 20) -> tuple[ResponsesSource, list[Delta]]:
    data = "".join(f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in payloads).encode()
    source = ResponsesSource(reply())
    deltas: list[Delta] = []
    for at in range(0, len(data), size):
        deltas += source.feed(data[at : at + size])
    deltas += source.close()
    return source, deltas


def test_items_of_an_answer() -> None:
    found = streamed(ANSWER, Finish("tool_calls"))
    response = found[-1]["response"]
    assert (found[-1]["type"], response["status"], response["id"]) == ("response.completed", "completed", IDENT)
    reasoning, message, weather, patch = response["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Let me look."}]
    assert [part["text"] for part in message["content"]] == ["I look 🌍."]
    assert (weather["type"], weather["arguments"], weather["namespace"]) == ("function_call", '{"city": "Köln"}', "w")
    assert (patch["type"], patch["input"], patch["call_id"]) == ("custom_tool_call", "*** Begin", "call_2")
    done = {event["output_index"]: event["item"] for event in found if event["type"] == "response.output_item.done"}
    assert [done[i] for i in range(4)] == response["output"]
    assert len({item["id"] for item in response["output"]}) == 4
    assert response["usage"] == {
        "input_tokens": 18, "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0}, "output_tokens": 15,
        "output_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 33,
    }  # fmt: skip
    assert (response["instructions"], response["temperature"], response["store"]) == ("Be short.", 0.5, False)


def test_whole_is_what_the_stream_ends_with() -> None:
    streams = streamed(ANSWER, Finish("tool_calls"))[-1]["response"]
    whole = json.loads(ResponsesFace(reply()).whole([*ANSWER, Finish("tool_calls")], "m-up", USAGE, None, None))
    assert whole == streams


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        (STOP, "completed", None),
        (Finish("length"), "incomplete", "max_output_tokens"),
        (Finish("content_filter"), "incomplete", "content_filter"),
    ],
)
def test_ends(finish: Finish, status: str, reason: str | None) -> None:
    last = streamed([TextDelta("a")], finish)[-1]
    assert (last["type"], last["response"]["status"]) == (f"response.{status}", status)
    assert (last["response"]["incomplete_details"] or {}).get("reason") == reason
    assert last["response"]["output"][0]["status"] == status


def test_refusal_follows_text() -> None:
    message = streamed([TextDelta("a"), RefusalDelta("No.")])[-1]["response"]["output"][0]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]


def test_error_goes_on_with_the_numbers() -> None:
    face = ResponsesFace(reply())
    found = parse(face.put([TextDelta("Hel")], "m-up") + face.error(GatewayError(errors.UPSTREAM_CUT, "It broke.")))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    failed, error = found[-2:]
    assert failed["response"]["status"] == "failed" and failed["response"]["error"]["message"] == "It broke."
    assert failed["response"]["output"][0]["content"][0]["text"] == "Hel"
    assert (error["type"], error["code"], error["error"]["code"]) == ("error", "upstream_cut", "upstream_cut")


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_own_events_are_read_back(size: int) -> None:
    source, deltas = source_of(*streamed(ANSWER, Finish("tool_calls")), size=size)
    assert source.done and source.error is None and source.model == "m-up" and source.skipped == 0
    assert texts(deltas) == texts(ANSWER) and deltas[-1] == Finish("tool_calls")
    assert source.reported == USAGE


_KINDS = st.sampled_from([TextDelta, ReasoningDelta])
_SAID = st.lists(st.builds(lambda kind, text: kind(text), _KINDS, st.text(min_size=1, max_size=9)), max_size=8)


@given(_SAID)
def test_text_and_reasoning_survive(said: list[Delta]) -> None:
    source, deltas = source_of(*streamed(said))
    assert source.done and runs(deltas[:-1]) == runs(said)


def runs(deltas: list[Delta]) -> list[tuple[str, str]]:
    """Neighbours of one kind as one text."""
    found: list[tuple[str, str]] = []
    for delta in deltas:
        assert isinstance(delta, TextDelta | ReasoningDelta)
        kind = type(delta).__name__
        before = found.pop()[1] if found and found[-1][0] == kind else ""
        found.append((kind, before + delta.text))
    return found


def texts(deltas: list[Delta]) -> dict[str, str]:
    """Everything that was said, by kind and call."""
    found: dict[str, str] = {}
    for delta in deltas:
        match delta:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                key, text = type(delta).__name__, delta.text
            case ToolStart():
                key, text = f"start {delta.index}", f"{delta.id} {delta.name}"
            case ToolDelta():
                key, text = f"call {delta.index}", delta.arguments
            case _:
                continue
        found[key] = found.get(key, "") + text
    return {key: json.dumps(json.loads(text)) if key.startswith("call") else text for key, text in found.items()}


def response(status: str, **members: Any) -> dict[str, Any]:
    found = {"id": "resp_up", "object": "response", "status": status, "model": "m-up", "output": [], **members}
    return {"type": f"response.{status}", "response": found}


MESSAGE = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}


def test_an_answer_only_in_the_last_event_is_read() -> None:
    source, deltas = source_of(response("completed", output=[MESSAGE]))
    assert source.done and deltas == [TextDelta("Hello"), STOP]


def test_an_item_without_deltas_is_read_once() -> None:
    item = {"type": "response.output_item.done", "output_index": 0, "item": MESSAGE}
    source, deltas = source_of(item, response("completed", output=[MESSAGE]))
    assert source.done and deltas == [TextDelta("Hello"), STOP]


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (response("failed", error={"code": "server_error", "message": "It broke"}), "upstream_error"),
        (response("failed", error={"code": "rate_limit_exceeded", "message": "Slow down"}), "rate_limit_exceeded"),
        ({"type": "error", "code": "server_error", "message": "It broke", "param": None}, "upstream_error"),
        ({"type": "error", "error": {"code": "server_error", "message": "It broke"}}, "upstream_error"),
        ({"type": "response.output_text.delta", "output_index": 0, "delta": "a"}, "upstream_cut"),
    ],
)
def test_failures(event: dict[str, Any], code: str) -> None:
    source, _ = source_of(event)
    assert source.error is not None and not source.done
    assert source.error.kind.code == code, source.error.message


def test_incomplete_answers() -> None:
    for reason, finish in (("max_output_tokens", "length"), ("content_filter", "content_filter")):
        _, deltas = source_of(response("incomplete", incomplete_details={"reason": reason}, output=[MESSAGE]))
        assert deltas[-1] == Finish(finish)


def test_whole_answers() -> None:
    source = ResponsesSource(reply())
    deltas = source.whole(json.dumps(response("completed", output=[MESSAGE])["response"]).encode())
    assert source.done and list(deltas) == [TextDelta("Hello"), STOP]
    broken = ResponsesSource(reply())
    broken.whole(b'{"error":{"message":"no","code":"server_error"}}')
    assert broken.error is not None
    garbage = ResponsesSource(reply())
    garbage.whole(b"<html>")
    assert garbage.error is not None and garbage.error.kind is errors.UPSTREAM_GARBAGE
