"""Every recorded Messages stream over sockets: a Messages client gets its events, and Anthropic's own client reads
them; OpenAI's client reads the same text, calls and usage.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import anthropic
import httpx
import openai
import pytest

from headgate.wire.sse import Decoder
from tests.conformance import recordings
from tests.conformance.bench import Bench
from tests.dataplane import TOKEN
from tests.dialects.anthropic_messages import streams

pytestmark = recordings.ABSENT
NAMES = recordings.streams("anthropic-messages")
QUESTION: Any = [{"role": "user", "content": "as recorded"}]
# A proxy in between had asked again in the middle: such an answer is broken
SPLICED = {"anthropic/ai__spliced-message-start.chunks.sse"}
_FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length"}


class Clients(NamedTuple):
    gateway: anthropic.Anthropic
    chat: openai.OpenAI


@pytest.fixture(scope="module")
def clients(bench: Bench) -> Iterator[Clients]:
    with (
        anthropic.Anthropic(base_url=bench.gateway.removesuffix("/v1"), api_key=TOKEN, max_retries=0) as gateway,
        openai.OpenAI(base_url=bench.gateway, api_key=TOKEN, max_retries=0) as chat,
    ):
        yield Clients(gateway, chat)


def recorded(bench: Bench, name: str) -> list[dict[str, Any]]:
    """The recording's events.  Some recordings lack their names, without which the official client reads nothing."""
    decoder = Decoder(max_event=1 << 30)
    data = (bench.folder / name).read_bytes()
    found = [json.loads(event.data) for event in (*decoder.feed(data), *decoder.close())]
    whole = next((i for i, event in enumerate(found) if event["type"] == "message_stop"), len(found))
    return found[: whole + 1]  # some have several answers in one file


def received(bench: Bench, model: str) -> list[dict[str, Any]]:
    """The gateway's events."""
    body = {"model": model, "max_tokens": 9, "messages": QUESTION, "stream": True}
    answer = httpx.post(f"{bench.gateway}/messages", json=body, headers={"x-api-key": TOKEN}, timeout=20)
    assert answer.status_code == 200, answer.text
    return streams.parse(answer.content)


def normal(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what is the gateway's own, or is none of the message's: ids, pings, its object.  The reports of the end
    are one, and stand before the end.  Each block has an end: a recording lacks some.
    """
    out: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                out.append({**event, "message": {**event["message"], "id": "msg"}})
            case "message_delta":
                last = {**last, **{key: value for key, value in event.items() if key != "headgate"}}
            case "ping" | "message_stop" | "content_block_stop":
                pass
            case _:
                out.append(event)
    return [*out, last, {"type": "message_stop"}]


@pytest.mark.parametrize("name", NAMES)
def test_the_events_of_a_recording_pass(bench: Bench, clients: Clients, name: str) -> None:
    cutting = recordings.CUTTINGS[NAMES.index(name) % len(recordings.CUTTINGS)]
    theirs = recorded(bench, name)
    if not has_content(theirs) or name in SPLICED:
        pytest.skip("the recording has no content, or two beginnings")
    ours = received(bench, f"claude/stream:{cutting}:{name}")
    streams.check_order(ours)
    assert normal(ours) == normal(theirs)
    with clients.gateway.messages.stream(
        model=f"claude/stream:{cutting}:{name}", max_tokens=9, messages=QUESTION
    ) as stream:
        message = stream.get_final_message()
    assert "".join(block.text for block in message.content if block.type == "text") == _joined(theirs, "text")


def has_content(events: list[dict[str, Any]]) -> bool:
    return any(one["type"].startswith("content_block_") for one in events)


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_client_reads_the_same(bench: Bench, clients: Clients, name: str) -> None:
    theirs = recorded(bench, name)
    if not any(one["type"] == "content_block_delta" for one in theirs) or name in SPLICED:
        pytest.skip("the recording has no content that a chat client reads")
    chunks = list(
        clients.chat.chat.completions.create(
            model=f"claude/stream:whole:{name}", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    )
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == _joined(theirs, "text")
    thoughts = "".join(getattr(choice.delta, "reasoning_content", None) or "" for choice in choices)
    assert thoughts == _joined(theirs, "thinking")
    calls: dict[int, list[str]] = {}
    for choice in choices:
        for call in choice.delta.tool_calls or ():
            pieces = calls.setdefault(call.index, ["", ""])
            assert call.function is not None
            pieces[0] += call.function.name or ""
            pieces[1] += call.function.arguments or ""
    assert [(one, arguments) for one, arguments in calls.values()] == _calls(theirs)
    reason = next(one["delta"]["stop_reason"] for one in reversed(theirs) if one["type"] == "message_delta")
    finishes = [choice.finish_reason for choice in choices if choice.finish_reason]
    assert len(finishes) == 1
    if reason in _FINISHES:
        assert finishes == [_FINISHES[reason] if _calls(theirs) or reason != "tool_use" else "stop"]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == _output(theirs)


def _joined(events: list[dict[str, Any]], name: str) -> str:
    text = ""
    for event in events:
        if event["type"] == "content_block_delta":
            text += event["delta"].get(name) or "" if event["delta"]["type"] == f"{name}_delta" else ""
        elif event["type"] == "content_block_start" and event["content_block"]["type"] == name:
            text += event["content_block"].get(name) or ""
    return text


def _calls(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    blocks: dict[int, tuple[str, Any, list[str]]] = {}
    found: list[tuple[str, str]] = []
    for event in events:
        match event["type"]:
            case "content_block_start" if event["content_block"]["type"] == "tool_use":
                block = event["content_block"]
                blocks[event["index"]] = block["name"], block.get("input"), []
            case "content_block_delta" if event["index"] in blocks:
                blocks[event["index"]][2].append(event["delta"].get("partial_json", ""))
            case "content_block_stop" if event["index"] in blocks:
                name, given, pieces = blocks.pop(event["index"])
                found.append((name, "".join(pieces) or json.dumps(given or {})))
    return found + [(name, "".join(pieces)) for name, _, pieces in blocks.values()]  # without their end


def _output(events: list[dict[str, Any]]) -> int:
    return int([one["usage"]["output_tokens"] for one in events if one["type"] == "message_delta"][-1])
