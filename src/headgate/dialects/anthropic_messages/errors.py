"""Errors for clients of this API (docs.anthropic.com/en/api/errors), with Headgate's ``code`` and ``param``."""

from __future__ import annotations

from headgate.dialects.base import Reply
from headgate.dialects.openai_chat.errors.failures import error_object
from headgate.errors import GatewayError, Kind
from headgate.wire import codec, sse
from headgate.wire.redaction import scrub

# The API's types.  Other errors get the type of their status, by which clients decide about a retry.
_TYPES = frozenset((
    "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
    "request_too_large", "rate_limit_error", "api_error", "timeout_error",
))  # fmt: skip
_OF_A_REQUEST = (400, 404, 413, 422)  # statuses of refusals that concern the request itself
_BY_STATUS = {502: "api_error", 503: "overloaded_error", 504: "timeout_error"}


def error_body(error: GatewayError) -> bytes:
    """The body of an error answer."""
    return error.body or codec.encode(_answer(error, None))


def error_event(error: GatewayError, ident: str) -> bytes:
    """Return the event that ends a stream which has begun and cannot be completed."""
    return sse.encode(codec.encode(_answer(error, ident)), event=b"error")


def _answer(error: GatewayError, ident: str | None) -> dict[str, object]:
    inner = {**error_object(error), "type": type_of(error.kind)}
    return {"type": "error", "error": inner, "request_id": ident}


def type_of(kind: Kind) -> str:
    if kind.type in _TYPES:
        return kind.type
    return _BY_STATUS.get(kind.status, "invalid_request_error" if kind.status < 500 else "api_error")


def refusal(body: bytes, reply: Reply, error: GatewayError) -> bytes:
    """Return the provider's words about a request that it refuses.  Agents read them to mend their request.

    Empty for a failure that is not the request's: the client must not take it for one of its key or its limits.
    """
    status = error.kind.status
    if status != error.upstream_status or status not in _OF_A_REQUEST:
        return b""
    top = codec.as_object(body)
    if top is None or codec.as_text(top.get("type")) != "error" or codec.as_object(top.get("error")) is None:
        return b""
    text = body.decode(errors="replace")
    if scrub(text, reply.secrets) == text:
        return body
    return codec.encode(_scrubbed(codec.as_any(body), reply.secrets))


def _scrubbed(value: object, secrets: tuple[str, ...]) -> object:
    if isinstance(value, str):
        return scrub(value, secrets)
    if isinstance(value, dict):
        return {key: _scrubbed(inner, secrets) for key, inner in value.items()}
    return [_scrubbed(inner, secrets) for inner in value] if isinstance(value, list) else value
