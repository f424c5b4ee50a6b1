"""Token counts: read from wherever a server reports them, and written as the client reads them.

One reader serves streams and whole answers.  It accepts every spelling of this API's servers, decides which
counts are parts of which, and falls back to an estimate for what is unknown.  It knows nothing of prices.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from headgate.dialects.usage.counts import (
    AUDIO,
    COMPLETION_DETAILS,
    CREATION,
    MOST_TOKENS,
    PROMPT,
    PROMPT_DETAILS,
    Members,
    as_count,
    details_of,
    first,
    inner,
    squeeze,
)
from headgate.model import TokenDetails, Usage
from headgate.wire import codec
from headgate.wire.codec import NULL, ZERO, Object

# ------------------------------------------------------------------------------------- the common case


_Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
_Some = Annotated[int, Meta(ge=1, le=MOST_TOKENS)]


class _PromptDetails(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    cached_tokens: _Count = 0
    audio_tokens: _Count = 0


class _CompletionDetails(Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    reasoning_tokens: _Count = 0
    audio_tokens: _Count = 0
    accepted_prediction_tokens: _Count = 0
    rejected_prediction_tokens: _Count = 0


class PlainUsage(Struct, forbid_unknown_fields=True, gc=False):
    """Usage in OpenAI's own form, without other members."""

    prompt_tokens: _Some
    completion_tokens: _Some
    total_tokens: int
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_plain = msgspec.json.Decoder(PlainUsage).decode
_any = msgspec.json.Decoder().decode


def read_plain(plain: PlainUsage) -> Usage | None:
    """The counts where they need no interpretation, as the total shows; else None."""
    prompt, completion = plain.prompt_tokens, plain.completion_tokens
    if plain.total_tokens != prompt + completion:
        return None
    inputs, outputs = plain.prompt_tokens_details, plain.completion_tokens_details
    cached = inputs.cached_tokens if inputs else 0
    reasoning = outputs.reasoning_tokens if outputs else 0
    if cached > prompt or reasoning > completion:
        return None
    usage = Usage(prompt, completion, cached, 0, reasoning, "provider")
    if (inputs and inputs.audio_tokens) or (outputs and outputs.audio_tokens):
        heard, said = inputs.audio_tokens if inputs else 0, outputs.audio_tokens if outputs else 0
        usage.details = TokenDetails(audio_input=heard, audio_output=said)
    return usage


def read(raw: Raw | None, estimate: Usage) -> tuple[Usage, bool]:
    """The token counts that ``raw`` reports, and whether it stands there as the client reads it.

    A count that is missing, null, zero, negative or absurd is unknown; ``estimate`` fills it in, and the basis of the
    result is then ``estimated``.
    """
    if raw is None:
        return estimate, False
    try:
        usage = read_plain(_plain(raw))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        usage = None
    if usage is not None:
        return usage, b"null" not in bytes(raw)  # a details object that is null is left out
    return _read_loosely(raw, estimate)


# ------------------------------------------------------------------------------------- every other spelling

# Names without underscores, in lower case, so that ``promptTokenCount`` and ``prompt_token_count`` are one.  The first
# name that has a count is taken.
_COMPLETION = (
    "completiontokens",
    "outputtokens",
    "completiontokencount",
    "outputtokencount",
    "candidatestokencount",
    "responsetokencount",
    "evalcount",
    "generatedtokens",
)
_TOTAL = ("totaltokens", "totaltokencount")
_REASONING = (
    "reasoningtokens",
    "thinkingtokens",
    "thoughtstokens",
    "reasoningtokencount",
    "thoughtstokencount",
)
# Counts of Gemini's own API that stand beside the visible ones and not among them (ai.google.dev, UsageMetadata)
_THOUGHTS_BESIDE = ("thoughtstokencount",)
_TOOL_PROMPT = ("tooluseprompttokencount",)
_CACHE_READ = (
    "cachedtokens",
    "promptcachehittokens",
    "cachedcontenttokencount",
    "cachereadtokens",
    "cachedinputtokens",
    "cachedprompttokens",
    "numcachedtokens",
)
_CACHE_WRITE = (
    "cachewritetokens",
    "cachecreationtokens",
    "cachedcreationtokens",
    "cachedwritetokens",
    "cachecreationinputtokens",
    "cachewriteinputtokens",
)
# Anthropic's and Bedrock's names: there the input does not include what was read from or written to the cache
_SPLIT_READ = ("cachereadinputtokens", "cachereadinputtokencount")
_SPLIT_WRITE = ("cachecreationinputtokens", "cachewriteinputtokens", "cachewriteinputtokencount")
_CACHE_MISS = ("promptcachemisstokens",)
_INNER = ("billedunits", "tokens")  # Cohere: what is billed before what was counted


