"""Errors for clients of this API (google.rpc.Status, google.rpc.ErrorInfo)."""

from __future__ import annotations

from headgate.dialects.openai_chat.errors.failures import error_object
from headgate.errors import GatewayError
from headgate.wire import codec, sse

# google.rpc.Code, by the HTTP status that the API maps it to; the SDKs decide about a retry by the HTTP status
_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "RESOURCE_EXHAUSTED", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 409: "ABORTED", 410: "NOT_FOUND", 413: "INVALID_ARGUMENT", 422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 502: "UNAVAILABLE",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_INFO = "type.googleapis.com/google.rpc.ErrorInfo"


def error_body(error: GatewayError) -> bytes:
    """The body of an error answer."""
    return codec.encode(_answer(error, {}))


def error_event(error: GatewayError, ident: str) -> bytes:
    """Return the event that ends a stream which has begun and cannot be completed."""
    return sse.encode(codec.encode(_answer(error, {"request_id": ident})))


def _answer(error: GatewayError, more: dict[str, str]) -> dict[str, object]:
    status = error.kind.status
    given = error_object(error)
    facts = {key: value for key, value in given.items() if value and key not in ("message", "code")} | more
    return {
        "error": {
            "code": status,
            "message": given["message"],
            "status": _STATUSES.get(status, "INTERNAL" if status >= 500 else "INVALID_ARGUMENT"),
            "details": [{"@type": _INFO, "reason": given["code"], "domain": "headgate", "metadata": facts}],
        }
    }
