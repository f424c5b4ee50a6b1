"""Errors for clients of this API, within a stream.  The body of an error answer is that of chat completions."""

from __future__ import annotations

from headgate.dialects.openai_chat.errors.failures import error_object
from headgate.errors import GatewayError
from headgate.wire import codec, sse


def error_event(error: GatewayError, ident: str, sequence: int = 0) -> bytes:
    """Return the event that ends a stream which has begun and cannot be completed.

    It has the documented members and those that OpenAI's servers send: the SDKs raise for a member ``error``, other
    clients read ``code`` and ``message`` beside it.
    """
    inner = error_object(error)
    members: dict[str, object] = {
        "type": "error",
        "sequence_number": sequence,
        "code": inner["code"],
        "message": inner["message"],
        "param": inner["param"],
        "error": {**inner, "request_id": ident},
    }
    return sse.encode(codec.encode(members), event=b"error")


def error_code(error: GatewayError) -> str:
    """Return the code of a response that has failed: one that clients of this API know, where there is one.

    Codex repeats a turn for any code but those of the context and of money.
    """
    return error.kind.code if error.kind.status < 500 else "server_error"
