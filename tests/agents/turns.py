"""The turns of a scripted model, and how each upstream API says them.

A script is a list of turns; the number of tool results in a request says which turn comes next.  So auxiliary requests
of an agent (titles, summaries) do not shift it.  Adding an API is one ``UpstreamApi`` in ``APIS``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

WORDS = 4  # pieces of a streamed text or of a call's arguments


class ToolUse(NamedTuple):
    name: str
    arguments: dict[str, Any]


class Turn(NamedTuple):
    """What the model says: its thoughts, its text, and the tools that it calls."""

    text: str = ""
    calls: tuple[ToolUse, ...] = ()
    thoughts: str = ""


class AgentRequest(NamedTuple):
    """The part of a request that decides the answer."""

    model: str
    stream: bool
    has_tools: bool
    results: int


class UpstreamApi(NamedTuple):
    """``dialect``: Headgate's name of it.  ``read`` takes a request's path and body, ``events`` and ``document`` give
    the answer's two forms.
    """

    dialect: str
    suffix: str  # of the request's path
    read: Callable[[str, dict[str, Any]], AgentRequest]
    events: Callable[[Turn, int], list[bytes]]
    document: Callable[[Turn, int], dict[str, Any]]


def pieces(text: str) -> list[str]:
    size = max(1, -(-len(text) // WORDS))
    return [text[at : at + size] for at in range(0, len(text), size)]


def _sse(members: dict[str, Any], named: bool = True) -> bytes:
    name = f"event: {members['type']}\n" if named else ""
    return f"{name}data: {json.dumps(members)}\n\n".encode()


# ------------------------------------------------------------------------------------- chat completions


def _read_chat(path: str, body: dict[str, Any]) -> AgentRequest:
    results = sum(message["role"] == "tool" for message in body["messages"])
    return AgentRequest(body["model"], bool(body.get("stream")), bool(body.get("tools")), results)


def _chat_calls(turn: Turn, number: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{number}_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for i, call in enumerate(turn.calls)
    ]


_CHAT_USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def _chat_chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}, False)


def _chat_events(turn: Turn, number: int) -> list[bytes]:
    found = [_chat_chunk({"role": "assistant", "content": ""})]
    found += [_chat_chunk({"reasoning_content": piece}) for piece in pieces(turn.thoughts)]
    found += [_chat_chunk({"content": piece}) for piece in pieces(turn.text)]
    for i, call in enumerate(_chat_calls(turn, number)):
        arguments = call["function"].pop("arguments")
        call["function"]["arguments"] = ""
        found.append(_chat_chunk({"tool_calls": [{"index": i, **call}]}))
        found += [
            _chat_chunk({"tool_calls": [{"index": i, "function": {"arguments": piece}}]}) for piece in pieces(arguments)
        ]
    last = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    end = [_sse({**last, "usage": _CHAT_USAGE}, False), b"data: [DONE]\n\n"]
    return [*found, _chat_chunk({}, "tool_calls" if turn.calls else "stop"), *end]


def _chat_document(turn: Turn, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None, "refusal": None}
    if turn.calls:
        message["tool_calls"] = _chat_calls(turn, number)
    finish = "tool_calls" if turn.calls else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return {**whole, "usage": _CHAT_USAGE}


# ------------------------------------------------------------------------------------- Messages


def _read_messages(path: str, body: dict[str, Any]) -> AgentRequest:
    blocks = [
        block for message in body["messages"] if isinstance(message["content"], list) for block in message["content"]
    ]
    results = sum(block["type"] == "tool_result" for block in blocks)
    return AgentRequest(body["model"], bool(body.get("stream")), bool(body.get("tools")), results)


_MESSAGES_USAGE = {"input_tokens": 60, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 0}


def _blocks(turn: Turn, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if turn.thoughts:
        found.append({"type": "thinking", "thinking": turn.thoughts, "signature": f"c2lnbmVk{number}"})
    if turn.text:
        found.append({"type": "text", "text": turn.text})
    return found + [
        {"type": "tool_use", "id": f"toolu_{number}_{i}", "name": call.name, "input": call.arguments}
        for i, call in enumerate(turn.calls)
    ]


def _messages_events(turn: Turn, number: int) -> list[bytes]:
    head = {"id": "msg_up", "type": "message", "role": "assistant", "model": "m", "content": []}
    usage = {**_MESSAGES_USAGE, "output_tokens": 1}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": {**head, "usage": usage}}]
    for index, block in enumerate(_blocks(turn, number)):
        begun, deltas = _deltas(block)
        found.append({"type": "content_block_start", "index": index, "content_block": begun})
        if index == 0:
            found.append({"type": "ping"})
        found += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        found.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": "tool_use" if turn.calls else "end_turn", "stop_sequence": None}
    found.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": 20}})
    return [_sse(one) for one in [*found, {"type": "message_stop"}]]


def _deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as its stream begins it, and the deltas that complete it."""
    match block["type"]:
        case "thinking":
            thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
            signature = {"type": "signature_delta", "signature": block["signature"]}
            return {**block, "thinking": "", "signature": ""}, [*thoughts, signature]
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
        case _:
            parts = pieces(json.dumps(block["input"]))
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in parts]


def _messages_document(turn: Turn, number: int) -> dict[str, Any]:
    whole = {"id": "msg_up", "type": "message", "role": "assistant", "model": "m", "content": _blocks(turn, number)}
    reason = "tool_use" if turn.calls else "end_turn"
    return {
        **whole, "stop_reason": reason, "stop_sequence": None, "usage": {**_MESSAGES_USAGE, "output_tokens": 20},
    }  # fmt: skip


