"""Finish reasons: every server's word for why an answer ends → one of OpenAI's."""

from __future__ import annotations

from msgspec import Raw

from headgate.wire import codec
from headgate.wire.codec import NULL

_STOP = Raw(b'"stop"')
_FINISHES = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "function_call",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "model_length": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "content_filtered": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
}
# The upstream itself says that it did not get to the end: DeepSeek's, vLLM's and OpenRouter's words for it.
FAILED_FINISHES = frozenset(("error", "abort", "aborted", "insufficient_system_resource", "network_error"))


def finish_reason(raw: Raw | None, called_tools: bool) -> str | None:
    """One of OpenAI's reasons, a member of FAILED_FINISHES, or None where there is none yet.

    A reason that nobody documents (``eos``, ``end_turn``, …) is ``stop``; ``stop`` after a tool call is ``tool_calls``.
    """
    if raw is None or raw == NULL:
        return None
    if raw == _STOP and not called_tools:
        return "stop"
    word = (codec.as_text(raw) or "").lower()
    if not word:
        return None
    if word in FAILED_FINISHES:
        return word
    reason = _FINISHES.get(word, "stop")
    return "tool_calls" if called_tools and reason == "stop" else reason