def _read_loosely(raw: Raw, estimate: Usage) -> tuple[Usage, bool]:
    try:
        given = _any(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return estimate, False
    members = squeeze(given)
    if not first(members, PROMPT + _COMPLETION + _TOTAL):
        members = {**members, **inner(members, _INNER)}
    usage = _settle(members, estimate)
    return usage, usage is not estimate and _stands(given, usage)


def _settle(members: Members, estimate: Usage) -> Usage:
    """Decide which counts are parts of which: the total does where it is given, else the names do."""
    prompt, completion, total = first(members, PROMPT), first(members, _COMPLETION), first(members, _TOTAL)
    read, written, split = _cache(members)
    reasoning = first(inner(members, COMPLETION_DETAILS), _REASONING) or first(members, _REASONING)
    if not prompt:
        miss = first(members, _CACHE_MISS)
        prompt = read + miss if miss or (read and not split) else 0
    known = prompt or (read + written if split else 0)
    if not (known or completion or total):
        return estimate
    prompt += first(members, _TOOL_PROMPT)
    prompt += _left_out(members, prompt, completion, total, read, written, split)
    visible = completion
    if not total:
        beside = first(members, _THOUGHTS_BESIDE) or (reasoning if completion and reasoning > completion else 0)
        completion += beside
    elif prompt and visible and total > prompt + visible:
        completion = total - prompt  # the rest is output that is billed and not shown, as hidden reasoning is
    elif visible and not prompt and total > visible:
        prompt = total - visible
    elif prompt and not visible and total > prompt:
        completion = total - prompt
    details = details_of(members)
    return _fill(Usage(prompt, completion, read, written, reasoning, "provider", details), total, estimate)


def _cache(members: Members) -> tuple[int, int, bool]:
    """(read from the cache, written to it, whether the names are of an API whose input leaves both out)."""
    details = inner(members, PROMPT_DETAILS)
    read = first(details, _CACHE_READ + _SPLIT_READ) or first(members, _CACHE_READ)
    written = first(details, _CACHE_WRITE)
    split = False
    if not read:
        read = first(members, _SPLIT_READ)
        split = bool(read)
    if not written:
        written = first(members, _CACHE_WRITE + _SPLIT_WRITE)
        split = split or bool(first(members, _SPLIT_WRITE))
    if not written:
        written = sum(as_count(value) or 0 for value in inner(members, CREATION).values())
        split = split or bool(written)
    if details and first(details, _CACHE_READ + _SPLIT_READ + _CACHE_WRITE):
        split = False  # details are parts of what they detail
    return read, written, split


def _left_out(members: Members, prompt: int, completion: int, total: int, read: int, written: int, split: bool) -> int:
    """How much of what the cache held, or of what was heard, the prompt does not include."""
    cache = read + written
    if split and cache > prompt:
        return cache  # under other names such a count is an artefact: Mistral rounds what is cached up to blocks
    beyond = total - prompt - completion
    audio = first(inner(members, PROMPT_DETAILS), AUDIO)  # Mistral counts it beside the text
    if beyond > 0 and beyond in (cache, read, written, audio):
        return beyond
    # OpenAI's ``prompt_tokens`` includes the cache, Anthropic's ``input_tokens`` does not.
    return cache if split and not total and not first(members, PROMPT[:1]) else 0


def _fill(usage: Usage, total: int, estimate: Usage) -> Usage:
    """Complete ``usage`` from ``estimate``, and keep the parts within what they are parts of."""
    if not usage.completion and (estimate.completion or usage.reasoning):
        unknown = max(estimate.completion, usage.reasoning)
        usage.completion = min(unknown, total) if total and not usage.prompt else unknown
        usage.basis = "estimated"
    if not usage.prompt and estimate.prompt and total != usage.completion:  # else the total says that there was none
        usage.prompt = total - usage.completion if total > usage.completion else estimate.prompt
        usage.basis = "estimated"
    usage.cached = min(usage.cached, usage.prompt)
    usage.cache_write = min(usage.cache_write, usage.prompt - usage.cached)
    usage.reasoning = min(usage.reasoning, usage.completion)
    return usage


def _stands(given: object, usage: Usage) -> bool:
    """True if a client that reads OpenAI's names finds ``usage`` in ``given``."""
    if not isinstance(given, dict):
        return False
    counts = (given.get("prompt_tokens"), given.get("completion_tokens"), given.get("total_tokens"))
    if counts != (usage.prompt, usage.completion, usage.prompt + usage.completion) or not _whole(counts):
        return False
    for key, name, count in (
        ("prompt_tokens_details", "cached_tokens", usage.cached),
        ("completion_tokens_details", "reasoning_tokens", usage.reasoning),
    ):
        details = given.get(key, {})
        if not isinstance(details, dict) or (count and not details.get(name)):
            return False
        if not _whole(details.values()):
            return False
    return True


def _whole(counts: object) -> bool:
    return all(type(count) is int for count in counts)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------- where it stands

_ELSEWHERE = ("x_groq", "usageMetadata", "usage_metadata", "amazon-bedrock-invocationMetrics", "meta", "timings")
_MIXED = ("meta", "x_groq")  # these hold other things as well
_PLACES = frozenset((*_ELSEWHERE, "eval_count", "prompt_eval_count"))


def find(top: Object) -> Raw | None:
    """The usage object of a chunk or of an answer, wherever its server puts it; None where there is none."""
    raw = top.get("usage")
    if raw is not None and _says_something(raw):
        return raw
    choices = top.get("choices")
    if choices is not None and b'"usage"' in bytes(choices):  # Kimi: in the choice
        for choice in codec.as_objects(choices) or []:
            inner = choice.get("usage")
            if inner is not None and _says_something(inner):
                return inner
    return None if _PLACES.isdisjoint(top) else _find_elsewhere(top)


def _find_elsewhere(top: Object) -> Raw | None:
    for place in _ELSEWHERE:
        members = codec.as_object(top.get(place))
        if not members:
            continue
        if place == "timings":
            return _of_timings(members)
        raw = members.get("usage", top[place])
        if _says_something(raw) and (
            place not in ("meta", "x_groq") or {"usage", "tokens", "billed_units"} & members.keys()
        ):
            return raw
    counts = {key: top[key] for key in ("prompt_eval_count", "eval_count") if key in top}
    return codec.raw(counts) if counts else None  # Ollama's own API


def _of_timings(members: Object) -> Raw | None:
    """llama.cpp counts in its timings also where nobody asked for the usage: ``prompt_n`` without the cached part."""
    fresh, cached, said = (codec.as_integer(members.get(key)) or 0 for key in ("prompt_n", "cache_n", "predicted_n"))
    if fresh <= 0 or said <= 0 or cached < 0:
        return None
    counts = {"prompt_tokens": fresh + cached, "completion_tokens": said, "total_tokens": fresh + cached + said}
    return codec.raw({**counts, "prompt_tokens_details": {"cached_tokens": cached}} if cached else counts)


def _says_something(raw: Raw) -> bool:
    return memoryview(raw)[0] == 0x7B and raw != codec.EMPTY_OBJECT


def merge(before: Raw | None, raw: Raw) -> Raw:
    """``raw``, with what only an earlier report has: some tell the prompt first and the completion last, and say null
    or zero of the other.
    """
    if before is None:
        return raw
    new = codec.as_object(raw) or {}
    known = {key: value for key, value in new.items() if value != NULL and value != ZERO}
    if len(known) == len(new) and "prompt_tokens" in known and "completion_tokens" in known:
        return raw
    return codec.raw({**new, **(codec.as_object(before) or {}), **known})


# ------------------------------------------------------------------------------------- what the client reads


def write(usage: Usage, raw: Raw | None) -> Raw:
    """``usage`` as the client reads it, with what the upstream's own object (``raw``) says beyond it."""
    members = (codec.as_object(raw) if raw is not None else None) or {}
    for key, name, count in (
        ("prompt_tokens_details", "cached_tokens", usage.cached),
        ("completion_tokens_details", "reasoning_tokens", usage.reasoning),
    ):
        details = _details(members.pop(key, None))
        if count and not codec.as_number(details.get(name)):  # what the upstream says of its parts is not ours to mend
            details[name] = codec.raw(count)
        if details:
            members[key] = codec.raw(details)
    counts: Object = {
        "prompt_tokens": codec.raw(usage.prompt),
        "completion_tokens": codec.raw(usage.completion),
        "total_tokens": codec.raw(usage.prompt + usage.completion),
    }
    return codec.raw({**counts, **members, **counts})


def _details(raw: Raw | None) -> Object:
    """The counts of a details object, without nulls, and as numbers where they came as strings."""
    details: Object = {}
    for key, value in (codec.as_object(raw) or {}).items():
        if memoryview(value)[0] == 0x22:
            count = as_count(codec.as_text(value))
            if count is not None:
                details[key] = codec.raw(count)
        elif value != NULL:
            details[key] = value
    return details
