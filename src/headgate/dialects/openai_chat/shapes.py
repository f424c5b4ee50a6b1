"""The parts that answers and chunks share: usage, content parts, text.

Each function takes what an upstream sent and gives what the OpenAI schema says, or says that nothing had to change.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw, Struct

from headgate.model import Usage
from headgate.wire import codec
from headgate.wire.codec import NULL, ZERO, Object

TEXT_KEYS = ("content", "reasoning_content", "reasoning", "refusal")
THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details")
NO_ANSWER = frozenset(THOUGHTS)  # seen, but not what was asked for
OTHER_VISIBLE_KEYS = ("tool_calls", "function_call", "audio", "images", "reasoning_details")
EMPTY = frozenset((b"null", b'""', b"[]", b"{}"))
NO_ERROR = EMPTY | {b"false"}  # what stands under ``error`` where there is none

Number = int | float | None
VISIBLE_KEYS = frozenset((*TEXT_KEYS, *OTHER_VISIBLE_KEYS))


# ------------------------------------------------------------------------------------- usage


class _Details(Struct, gc=False):
    cached_tokens: Number = None
    cache_write_tokens: Number = None
    reasoning_tokens: Number = None


class _Reported(Struct, gc=False):
    """Every spelling of token counts that servers of this API use."""

    prompt_tokens: Number = None
    completion_tokens: Number = None
    total_tokens: Number = None
    input_tokens: Number = None
    output_tokens: Number = None
    cached_tokens: Number = None
    prompt_cache_hit_tokens: Number = None
    cache_creation_input_tokens: Number = None
    reasoning_tokens: Number = None
    prompt_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


# What no answer reaches, and no price makes overflow: a count beyond it is not one.
MOST_TOKENS = 1 << 40
_NO_DETAILS = _Details()
_COUNTS = frozenset(("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"))
_reported = msgspec.json.Decoder(_Reported).decode


def read_usage(raw: Raw) -> tuple[Usage | None, bool]:
    """Token counts as any OpenAI-like server reports them (None where there are none), and whether the three that a
    client reads stand there as it reads them.

    Reasoning that the server counts beside the completion (xAI: the total says so) is added to it, as OpenAI counts.
    """
    try:
        said = _reported(raw)
    except (msgspec.DecodeError, RecursionError):
        return _counts_alone(raw), False
    prompt = _count(said.prompt_tokens or said.input_tokens)
    completion = _count(said.completion_tokens or said.output_tokens)
    if not prompt and not completion:
        return None, False
    inputs = said.prompt_tokens_details or said.input_tokens_details or _NO_DETAILS
    outputs = said.completion_tokens_details or said.output_tokens_details or _NO_DETAILS
    cached = inputs.cached_tokens or said.cached_tokens or said.prompt_cache_hit_tokens
    written = inputs.cache_write_tokens or said.cache_creation_input_tokens
    thought = outputs.reasoning_tokens or said.reasoning_tokens
    reasoning = _count(thought) if thought else 0
    total = said.total_tokens
    if reasoning and total == prompt + completion + reasoning:
        completion += reasoning
    usage = Usage(
        prompt,
        completion,
        _count(cached) if cached else 0,
        _count(written) if written else 0,
        reasoning,
        "provider",
    )
    as_read = said.prompt_tokens == prompt and said.completion_tokens == completion and total == prompt + completion
    return usage, as_read


def merge_usage(before: Raw | None, raw: Raw) -> Raw:
    """``raw``, with what only an earlier report has: some tell the prompt first and the completion last, and say null
    or nought of the other.
    """
    if before is None:
        return raw
    new = codec.as_object(raw) or {}
    told = {key: value for key, value in new.items() if value != NULL and not (key in _COUNTS and value == ZERO)}
    if len(told) == len(new) and "prompt_tokens" in told and "completion_tokens" in told:
        return raw
    return codec.raw({**new, **(codec.as_object(before) or {}), **told})


def _counts_alone(raw: Raw) -> Usage | None:
    """What can be had from a usage object with a member of another type."""
    members = codec.as_object(raw) or {}
    prompt = _count(codec.as_number(members.get("prompt_tokens")))
    completion = _count(codec.as_number(members.get("completion_tokens")))
    return Usage(prompt, completion, basis="provider") if prompt or completion else None


def _count(number: Number) -> int:
    return int(number) if number is not None and 0 < number <= MOST_TOKENS else 0


def usage_object(usage: Usage, raw: Raw | None) -> Raw:
    """``usage`` as the client reads it, with what the upstream's own object (``raw``) says beyond the three counts."""
    result = (codec.as_object(raw) if raw is not None else None) or {}
    for key in ("prompt_tokens_details", "completion_tokens_details"):
        details = codec.as_object(result.pop(key, None))
        if details:
            result[key] = codec.raw({name: value for name, value in details.items() if value != NULL})
    if raw is None and usage.cached:
        result["prompt_tokens_details"] = codec.raw({"cached_tokens": usage.cached})
    if raw is None and usage.reasoning:
        result["completion_tokens_details"] = codec.raw({"reasoning_tokens": usage.reasoning})
    counts: Object = {
        "prompt_tokens": codec.raw(usage.prompt),
        "completion_tokens": codec.raw(usage.completion),
        "total_tokens": codec.raw(usage.prompt + usage.completion),
    }
    return codec.raw({**counts, **result, **counts})


# ------------------------------------------------------------------------------------- content parts


def put_parts(delta: Object, raw: Raw) -> None:
    """Makes strings of content that came as an array of parts: ``content`` and ``reasoning_content``.

    Mistral's reasoning models stream ``[{"type": "thinking", "thinking": [{"type": "text", …}]}]``
    (docs.mistral.ai, Reasoning); the official clients read a string.
    """
    parts = codec.as_objects(raw)
    if parts is None:
        return
    text: list[str] = []
    thoughts: list[str] = []
    for part in parts:
        inner = part.get("thinking")
        if inner is None:
            text.append(codec.as_text(part.get("text")) or "")
        else:
            pieces = codec.as_objects(inner)
            said = (
                codec.as_text(inner) if pieces is None else "".join(codec.as_text(p.get("text")) or "" for p in pieces)
            )
            thoughts.append(said or "")
    del delta["content"]
    if text or not thoughts:
        delta["content"] = codec.raw("".join(text))
    if thoughts:
        delta["reasoning_content"] = codec.raw("".join(thoughts))


# ------------------------------------------------------------------------------------- text


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def one_line(text: str, limit: int = 500) -> str:
    """``text`` without control characters, cut to ``limit`` characters."""
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def visible_keys(delta: Object) -> list[str]:
    """The members of a delta or message that a client can see something in."""
    return [
        key for key, value in delta.items() if key in VISIBLE_KEYS and (len(value) > 4 or bytes(value) not in EMPTY)
    ]
