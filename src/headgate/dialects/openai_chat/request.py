"""A chat completion request: read from the client, written for an upstream.

The gateway reads only the members that it acts on; every other member passes with its own bytes.  Headgate's options
stand in one object, ``headgate``, which never goes upstream.  There, an unknown key is an error, and so is a key that
this version does not support yet.  An ignored option is worse than a refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from headgate.dialects import saved_prompts
from headgate.dialects.openai_chat.prompt import ChatPrompt
from headgate.dialects.openai_chat.quirks import UNLIMITED, fit, lacks, renamed, unfit
from headgate.dialects.openai_chat.quirks import apply as apply_quirks
from headgate.errors import INVALID_VALUE, NOT_YET_SUPPORTED, GatewayError
from headgate.model import CacheWish, Call, ModelRow, Options, PromptMessage, Rendered, Target
from headgate.wire import codec
from headgate.wire.codec import EMPTY_ARRAY, FALSE, NULL, TRUE, Object

NAME = "openai_chat"
PATH = "/chat/completions"
_LATER = frozenset(("max_latency_ms", "allow_hosters", "deny_hosters"))
_NANO = 1_000_000_000
_MOST_METADATA = 16
_LONGEST_MODEL = 256
_LONGEST_KEY = 64
_LONGEST_VALUE = 512
_LONGEST_TIMEOUT_MS = 24 * 3600 * 1000
_LONGEST_RESUMABLE_S = 3600
_MOST_COST_USD = 1_000_000
_MOST_RETRIES = 2
_MOST_FALLBACKS = 8
_MOST_PROVIDERS = 32
_LONGEST_PROVIDER = 64
_CACHE_TTL_S = (60, 86_400)
# Operators read it, and it is stored: no control, direction or zero-width characters
_UNPRINTABLE = "must have printable characters only"


def read(body: bytes) -> Call:
    """Read a client's request.  Raises GatewayError (400) with ``param`` if a member is invalid."""
    members = codec.decode_object(body)
    messages = members.get("messages")
    if messages is None or not _begins_with_an_object(messages):
        if not saved_prompts.is_empty(messages) or not saved_prompts.names_prompt(members.get("headgate")):
            raise invalid("messages", "must be an array of at least one message, and a message is an object")
        messages = members["messages"] = EMPTY_ARRAY
    model, stream = read_model(members), read_stream(members)
    include_usage = False
    if "stream_options" in members:
        if stream:
            include_usage = _include_usage(members)
        else:
            del members["stream_options"]  # clients send it with every request; upstreams refuse it without a stream
    call = Call(members, model, stream, include_usage, ChatPrompt(members, len(messages)))
    if "max_tokens" in members:
        call.max_tokens = _limit(members, "max_tokens")
    if "max_completion_tokens" in members:
        call.max_tokens = _limit(members, "max_completion_tokens") or call.max_tokens
    if "n" in members:
        _count(members, "n", 1)
    if "include_route_trace" in members:
        call.trace = read_trace(members.pop("include_route_trace"))
    if "headgate" in members:
        read_options(members.pop("headgate"), call)
    return call


def with_prompt(call: Call, messages: Sequence[PromptMessage]) -> Call:
    """Return the call with a saved prompt's messages before its own."""
    found = saved_prompts.with_messages_before(call.body["messages"], messages)
    body = {**call.body, "messages": found}
    return replace(call, body=body, prompt=ChatPrompt(body, len(found)))


def rewritten(call: Call, members: Object) -> Call:
    """The call with other members.  Raises GatewayError (400) where they cannot be meant."""
    fresh = read(codec.encode(members))
    return Call(
        fresh.body, fresh.model, call.stream, call.include_usage, fresh.prompt, fresh.max_tokens, call.timeout_ms,
        call.metadata, call.options, call.trace,
        lost=(*call.lost, *unfit(call.thoughts)),  # messages may stand elsewhere now
    )  # fmt: skip


def read_model(members: Object) -> str | None:
    """Return the requested model; None if the request names none."""
    model = _text(members, "model")
    if model is not None and not 0 < len(model) <= _LONGEST_MODEL:
        raise invalid("model", f"must have 1 to {_LONGEST_MODEL} characters")
    if model is not None and not model.isprintable():
        raise invalid("model", _UNPRINTABLE)
    return model


def read_stream(members: Object) -> bool:
    """True if a stream is requested."""
    streamed = members.get("stream")
    stream = streamed is not None and streamed == TRUE
    if not stream and streamed is not None and streamed != NULL and streamed != FALSE:
        raise invalid("stream", "must be true or false")
    return stream


def asked_for(body: bytes) -> str:
    """Return the model that a refused request names, for its receipt; empty if it has no printable name."""
    try:
        name = codec.as_text(codec.decode_object(body).get("model")) or ""
    except GatewayError:
        return ""
    return name if name.isprintable() and len(name) <= _LONGEST_MODEL else ""


