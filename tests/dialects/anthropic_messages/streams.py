"""What the tests of Messages streams share: an upstream's events, and the deltas that are read from them."""

from __future__ import annotations

import json
from typing import Any

from headgate.dialects.anthropic_messages.face import MessagesFace
from headgate.dialects.anthropic_messages.source import MessagesSource
from headgate.dialects.base import Delta, Reply, TextDelta, ToolDelta
from headgate.wire.sse import Decoder

REPLY = Reply("msg_0123456789abcdef01234567", 1_800_000_000, "target-model", True, provider="up", prompt_tokens=7)
USED: dict[str, Any] = {
    "input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 5, "output_tokens": 1,
}  # fmt: skip


def events(*payloads: dict[str, Any], named: bool = True, end: str = "\n") -> bytes:
    lines: list[str] = []
    for payload in payloads:
        lines += [f"event: {payload['type']}"] if named else []
        lines += [f"data: {json.dumps(payload, ensure_ascii=False)}", ""]
    return end.join([*lines, ""]).encode()


def start(**usage: Any) -> dict[str, Any]:
    message = {"id": "msg_up", "type": "message", "role": "assistant", "model": "claude-up", "content": []}
    return {"type": "message_start", "message": {**message, "usage": usage or USED}}


def block(index: int, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(index: int, kind: str, **content: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **content}}


def text(index: int, said: str) -> dict[str, Any]:
    return delta(index, "text_delta", text=said)


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def end(reason: str | None, tokens: int = 15, sequence: str | None = None) -> dict[str, Any]:
    found = {"stop_reason": reason, "stop_sequence": sequence}
    return {"type": "message_delta", "delta": found, "usage": {"output_tokens": tokens}}


DONE: dict[str, Any] = {"type": "message_stop"}
HELLO = (start(), block(0, type="text", text=""), {"type": "ping"}, text(0, "Hello "), text(0, "wörld 🌍"), stop(0))
PLAIN = (*HELLO, end("end_turn"), DONE)
TOOLS = (
    start(),
    block(0, type="thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="Let me look."),
    delta(0, "signature_delta", signature="c2ln"),
    stop(0),
    block(1, type="text", text=""),
    text(1, "I look."),
    stop(1),
    block(2, type="tool_use", id="toolu_1", name="weather", input={}),
    delta(2, "input_json_delta", partial_json=""),
    delta(2, "input_json_delta", partial_json='{"city": "K'),
    delta(2, "input_json_delta", partial_json='öln"}'),
    stop(2),
    block(3, type="tool_use", id="toolu_2", name="now", input={}),
    stop(3),
    end("tool_use"),
    DONE,
)


def run(pieces: list[bytes], reply: Reply = REPLY, clean: bool = True) -> tuple[list[Delta], MessagesSource]:
    source = MessagesSource(reply)
    deltas = [one for piece in pieces for one in source.feed(piece)]
    return [*deltas, *source.close(clean)], source


def merged(deltas: list[Delta]) -> list[Delta]:
    """Runs of text and of a call's arguments as one, however they were cut."""
    found: list[Delta] = []
    for one in deltas:
        last = found[-1] if found else None
        if isinstance(one, TextDelta) and isinstance(last, TextDelta):
            found[-1] = TextDelta(last.text + one.text)
        elif isinstance(one, ToolDelta) and isinstance(last, ToolDelta) and last.index == one.index:
            found[-1] = ToolDelta(one.index, last.arguments + one.arguments)
        else:
            found.append(one)
    return found


def parse(out: bytes) -> list[dict[str, Any]]:
    """The events that a client gets.  Checks that each is whole and has its type as its name."""
    decoder = Decoder(max_event=1 << 30)
    found = []
    for event in decoder.feed(out):
        payload = json.loads(event.data)
        assert event.name.decode() == payload["type"]
        found.append(payload)
    assert decoder.close() == []
    return found


def check_order(found: list[dict[str, Any]]) -> None:
    """Blocks begin and end one after the other, and their deltas stand between."""
    opened, count = -1, 0
    for one in found:
        match one["type"]:
            case "content_block_start":
                assert opened == -1 and one["index"] == count
                opened, count = count, count + 1
            case "content_block_delta":
                assert one["index"] == opened
            case "content_block_stop":
                assert one["index"] == opened
                opened = -1
            case "message_delta" | "message_stop":
                assert opened == -1
            case _:
                pass


def face(reply: Reply = REPLY) -> MessagesFace:
    return MessagesFace(reply)
