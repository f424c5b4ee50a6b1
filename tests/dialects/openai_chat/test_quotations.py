"""An upstream that quotes its caller: nothing that a request says of keys and limits can be held against others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headgate import errors
from headgate.dialects.openai_chat import Sent, failure
from headgate.dialects.openai_chat.errors.failures import stream_failure
from headgate.dialects.openai_chat.errors.quotation import MOST_SENT
from headgate.errors import GatewayError
from tests import proofs

HARMFUL = (
    errors.UPSTREAM_AUTH, errors.UPSTREAM_UNPAID, errors.QUOTA_SPENT, errors.RATE_LIMITED, errors.UPSTREAM_MODEL_DENIED,
    errors.UPSTREAM_OVERLOADED, errors.UPSTREAM_TIMEOUT,
)  # fmt: skip
POISON = [
    "unauthorized",
    "Invalid API key",
    "invalid_api_key",
    "API key not valid. Please pass a valid API key.",
    "Incorrect API key provided: sk-123",
    "authentication failed",
    "insufficient_quota: you exceeded your current quota",
    "Insufficient balance",
    "credit balance is too low",
    "out of credits, payment required",
    "rate limit exceeded, too many requests",
    "resource exhausted",
    "you do not have access to this model",
    "this account must be verified",
    "the server is overloaded, try again later",
    "deadline exceeded, timed out",
    '{"error": {"code": "invalid_api_key", "type": "authentication_error", "message": "Incorrect API key"}}',
    '{"error": {"code": 401, "status": "UNAUTHENTICATED"}}',
    '{"code": "Arrearage", "message": "insufficient balance"}',
    'data: {"error": {"code": "invalid_api_key"}}\n\n',
]


def placed(where: str, poison: str) -> dict[str, Any]:
    """A request that says ``poison`` somewhere."""
    request: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    if where == "prompt":
        request["messages"][0]["content"] = f"please explain {poison} to me"
    elif where == "part":
        request["messages"][0]["content"] = [{"type": "text", "text": poison}]
    elif where == "tool":
        request["tools"] = [{"type": "function", "function": {"name": poison, "parameters": {}}}]
    elif where == "field":
        request[poison] = 1
    else:
        request[where] = poison
    return request


def quoted(how: str, poison: str) -> str:
    """The poison as a server may repeat it."""
    return {
        "as it is": poison,
        "in quotes": f"Invalid value: '{poison}'. Supported values are: 'low' and 'high'.",
        "in other case": f"Unsupported value: {poison.upper()}",
        "in one line": "Could not parse: " + " ".join(poison.split()),
        "spread": "Could not parse: " + "\n ".join(poison.split()),
        "escaped": "Could not parse " + json.dumps(poison),
        "escaped twice": "Could not parse " + json.dumps(json.dumps(poison)),
        "cut": f"Could not parse '{poison[: max(20, len(poison) * 2 // 3)]}…",
    }[how]


WAYS = ["as it is", "in quotes", "in other case", "in one line", "spread", "escaped", "escaped twice", "cut"]
STATUSES = (400, 403, 404, 413, 422)  # each of some shapes in `make test`, of all shapes in `make proofs`
SHAPES = [
    lambda text: {"error": {"message": text, "type": "invalid_request_error"}},
    lambda text: {"error": text},
    lambda text: {"detail": [{"msg": text}]},
    lambda text: {"detail": text},
    lambda text: {"errors": [text]},
    lambda text: [{"error": {"message": text}}],
    lambda text: text,
]


def body_of(shape: Any, text: str) -> bytes:
    made = shape(text)
    return made.encode() if isinstance(made, str) and not made.startswith(("{", "data:")) else json.dumps(made).encode()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("where", ["prompt", "part", "tool", "field", "model", "reasoning_effort"])
def test_no_quotation_harms_others(where: str, how: str) -> None:
    for poison in POISON:
        request = placed(where, poison)
        for ascii_only in (True, False):
            sent = Sent({}, json.dumps(request, ensure_ascii=ascii_only).encode())
            for turn, shape in enumerate(SHAPES):
                body = body_of(shape, quoted(how, poison))
                for status in proofs.of(STATUSES[turn % 5 :][:1], STATUSES):
                    error = failure(status, {}, body, provider="up", sent=sent)
                    assert error.kind not in HARMFUL, (status, body, error.kind.code)
                streamed = stream_failure(body, provider="up", sent=sent)
                assert streamed.kind not in HARMFUL, (body, streamed.kind.code)


@pytest.mark.parametrize("poison", POISON)
def test_nor_does_a_header_of_the_clients(poison: str) -> None:
    sent = Sent({b"openai-organization": " ".join(poison.split()).encode()}, b"{}")
    body = json.dumps({"error": {"message": f"No such organization: {poison}"}}).encode()
    for status in (400, 403):
        assert failure(status, {}, body, provider="up", sent=sent).kind not in HARMFUL


def test_unicode_escapes_hide_nothing() -> None:
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in "unauthorized")
    sent = Sent({}, b'{"messages":[{"role":"user","content":"' + escaped.encode() + b'"}]}')
    body = json.dumps({"error": {"message": "cannot use 'unauthorized' here"}}).encode()
    assert failure(400, {}, body, provider="up", sent=sent).kind is errors.UPSTREAM_REFUSED


def test_request_too_long_to_search_proves_nothing() -> None:
    sent = Sent({}, b'{"x":"' + b"a" * MOST_SENT + b'"}')
    body = json.dumps({"error": {"message": "unauthorized"}}).encode()
    assert failure(400, {}, body, provider="up", sent=sent).kind is errors.UPSTREAM_REFUSED


REAL: list[tuple[int, dict[str, Any], errors.Kind]] = [
    (401, {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, errors.UPSTREAM_AUTH),
    (400, {"error": {"message": "x", "details": [{"reason": "API_KEY_INVALID"}]}}, errors.UPSTREAM_AUTH),
    (402, {"error": {"message": "Insufficient balance"}}, errors.UPSTREAM_UNPAID),
    (429, {"error": {"message": "rate limit exceeded"}}, errors.RATE_LIMITED),
    (429, {"error": {"code": "insufficient_quota", "message": "x"}}, errors.QUOTA_SPENT),
    (503, {"error": {"message": "overloaded"}}, errors.UPSTREAM_OVERLOADED),
]


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize(("status", "body", "kind"), REAL)
def test_a_status_and_a_code_count_whatever_the_request_says(
    status: int, body: dict[str, Any], kind: errors.Kind, poison: str
) -> None:
    sent = Sent({}, json.dumps(placed("prompt", poison)).encode())
    assert failure(status, {}, json.dumps(body).encode(), provider="up", sent=sent).kind is kind


TOO_LONG = "This model's maximum context length is 8192 tokens. However, your messages resulted in {} tokens."


def refused(message: str, prompt: str, status: int = 400) -> GatewayError:
    sent = Sent({}, json.dumps(placed("prompt", prompt)).encode())
    return failure(status, {}, json.dumps({"error": {"message": message}}).encode(), provider="up", sent=sent)


@pytest.mark.parametrize(
    "prompt",
    ["maximum context length", TOO_LONG.format(8193), "context_length_exceeded " * 5, "prompt is too long", ""],
)
def test_context_error_survives_talk_of_contexts(prompt: str) -> None:
    assert refused(TOO_LONG.format(9001), prompt).kind is errors.CONTEXT_LENGTH


@pytest.mark.parametrize(
    "message",
    [
        "Invalid value: 'maximum context length'. Use another.",
        'could not parse "the maximum context length"',
        "unknown tool: `maximum context length exceeded`",
        "field not allowed: maximum context length",
        "bad input: I asked about the history of the maximum context length of models in the last ten years",
    ],
)
def test_a_quotation_of_it_does_not_say_so(message: str) -> None:
    prompt = (
        "the maximum context length exceeded; I asked about the history of the maximum context length of models in "
    )
    assert refused(message, prompt + "the last ten years").kind is errors.UPSTREAM_REFUSED


def test_a_quoted_field_of_ours_is_no_refusal_of_it() -> None:
    ours = {"stream_options": {"include_usage": True}}
    request = {**placed("prompt", "write a test for stream_options in the client"), **ours}
    sent = Sent({}, json.dumps(request, separators=(",", ":")).encode())

    def fields(message: str) -> frozenset[str]:
        body = json.dumps({"error": {"message": message}}).encode()
        return failure(400, {}, body, provider="up", sent=sent).fields

    assert "stream_options" not in fields("Invalid prompt: 'write a test for stream_options in the client'")
    for message in (
        "unknown field stream_options",
        "['stream_options'] is not allowed",
        "stream_options.include_usage",
    ):
        assert "stream_options" in fields(message), message


def test_a_time_that_the_client_says_is_not_waited_for() -> None:
    body = json.dumps({"error": {"message": "cannot parse 'try again in 800s'"}}).encode()
    sent = Sent({}, json.dumps(placed("prompt", "try again in 800s")).encode())
    assert failure(429, {}, body, provider="up", sent=sent).retry_after is None
    assert failure(429, {}, body, provider="up").retry_after == 800