def render(call: Call, target: Target, ask_usage: bool) -> Rendered:
    """The upstream's request, with its own id for the model.

    ``ask_usage``: a stream must report its usage, requested or not.  Without it (upstreams that reject the field)
    ``stream_options`` is left out.  The target's row sets, drops and renames parameters; the provider's quirks
    come last.
    """
    members = call.body.copy()
    members["model"] = codec.raw(target.upstream_model)
    if call.stream:
        if ask_usage:
            given = codec.as_object(members.get("stream_options")) or {}
            given["include_usage"] = TRUE
            members["stream_options"] = codec.raw(given)
        else:
            members.pop("stream_options", None)
    dropped = call.lost
    if call.dialect:
        dropped += fit(members, call, target)
    row = target.row
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        dropped += tuple(name for name in row.param_drop if name in members)
        members = with_parameters(members, row)
    quirks = target.provider.quirks
    if quirks:
        dropped += apply_quirks(members, quirks)
    return Rendered(PATH, codec.encode(members), dropped=dropped)


def with_parameters(members: Object, row: ModelRow) -> Object:
    """A request's members with the parameters that ``row`` sets, drops and renames."""
    for key, value in row.param_defaults.items():
        if lacks(members, key):
            members[key] = Raw(value)
    for key in row.param_drop:
        members.pop(key, None)
    return renamed(members, row.param_map) if row.param_map else members


# ------------------------------------------------------------------------------------- members


def invalid(param: str, what: str) -> GatewayError:
    """Return the error of an invalid member."""
    return GatewayError(INVALID_VALUE, f"'{param}' {what}.", param=param)


def _begins_with_an_object(raw: Raw) -> bool:
    """True for an array whose first item is an object.  The upstream checks the other items: to read them all here
    would double the time of a long prompt.
    """
    view = memoryview(raw)
    return view[0] == 0x5B and (view[1] == 0x7B or bytes(view[1:]).lstrip()[:1] == b"{")


def _text(members: Object, key: str) -> str | None:
    raw = members.get(key)
    if raw is None or raw == NULL:
        return None
    text = codec.as_text(raw)
    if text is None:
        raise invalid(key, "must be a string")
    return text


def _count(members: Object, key: str, least: int) -> int | None:
    raw = members[key]
    if raw == NULL:
        return None
    number = codec.as_integer(raw)
    if number is None or number < least:
        raise invalid(key, f"must be an integer of at least {least}")
    return number


def _limit(members: Object, key: str) -> int | None:
    """A limit of output tokens.  -1 means none (llama.cpp, LM Studio); it goes to the upstream as it is."""
    raw = members[key]
    return None if raw == NULL or codec.as_integer(raw) == UNLIMITED else _count(members, key, 0)


def _include_usage(members: Object) -> bool:
    raw = members["stream_options"]
    if raw == NULL:
        return False
    options = codec.as_object(raw)
    if options is None:
        raise invalid("stream_options", "must be an object")
    asked = options.get("include_usage")
    return asked is not None and asked != NULL and _flag("stream_options.include_usage", asked)


def read_trace(raw: Raw) -> bool:
    """The value of ``include_route_trace``."""
    return raw != NULL and _flag("include_route_trace", raw)


# ------------------------------------------------------------------------------------- our own options


def read_options(raw: Raw, call: Call) -> None:
    """Read the ``headgate`` object into ``call``."""
    if raw == NULL:
        return
    options = codec.as_object(raw)
    if options is None:
        raise invalid("headgate", "must be an object")
    ways: dict[str, Any] = {}
    for key, value in options.items():
        param = f"headgate.{key}"
        if key == "timeout_ms":
            call.timeout_ms = _timeout(value)
        elif key == "metadata":
            call.metadata = _metadata(value)
        elif key == "prompt":
            call.saved_prompt = saved_prompts.read_reference(value)
        elif key in _WAYS:
            if value != NULL:
                field, read_one = _WAYS[key]
                ways[field] = read_one(param, value)
        elif key in _LATER:
            raise GatewayError(NOT_YET_SUPPORTED, f"'{param}' is not supported by this version.", param=param)
        else:
            raise invalid(param, "is not an option that this gateway knows")
    if ways.get("resumable_s") and ways.get("on_disconnect") == "cancel":
        raise invalid("headgate.resumable_s", "keeps a stream for a client, 'on_disconnect: cancel' ends it: say one")
    if ways:
        call.options = Options(**ways)


def _max_cost(param: str, raw: Raw) -> int:
    number = codec.as_number(raw)
    if number is None or not 0 <= number <= _MOST_COST_USD:
        raise invalid(param, f"must be a number of US dollars from 0 to {_MOST_COST_USD}")
    return round(number * _NANO)


