"""Deltas in, what a Messages client reads out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.anthropic_messages.dialect import CLIENT
from headgate.dialects.base import (
    Delta,
    Finish,
    RawDelta,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolDelta,
    ToolStart,
)
from headgate.errors import GatewayError
from headgate.model import Usage
from headgate.wire import codec
from tests.dialects.anthropic_messages.streams import REPLY, check_order, face, parse, run

USAGE = Usage(18, 15, 5, 3, 0, "provider")
STOP = Finish("stop")
ANSWER: list[Delta] = [
    ReasoningDelta("Let me "),
    ReasoningDelta("look.", "c2ln"),
    TextDelta("I "),
    TextDelta("look 🌍."),
    ToolStart(0, "toolu_1", "weather"),
    ToolDelta(0, '{"city": "K'),
    ToolDelta(0, 'öln"}'),
    ToolStart(1, "toolu_2", "now"),
    ToolDelta(1, "{}"),
]
CONTENT = [
    {"type": "thinking", "thinking": "Let me look.", "signature": "c2ln"},
    {"type": "text", "text": "I look 🌍."},
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}},
    {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}},
]


def streamed(deltas: list[Delta], finish: Finish = STOP, extra: bytes | None = None) -> list[dict[str, Any]]:
    one = face()
    found = parse(b"".join(one.put([delta], "claude-up") for delta in deltas) + one.tail(finish, USAGE, extra, None))
    check_order(found)
    return found


def joined(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content as an SDK accumulates it."""
    blocks: list[dict[str, Any]] = []
    inputs: dict[int, str] = {}
    for event in found:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            for key, value in event["delta"].items():
                if key == "partial_json":
                    inputs[event["index"]] = inputs.get(event["index"], "") + value
                elif key != "type":
                    blocks[event["index"]][key] += value
    for index, text in inputs.items():
        blocks[index]["input"] = json.loads(text)
    return blocks


def test_stream_of_events() -> None:
    found = streamed([TextDelta("Hello"), TextDelta(" you")])
    assert [one["type"] for one in found] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    message = found[0]["message"]
    assert message == {
        "id": REPLY.ident, "type": "message", "role": "assistant", "model": "claude-up", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": message["usage"],
    }  # fmt: skip
    assert message["usage"]["input_tokens"] == 7 and message["usage"]["output_tokens"] == 0
    assert found[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 15,
        },
    }  # fmt: skip


def test_every_kind_of_block() -> None:
    assert joined(streamed(ANSWER, Finish("tool_calls"))) == CONTENT


def test_mixed_arguments_are_put_in_order() -> None:
    mixed: list[Delta] = [
        ToolStart(0, "a", "f"), ToolDelta(0, '{"x"'), ToolStart(1, "b", "g"), ToolDelta(1, '{"y"'),
        ToolDelta(0, ": 1}"), ToolDelta(1, ": 2}"),
    ]  # fmt: skip
    assert [block["input"] for block in joined(streamed(mixed, Finish("tool_calls")))] == [{"x": 1}, {"y": 2}]


def test_deltas_of_other_apis_are_left_out() -> None:
    assert joined(streamed([TextDelta("a"), RawDelta("odd", codec.raw(1), "openai_chat")])) == [
        {"type": "text", "text": "a"}
    ]


@pytest.mark.parametrize(
    ("finish", "reason", "sequence"),
    [
        (STOP, "end_turn", None),
        (Finish("stop", "", "END"), "stop_sequence", "END"),
        (Finish("length"), "max_tokens", None),
        (Finish("tool_calls"), "tool_use", None),
        (Finish("content_filter", "SAFETY"), "refusal", None),
        (Finish("stop", "pause_turn"), "pause_turn", None),
        (Finish("stop", "eos"), "end_turn", None),
    ],
)
def test_stop_reasons(finish: Finish, reason: str, sequence: str | None) -> None:
    assert streamed([TextDelta("a")], finish)[-2]["delta"] == {"stop_reason": reason, "stop_sequence": sequence}
    whole = json.loads(face().whole([TextDelta("a"), finish], "m", USAGE, None, None))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)


def test_refusal_is_text_and_says_so() -> None:
    found = streamed([RefusalDelta("I cannot.")])
    assert joined(found) == [{"type": "text", "text": "I cannot."}]
    assert found[-2]["delta"]["stop_reason"] == "refusal"


def test_extras_stand_beside_the_usage() -> None:
    assert streamed([TextDelta("a")], extra=b'{"cost":1}')[-2]["headgate"] == {"cost": 1}
    whole = json.loads(face().whole([TextDelta("a"), STOP], "m", USAGE, b'{"cost":1}', b"[]"))
    assert whole["headgate"] == {"cost": 1} and whole["route_trace"] == []


def test_whole_message() -> None:
    whole = json.loads(face().whole([*ANSWER, Finish("tool_calls")], "claude-up", USAGE, None, None))
    assert whole == {
        "id": REPLY.ident, "type": "message", "role": "assistant", "model": "claude-up", "content": CONTENT,
        "stop_reason": "tool_use", "stop_sequence": None, "usage": whole["usage"],
    }  # fmt: skip


def test_own_stream_reads_back_as_its_deltas() -> None:
    one = face()
    out = one.put(ANSWER, "claude-up") + one.tail(Finish("tool_calls"), USAGE, None, None)
    deltas, source = run([out])
    assert source.done and source.reported == USAGE and source.model == "claude-up"
    wanted = [ReasoningDelta("Let me "), ReasoningDelta("look."), ReasoningDelta("", "c2ln"), *ANSWER[2:]]
    assert deltas == [*wanted, Finish("tool_calls")]


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (errors.INVALID_VALUE, "invalid_request_error"),
        (errors.INVALID_KEY, "authentication_error"),
        (errors.MODEL_NOT_ALLOWED, "permission_error"),
        (errors.MODEL_NOT_FOUND, "not_found_error"),
        (errors.IDEMPOTENCY_MISMATCH, "invalid_request_error"),
        (errors.PAYLOAD_TOO_LARGE, "request_too_large"),
        (errors.RATE_LIMITED, "rate_limit_error"),
        (errors.INTERNAL, "api_error"),
        (errors.UPSTREAM_CUT, "api_error"),
        (errors.UPSTREAM_OVERLOADED, "overloaded_error"),
        (errors.DRAINING, "overloaded_error"),
        (errors.UPSTREAM_TIMEOUT, "timeout_error"),
    ],
)
def test_error_types(kind: errors.Kind, word: str) -> None:
    error = GatewayError(kind, "No.", param="max_tokens")
    body = json.loads(CLIENT.error_body(error))
    inner = {"type": word, "message": "No.", "code": kind.code, "param": "max_tokens"}
    assert body == {"type": "error", "error": inner, "request_id": None}
    error.not_continued = "nobody left"
    (event,) = parse(CLIENT.error_event(error, "msg_1"))
    assert event == {"type": "error", "error": {**inner, "not_continued": "nobody left"}, "request_id": "msg_1"}


def test_text_within_a_call_takes_nothing_from_its_arguments() -> None:
    """A block cannot be opened again, so the text follows the call."""
    found = streamed(
        [ToolStart(0, "c1", "f"), ToolDelta(0, '{"a":'), TextDelta("x"), ToolDelta(0, "1}")], Finish("tool_calls")
    )
    call, text = joined(found)
    assert (call["input"], text["text"]) == ({"a": 1}, "x")
