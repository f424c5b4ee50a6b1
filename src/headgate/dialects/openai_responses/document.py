"""The parts of a response as JSON: the response object, and its output items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw

from headgate.dialects.base import Finish, Reply
from headgate.dialects.openai_responses.request import ResponsesPrompt
from headgate.dialects.openai_responses.to_chat import CUSTOM_INPUT, Special
from headgate.model import Usage
from headgate.wire import codec
from headgate.wire.codec import NULL, Object

Members = dict[str, object]

# What a response repeats of its request, with the values of a request that does not say.
_REPEATED: Mapping[str, object] = {
    "background": False,
    "frequency_penalty": 0.0,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_FUNCTION = {"description": None, "parameters": None, "strict": None}  # members that every repeated function has
_TEXT = {"format": {"type": "text"}}
_REASONING = {"effort": None, "summary": None}


def request_of(reply: Reply) -> tuple[Object, Mapping[str, Special]]:
    """Return the client's members and its special tools, of the request that ``reply`` answers."""
    prompt = reply.prompt
    return (prompt.native, prompt.special) if isinstance(prompt, ResponsesPrompt) else ({}, {})


def response(
    reply: Reply, model: str, status: str, output: Sequence[object] = (), end: Mapping[str, object] | None = None
) -> Members:
    """A response object.  ``end``: its members that are known only at the end."""
    native, _ = request_of(reply)
    repeated = {name: _given(native, name, value) for name, value in _REPEATED.items()}
    return {
        "id": reply.ident,
        "object": "response",
        "created_at": reply.created,
        "completed_at": None,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": output,
        **repeated,
        "tools": _tools(native),
        "reasoning": {**_REASONING, **(codec.as_object(native.get("reasoning")) or {})},
        "store": False,
        "text": {**_TEXT, **(codec.as_object(native.get("text")) or {})},
        "usage": None,
        **(end or {}),
    }


def ending(finish: Finish, usage: Usage, at: int) -> tuple[str, Members]:
    """Return the status of a complete response, and its last members.  ``at``: Unix seconds."""
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(finish.reason)
    found: Members = {"completed_at": None if reason else at, "usage": counts(usage)}
    if reason is None:
        return "completed", found
    return "incomplete", {**found, "incomplete_details": {"reason": reason}}


def counts(usage: Usage) -> Members:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def _given(native: Object, name: str, otherwise: object) -> object:
    raw = native.get(name, NULL)
    return otherwise if raw == NULL else raw


def _tools(native: Object) -> list[object]:
    tools = codec.as_objects(native.get("tools")) or ()
    return [{**_FUNCTION, **tool} if codec.as_text(tool.get("type")) == "function" else tool for tool in tools]


# ------------------------------------------------------------------------------------- output items


def part(kind: str, text: str) -> Members:
    """A part of a message or of reasoning: output_text | refusal | reasoning_text."""
    if kind == "refusal":
        return {"type": kind, "refusal": text}
    if kind == "reasoning_text":
        return {"type": kind, "text": text}
    return {"type": kind, "text": text, "annotations": [], "logprobs": []}


def message(ident: str, status: str, content: Sequence[Members]) -> Members:
    return {"id": ident, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning(ident: str, status: str, content: Sequence[Members]) -> Members:
    return {"id": ident, "type": "reasoning", "status": status, "summary": [], "content": content}


def call(ident: str, status: str, call_id: str, name: str, arguments: str, special: Special | None) -> Members:
    """A tool call.  That of a custom tool holds the free text of its arguments."""
    found: Members = {"id": ident, "type": "function_call", "status": status, "call_id": call_id, "name": name}
    if special is not None and special.custom:
        found["type"] = "custom_tool_call"
        found["input"] = free_text(arguments)
    else:
        found["arguments"] = arguments
    if special is not None and special.namespace:
        found["namespace"] = special.namespace
    return found


def free_text(arguments: str) -> str:
    """Return the input of a custom tool's call.  A model that wrote no JSON has written the input itself."""
    data = arguments.encode(errors="replace")
    text = codec.as_text((codec.as_object(data) or {}).get(CUSTOM_INPUT))
    if text is not None or not data:
        return text or ""
    only = codec.as_text(Raw(data)) if data[:1] == b'"' else None
    return only if only is not None else arguments
