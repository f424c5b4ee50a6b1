"""Held output is released by one rule, whichever APIs the client and the provider speak."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from headgate.dialects.base import Reply
from headgate.dialects.registry import BACKENDS, CLIENTS, open_stream
from headgate.dialects.tally import MOST_HELD, Held
from headgate.model import Usage
from headgate.ports import StreamBridge
from tests.dialects.anthropic_messages import streams as messages
from tests.dialects.openai_chat import streams as chat

PAIRS = [(client, backend) for client in CLIENTS for backend in BACKENDS]
IDS = [f"{client} from {backend}" for client, backend in PAIRS]
CALL = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": 1}'}}]
USED = {"prompt_tokens": 5, "completion_tokens": 9}
CHAT = {
    "text": chat.events(chat.chunk({"role": "assistant", "content": "I look."})),
    "call": chat.events(chat.chunk({"tool_calls": CALL})),
    "finish": chat.events(chat.chunk({}, "tool_calls")),
    "torn": b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"fu\n\n',
    "end": chat.events({**chat.chunk({}), "choices": [], "usage": USED}, "[DONE]"),
}
MESSAGES = {
    "text": messages.events(messages.start(), messages.block(0, type="text", text=""), messages.text(0, "I look.")),
    "call": messages.events(
        messages.stop(0),
        messages.block(1, type="tool_use", id="c1", name="weather", input={}),
        messages.delta(1, "input_json_delta", partial_json='{"city": 1}'),
        messages.stop(1),
    ),
    "finish": messages.events(messages.end("tool_use")),
    "end": messages.events(messages.DONE),
}


def says(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": text}


MESSAGE = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
FUNCTION = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": ""}
# Its finish reason is its end
RESPONSES = {
    "text": messages.events(
        {"type": "response.output_item.added", "output_index": 0, "item": MESSAGE}, says("I look.")
    ),
    "call": messages.events(
        {"type": "response.output_item.added", "output_index": 1, "item": FUNCTION},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"city": 1}'},
    ),
    "finish": b"",
    "end": messages.events({"type": "response.completed", "response": {"object": "response", "status": "completed"}}),
}


def spoken(*parts: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [*parts]}, **members}]}


# Its finish reason is its end too, but others may follow until the connection closes
GEMINI = {
    "text": chat.events(spoken({"text": "I look."})),
    "call": chat.events(spoken({"functionCall": {"name": "weather", "args": {"city": 1}}})),
    "finish": chat.events(spoken(finishReason="STOP")),
    "end": b"",
}
PARTS = {"openai_chat": CHAT, "anthropic_messages": MESSAGES, "openai_responses": RESPONSES, "gemini": GEMINI}


def begin(client: str, backend: str, hold: str) -> StreamBridge:
    reply = Reply("id-1", 1, "m", False, provider="up", hold=hold, keep=True)
    return open_stream(CLIENTS[client], BACKENDS[backend], reply)


def feed(stream: StreamBridge, backend: str, parts: Iterable[str]) -> bytes:
    return b"".join(stream.feed(PARTS[backend][part]) for part in parts)


def late(stream: StreamBridge, client: str) -> bytes:
    """The calls that a client whose calls are whole gets behind all else."""
    return stream.tail(Usage()) if CLIENTS[client].whole_calls else b""


@pytest.mark.parametrize(("client", "backend"), PAIRS, ids=IDS)
def test_tool_call_is_released_at_the_finish_reason(client: str, backend: str) -> None:
    stream = begin(client, backend, "tools")
    sent = feed(stream, backend, ["text", "call"])
    assert b"I look." in sent and b"weather" not in sent
    assert stream.delivered is not None and stream.delivered.text == "I look."
    last, behind = ("finish", "end") if PARTS[backend]["finish"] else ("end", "finish")
    sent = feed(stream, backend, [last])
    assert feed(stream, backend, [behind]) + stream.close() == b"" and stream.done
    assert b"weather" in sent + late(stream, client)
    assert stream.delivered is not None and stream.delivered.text is None  # a tool call cannot be continued


@pytest.mark.parametrize(("client", "backend"), PAIRS, ids=IDS)
def test_whole_answer_is_released_at_its_end(client: str, backend: str) -> None:
    stream = begin(client, backend, "all")
    assert feed(stream, backend, ["text", "call", "finish"]) == b"" and not stream.visible
    sent = feed(stream, backend, ["end"]) + stream.close() + late(stream, client)
    assert sent.index(b"I look.") < sent.index(b"weather") and stream.visible


@pytest.mark.parametrize("hold", ["tools", "all"])
@pytest.mark.parametrize(("client", "backend"), PAIRS, ids=IDS)
def test_held_part_of_a_broken_stream_is_not_sent(client: str, backend: str, hold: str) -> None:
    stream = begin(client, backend, hold)
    sent = feed(stream, backend, ["text", "call"]) + stream.close(clean=False)
    assert stream.error is not None and b"weather" not in sent and stream.visible == (hold == "tools")


@pytest.mark.parametrize("client", CLIENTS)
def test_torn_call_is_not_released_with_its_finish_reason(client: str) -> None:
    """One read may bring both: another attempt can still send the call."""
    stream = begin(client, "openai_chat", "tools")
    feed(stream, "openai_chat", ["text"])
    sent = stream.feed(CHAT["call"] + CHAT["finish"] + CHAT["torn"])
    assert stream.error is not None and b"weather" not in sent


@pytest.mark.parametrize(("client", "backend"), PAIRS, ids=IDS)
def test_answer_that_is_too_large_to_hold_is_released(client: str, backend: str) -> None:
    stream = begin(client, backend, "all")
    word = "x" * (MOST_HELD // 8)
    piece = {
        "openai_chat": chat.events(chat.chunk({"content": word})),
        "anthropic_messages": messages.events(messages.text(0, word)),
        "openai_responses": messages.events(says(word)),
        "gemini": chat.events(spoken({"text": word})),
    }[backend]
    sent = feed(stream, backend, ["text"])
    fed = 0
    while not sent and fed < 2 * MOST_HELD:
        sent += stream.feed(piece)
        fed += len(word)
    assert MOST_HELD - len(word) <= fed <= MOST_HELD + len(word)
    assert stream.visible and word[:9].encode() in sent
    assert b"weather" in feed(stream, backend, ["call"]) + late(stream, client)  # nothing is held from then on


def test_each_held_item_is_measured_once() -> None:
    measured: list[int] = []

    def size_of(item: int) -> int:
        measured.append(item)
        return 1

    held: Held[int] = Held("all", size_of)
    for number in range(5):
        assert held.items is not None
        held.items.append(number)
        assert held.release(done=False, quiet=0.0) is None
    assert measured == list(range(5))
    assert held.release(done=True, quiet=0.0) == measured and held.items is None and not held.scope
