"""A chat completion request: read from the client, written for an upstream.

Only what the gateway itself acts on is looked at; every other member passes with its own bytes.  Our own options stand
in one object, ``headgate``, which never goes upstream; there an unknown key is an error, and so is one that this
version does not yet act on: an option that is silently ignored is worse than a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw

from headgate.dialects.openai_chat.quirks import apply as apply_quirks
from headgate.errors import INVALID_VALUE, NOT_YET_SUPPORTED, GatewayError
from headgate.model import Call, ModelRow
from headgate.wire import codec
from headgate.wire.codec import NULL, TRUE, Object

_LATER = frozenset(
    (
        "max_cost_usd", "cache", "fallback_models", "preferred_providers", "excluded_providers", "retries", "tier",
        "privacy", "max_latency_ms", "allow_hosters", "deny_hosters", "on_disconnect", "resumable_s",
        "on_midstream_failure",
    )
)  # fmt: skip
_MOST_METADATA = 16
_LONGEST_MODEL = 256
_LONGEST_KEY = 64
_LONGEST_VALUE = 512
_LONGEST_TIMEOUT_MS = 24 * 3600 * 1000
_FALSE = Raw(b"false")


def read(body: bytes) -> Call:
    """What the client asks for.  Raises GatewayError (400) with ``param`` where it cannot be meant."""
    members = codec.decode_object(body)
    messages = members.get("messages")
    if messages is None or not _is_filled_array(messages):
        raise _invalid("messages", "must be an array with at least one message")
    model = _text(members, "model")
    if model is not None and not 0 < len(model) <= _LONGEST_MODEL:
        raise _invalid("model", f"must have 1 to {_LONGEST_MODEL} characters")
    streamed = members.get("stream")
    stream = streamed is not None and streamed == TRUE
    if not stream and streamed is not None and streamed != NULL and streamed != _FALSE:
        raise _invalid("stream", "must be true or false")
    include_usage = _include_usage(members, stream) if "stream_options" in members else False
    call = Call(members, model, stream, include_usage, len(messages))
    if "max_tokens" in members:
        call.max_tokens = _count(members, "max_tokens", 0)
    if "max_completion_tokens" in members:
        call.max_tokens = _count(members, "max_completion_tokens", 0) or call.max_tokens
    if "n" in members:
        _count(members, "n", 1)
    if "include_route_trace" in members:
        _refuse_trace(members.pop("include_route_trace"))
    if "headgate" in members:
        _read_options(members.pop("headgate"), call)
    return call


def render(
    call: Call, upstream_model: str, *, ask_usage: bool, row: ModelRow | None = None, quirks: tuple[str, ...] = ()
) -> bytes:
    """The upstream's request body, with its own id for the model.

    ``ask_usage`` has a stream report its usage whether the client asked or not; without it (upstreams that reject the
    field) ``stream_options`` is left out.  ``row`` sets, drops and renames parameters; ``quirks`` are the provider's.
    """
    members = call.body.copy()
    members["model"] = codec.raw(upstream_model)
    if call.stream:
        if ask_usage:
            given = codec.as_object(members.get("stream_options")) or {}
            given["include_usage"] = TRUE
            members["stream_options"] = codec.raw(given)
        else:
            members.pop("stream_options", None)
    if row is not None and (row.param_defaults or row.param_drop or row.param_map):
        members = _with_parameters(members, row)
    if quirks:
        apply_quirks(members, quirks)
    return codec.encode(members)


def _with_parameters(members: Object, row: ModelRow) -> Object:
    for key, value in row.param_defaults.items():
        members.setdefault(key, value)
    for key in row.param_drop:
        members.pop(key, None)
    renames: Mapping[str, str] = row.param_map
    return {renames.get(key, key): value for key, value in members.items()} if renames else members


# ------------------------------------------------------------------------------------- members


def _invalid(param: str, what: str) -> GatewayError:
    return GatewayError(INVALID_VALUE, f"'{param}' {what}.", param=param)


def _is_filled_array(raw: Raw) -> bool:
    view = memoryview(raw)
    if view[0] != 0x5B:
        return False
    return bytes(view[1:2]) != b"]" and (view[1] > 0x20 or bytes(view[1:]).lstrip()[:1] != b"]")


def _text(members: Object, key: str) -> str | None:
    raw = members.get(key)
    if raw is None or raw == NULL:
        return None
    text = codec.as_text(raw)
    if text is None:
        raise _invalid(key, "must be a string")
    return text


def _count(members: Object, key: str, least: int) -> int | None:
    raw = members[key]
    if raw == NULL:
        return None
    number = codec.as_integer(raw)
    if number is None or number < least:
        raise _invalid(key, f"must be an integer of at least {least}")
    return number


def _include_usage(members: Object, stream: bool) -> bool:
    raw = members["stream_options"]
    if raw == NULL:
        return False
    options = codec.as_object(raw)
    if options is None:
        raise _invalid("stream_options", "must be an object")
    if not stream:
        raise _invalid("stream_options", "is only allowed when 'stream' is true")
    asked = options.get("include_usage")
    if asked is None or asked == NULL:
        return False
    flag = codec.as_boolean(asked)
    if flag is None:
        raise _invalid("stream_options.include_usage", "must be true or false")
    return flag


def _refuse_trace(raw: Raw) -> None:
    if raw == TRUE:
        raise GatewayError(
            NOT_YET_SUPPORTED, "'include_route_trace' is not supported by this version.", param="include_route_trace"
        )
    if raw != NULL and raw != _FALSE:
        raise _invalid("include_route_trace", "must be true or false")


# ------------------------------------------------------------------------------------- our own options


def _read_options(raw: Raw, call: Call) -> None:
    if raw == NULL:
        return
    options = codec.as_object(raw)
    if options is None:
        raise _invalid("headgate", "must be an object")
    for key, value in options.items():
        param = f"headgate.{key}"
        if key == "timeout_ms":
            call.timeout_ms = _timeout(value)
        elif key == "metadata":
            call.metadata = _metadata(value)
        elif key in _LATER:
            raise GatewayError(NOT_YET_SUPPORTED, f"'{param}' is not supported by this version.", param=param)
        else:
            raise _invalid(param, "is not an option that this gateway knows")


def _timeout(raw: Raw) -> int | None:
    if raw == NULL:
        return None
    number = codec.as_integer(raw)
    if number is None or not 1 <= number <= _LONGEST_TIMEOUT_MS:
        raise _invalid("headgate.timeout_ms", f"must be an integer from 1 to {_LONGEST_TIMEOUT_MS}")
    return number


def _metadata(raw: Raw) -> dict[str, str] | None:
    """As OpenAI's own ``metadata``: at most 16 pairs, keys of 64, values of 512 characters."""
    if raw == NULL:
        return None
    pairs = codec.as_object(raw)
    if pairs is None or len(pairs) > _MOST_METADATA:
        raise _invalid("headgate.metadata", f"must be an object of at most {_MOST_METADATA} strings")
    metadata: dict[str, str] = {}
    for key, value in pairs.items():
        text = codec.as_text(value)
        if text is None or len(key) > _LONGEST_KEY or len(text) > _LONGEST_VALUE:
            limits = f"keys of at most {_LONGEST_KEY} and values of at most {_LONGEST_VALUE} characters"
            raise _invalid("headgate.metadata", f"must hold strings, with {limits}")
        metadata[key] = text
    return metadata
