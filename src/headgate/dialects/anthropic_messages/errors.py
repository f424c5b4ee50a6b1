"""Errors for clients of this API (docs.anthropic.com/en/api/errors), with Headgate's ``code`` and ``param``."""

from __future__ import annotations

from headgate.dialects.openai_chat.errors.failures import error_object
from headgate.errors import GatewayError, Kind
from headgate.wire import codec, sse

# The API's types.  Other errors get the type of their status, by which clients decide about a retry.
_TYPES = frozenset((
    "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
    "request_too_large", "rate_limit_error", "api_error", "timeout_error",
))  # fmt: skip
_BY_STATUS = {502: "api_error", 503: "overloaded_error", 504: "timeout_error"}


def error_body(error: GatewayError) -> bytes:
    """The body of an error answer."""
    return codec.encode(_answer(error, None))


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
