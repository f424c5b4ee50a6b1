"""The events of this API as a client reads them."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from headgate.dialects.anthropic_messages import seals
from headgate.model import Usage
from headgate.wire import codec, sse

Members = dict[str, object]
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def event(members: Mapping[str, object]) -> bytes:
    """Return an event.  Its name is its type."""
    kind = members["type"]
    name = codec.as_text(kind) if isinstance(kind, Raw) else str(kind)
    return sse.encode(codec.encode(members), event=(name or "").encode())


def message(ident: str, model: str) -> Members:
    """Return the members that every message begins with."""
    return {"id": ident, "type": "message", "role": "assistant", "model": model}


def message_start(ident: str, model: str, prompt_tokens: int) -> bytes:
    begun = {
        **message(ident, model),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_members(Usage(prompt_tokens)),
    }
    return event({"type": "message_start", "message": begun})


def block_stop(index: int) -> bytes:
    return event({"type": "content_block_stop", "index": index})


def usage_members(usage: Usage) -> Members:
    """Return the usage of an answer.  In this API, the input tokens do not include cached ones."""
    found: Members = {
        "input_tokens": max(0, usage.prompt - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }
    hour = usage.details.cache_write_1h if usage.details is not None else 0
    if hour:
        found["cache_creation"] = {
            "ephemeral_5m_input_tokens": max(0, usage.cache_write - hour),
            "ephemeral_1h_input_tokens": hour,
        }
    return found


def thinking(text: str, signature: str, family: str) -> Members:
    """Return a block of thinking, for which ``family`` answers."""
    return {"type": "thinking", "thinking": text, "signature": seals.sealed(signature, family)}