def _retries(param: str, raw: Raw) -> int:
    number = codec.as_integer(raw)
    if number is None or not 0 <= number <= _MOST_RETRIES:
        raise invalid(param, f"must be an integer from 0 to {_MOST_RETRIES}")
    return number


def _resumable(param: str, raw: Raw) -> float:
    number = codec.as_number(raw)
    if number is None or not 0 <= number <= _LONGEST_RESUMABLE_S:
        raise invalid(param, f"must be a number of seconds from 0 to {_LONGEST_RESUMABLE_S}")
    return float(number)


def _names(most: int, longest: int) -> Callable[[str, Raw], tuple[str, ...]]:
    def read_names(param: str, raw: Raw) -> tuple[str, ...]:
        names = codec.as_texts(raw)
        if names is None or len(names) > most or not all(0 < len(name) <= longest for name in names):
            raise invalid(param, f"must be an array of at most {most} strings of 1 to {longest} characters")
        if not all(name.isprintable() for name in names):
            raise invalid(param, _UNPRINTABLE)
        return tuple(dict.fromkeys(names))

    return read_names


def _one_of(*words: str) -> Callable[[str, Raw], str]:
    def read_word(param: str, raw: Raw) -> str:
        word = codec.as_text(raw)
        if word not in words:
            raise invalid(param, f"must be one of {', '.join(words)}")
        return word

    return read_word


def _cache(param: str, raw: Raw) -> CacheWish:
    """Asked for by being there, unless ``enabled`` is false."""
    given = codec.as_object(raw)
    if given is None:
        raise invalid(param, "must be an object")
    wish: dict[str, Any] = {}
    for key, value in given.items():
        if key not in _CACHE:
            raise invalid(f"{param}.{key}", "is not an option that this gateway knows")
        if value != NULL:
            wish[key] = _CACHE[key](f"{param}.{key}", value)
    return CacheWish(**wish)


def _cache_ttl(param: str, raw: Raw) -> float:
    number = codec.as_number(raw)
    least, most = _CACHE_TTL_S
    if number is None or not least <= number <= most:
        raise invalid(param, f"must be a number of seconds from {least} to {most}")
    return float(number)


def _flag(param: str, raw: Raw) -> bool:
    flag = codec.as_boolean(raw)
    if flag is None:
        raise invalid(param, "must be true or false")
    return flag


_CACHE: dict[str, Callable[[str, Raw], object]] = {
    "enabled": _flag,
    "ttl_s": _cache_ttl,
    "pace": _one_of("at_once", "recorded"),
}

# The option's key → the field of Options, and the function that reads it.
_WAYS: dict[str, tuple[str, Callable[[str, Raw], object]]] = {
    "max_cost_usd": ("max_cost", _max_cost),
    "fallback_models": ("fallback_models", _names(_MOST_FALLBACKS, _LONGEST_MODEL)),
    "preferred_providers": ("preferred_providers", _names(_MOST_PROVIDERS, _LONGEST_PROVIDER)),
    "excluded_providers": ("excluded_providers", _names(_MOST_PROVIDERS, _LONGEST_PROVIDER)),
    "retries": ("retries", _retries),
    "privacy": ("privacy", _one_of("any", "no_train", "trusted", "own")),
    "on_disconnect": ("on_disconnect", _one_of("cancel", "drain", "detach")),
    "resumable_s": ("resumable_s", _resumable),
    "on_midstream_failure": ("on_midstream_failure", _one_of("continue", "error")),
    "cache": ("cache", _cache),
    "tier": ("tier", _one_of("slow", "medium", "fast", "ludicrous")),
}


def _timeout(raw: Raw) -> int | None:
    if raw == NULL:
        return None
    number = codec.as_integer(raw)
    if number is None or not 1 <= number <= _LONGEST_TIMEOUT_MS:
        raise invalid("headgate.timeout_ms", f"must be an integer from 1 to {_LONGEST_TIMEOUT_MS}")
    return number


def _metadata(raw: Raw) -> dict[str, str] | None:
    """As OpenAI's own ``metadata``: at most 16 pairs, keys of 64, values of 512 characters."""
    if raw == NULL:
        return None
    pairs = codec.as_object(raw)
    if pairs is None or len(pairs) > _MOST_METADATA:
        raise invalid("headgate.metadata", f"must be an object of at most {_MOST_METADATA} strings")
    metadata: dict[str, str] = {}
    for key, value in pairs.items():
        text = codec.as_text(value)
        if text is None or len(key) > _LONGEST_KEY or len(text) > _LONGEST_VALUE:
            limits = f"keys of at most {_LONGEST_KEY} and values of at most {_LONGEST_VALUE} characters"
            raise invalid("headgate.metadata", f"must hold strings, with {limits}")
        if not key.isprintable() or "\0" in text:
            raise invalid("headgate.metadata", f"its keys {_UNPRINTABLE}, its values anything but NUL")
        metadata[key] = text
    return metadata