# ------------------------------------------------------------------------------------- Responses


def _read_responses(path: str, body: dict[str, Any]) -> AgentRequest:
    items = body["input"] if isinstance(body["input"], list) else []
    results = sum(str(item.get("type", "")).endswith("_call_output") for item in items)
    return AgentRequest(body["model"], bool(body.get("stream")), bool(body.get("tools")), results)


def _items(turn: Turn, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if turn.thoughts:
        summary = [{"type": "summary_text", "text": turn.thoughts}]
        found.append({"type": "reasoning", "id": f"rs_{number}", "summary": summary})
    if turn.text:
        content = [{"type": "output_text", "text": turn.text, "annotations": []}]
        found.append(
            {"type": "message", "id": f"m_{number}", "role": "assistant", "status": "completed", "content": content}
        )
    return found + [
        {
            "type": "function_call",
            "id": f"fc_{number}_{i}",
            "call_id": f"call_{number}_{i}",
            "name": call.name,
            "arguments": json.dumps(call.arguments),
            "status": "completed",
        }
        for i, call in enumerate(turn.calls)
    ]


def _responses_document(turn: Turn, number: int) -> dict[str, Any]:
    usage = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
    details = {"input_tokens_details": {"cached_tokens": 40}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_{number}", "object": "response", "created_at": 1, "status": "completed", "model": "m",
        "output": _items(turn, number), "usage": {**usage, **details}, "error": None, "incomplete_details": None,
    }  # fmt: skip


def _responses_events(turn: Turn, number: int) -> list[bytes]:
    whole = _responses_document(turn, number)
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    found: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun},
    ]  # fmt: skip
    for index, item in enumerate(whole["output"]):
        found += _item_events(item, {"output_index": index, "item_id": item["id"]})
    found.append({"type": "response.completed", "response": whole})
    return [_sse({**one, "sequence_number": i}) for i, one in enumerate(found)]


def _item_events(item: dict[str, Any], place: dict[str, Any]) -> list[dict[str, Any]]:
    index = {"output_index": place["output_index"]}
    first, last = "response.output_item.added", "response.output_item.done"
    if item["type"] == "function_call":
        begun = {**item, "arguments": "", "status": "in_progress"}
        word = "response.function_call_arguments"
        found = [{"type": f"{word}.delta", **place, "delta": piece} for piece in pieces(item["arguments"])]
        found.append({"type": f"{word}.done", **place, "arguments": item["arguments"]})
    elif item["type"] == "reasoning":
        begun = {**item, "summary": []}
        text, at = item["summary"][0]["text"], {**place, "summary_index": 0}
        word = "response.reasoning_summary"
        found = [{"type": f"{word}_part.added", **at, "part": {"type": "summary_text", "text": ""}}]
        found += [{"type": f"{word}_text.delta", **at, "delta": piece} for piece in pieces(text)]
        found.append({"type": f"{word}_text.done", **at, "text": text})
        found.append({"type": f"{word}_part.done", **at, "part": item["summary"][0]})
    else:
        begun = {**item, "content": [], "status": "in_progress"}
        part, at = item["content"][0], {**place, "content_index": 0}
        found = [{"type": "response.content_part.added", **at, "part": {**part, "text": ""}}]
        found += [{"type": "response.output_text.delta", **at, "delta": piece} for piece in pieces(part["text"])]
        found.append({"type": "response.output_text.done", **at, "text": part["text"]})
        found.append({"type": "response.content_part.done", **at, "part": part})
    return [{"type": first, **index, "item": begun}, *found, {"type": last, **index, "item": item}]


# ------------------------------------------------------------------------------------- Gemini


def _read_gemini(path: str, body: dict[str, Any]) -> AgentRequest:
    model, _, method = path.rpartition("/")[2].partition(":")
    results = sum("functionResponse" in part for content in body["contents"] for part in content.get("parts", ()))
    return AgentRequest(model, method == "streamGenerateContent", bool(body.get("tools")), results)


def _gemini_answer(parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish is None:
        return {"candidates": [candidate], "modelVersion": "m"}
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120}
    return {"candidates": [{**candidate, "finishReason": finish}], "modelVersion": "m", "usageMetadata": usage}


def _gemini_parts(turn: Turn) -> list[dict[str, Any]]:
    thoughts = [{"text": turn.thoughts, "thought": True}] if turn.thoughts else []
    texts = [{"text": piece} for piece in pieces(turn.text)]
    return [*thoughts, *texts, *({"functionCall": {"name": one.name, "args": one.arguments}} for one in turn.calls)]


def _gemini_events(turn: Turn, number: int) -> list[bytes]:
    parts = _gemini_parts(turn)
    last = len(parts) - 1
    return [_sse(_gemini_answer([part], "STOP" if i == last else None), False) for i, part in enumerate(parts)]


def _gemini_document(turn: Turn, number: int) -> dict[str, Any]:
    return _gemini_answer(_gemini_parts(turn), "STOP")


APIS: Sequence[UpstreamApi] = (
    UpstreamApi("openai_chat", "/chat/completions", _read_chat, _chat_events, _chat_document),
    UpstreamApi("anthropic_messages", "/messages", _read_messages, _messages_events, _messages_document),
    UpstreamApi("openai_responses", "/responses", _read_responses, _responses_events, _responses_document),
    UpstreamApi("gemini", "enerateContent", _read_gemini, _gemini_events, _gemini_document),
)
