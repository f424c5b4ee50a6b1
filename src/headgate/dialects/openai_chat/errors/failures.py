"""Errors in both directions: an upstream's error in any shape → GatewayError → the client's error object.

``complaint`` reads a foreign error, ``classes`` decides its meaning, ``limits`` the wait before a retry.  The client
always reads the same four keys.  Secrets are removed from each value that comes from the upstream.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate import errors
from headgate.dialects.base import Quotable, Reply
from headgate.dialects.openai_chat.errors import classes, complaint, detection, limits
from headgate.dialects.openai_chat.errors.classes import Evidence
from headgate.dialects.openai_chat.errors.complaint import Complaint
from headgate.dialects.openai_chat.errors.quotation import Quotations
from headgate.dialects.openai_chat.normalise import one_line
from headgate.errors import GatewayError, Kind
from headgate.wire import codec, sse
from headgate.wire.redaction import scrub

_WITH_A_TIME = (402, 403, 408, 413, 425, 429, 500, 502, 503, 529)  # statuses whose Retry-After (or similar) counts
_LIMITS = (errors.RATE_LIMITED, errors.QUOTA_SPENT)
_LONGEST_PARAM = 100
# Answers to a field that a server does not know: some fail with an internal error.
_OF_A_FIELD = (
    errors.UPSTREAM_REFUSED, errors.UPSTREAM_UNPROCESSABLE, errors.UPSTREAM_FAILED, errors.UPSTREAM_ERROR_EVENT,
)  # fmt: skip
# Fields that the gateway adds to a request: to get its usage, and to continue a text.
OUR_FIELDS = ("stream_options", "include_usage", "continue_final_message", "add_generation_prompt", "prefix", "prefill")
_SPELLINGS = {**{name: name for name in OUR_FIELDS}, "streamOptions": "stream_options", "includeUsage": "include_usage"}
# Finish words of failures with a more specific meaning.
_FINISHES = {
    "timeout": errors.UPSTREAM_TIMEOUT,
    "insufficient_system_resource": errors.UPSTREAM_OVERLOADED,
    "overloaded": errors.UPSTREAM_OVERLOADED,
}


def failure(
    status: int,
    headers: Mapping[bytes, bytes],
    body: bytes,
    *,
    provider: str,
    secrets: tuple[str, ...] = (),
    now: float = 0.0,
    sent: Quotable | None = None,
) -> GatewayError:
    """Return the error of an upstream's non-200 answer.

    ``headers`` have lower-case names.  ``now`` is Unix seconds, for an answer without a ``Date``.  ``sent`` is the
    request, which the answer may quote.
    """
    said = complaint.read(body)
    quotations = Quotations(sent)
    evidence = Evidence(said, quotations)
    kind = classes.of_status(status, evidence)
    said = _with_our_fields(said, kind, evidence)
    retry_after = None
    if status in _WITH_A_TIME or kind in _LIMITS:
        retry_after = limits.retry_after({**said.headers, **headers}, now)
        if retry_after is None:
            retry_after = _in_its_words(said, quotations)
    return _error(kind, said, provider, secrets, f"answered with status {status}", status, retry_after)


def of_answer(status: int, headers: Mapping[bytes, bytes], body: bytes, reply: Reply, now: float) -> GatewayError:
    """``base.Backend.failure`` of every API: errors are read by what they contain."""
    return failure(status, headers, body, provider=reply.provider, secrets=reply.secrets, now=now, sent=reply.sent)


def stream_failure(
    data: bytes, *, provider: str, secrets: tuple[str, ...] = (), sent: Quotable | None = None, finish: str = ""
) -> GatewayError:
    """Return the error within a stream or an answer of status 200: at its top, in a choice, or under ``x_groq``.

    ``data`` is JSON or text.  ``finish`` is the finish word of an answer that has failed, or empty.
    """
    said = complaint.read(data)
    quotations = Quotations(sent)
    evidence = Evidence(said, quotations)
    kind = classes.of_stream(evidence)
    said = _with_our_fields(said, kind, evidence)
    if kind is errors.UPSTREAM_ERROR_EVENT and finish:
        kind = next((meant for word, meant in _FINISHES.items() if word in finish.lower()), kind)
    otherwise = f"broke off its answer ({one_line(finish, 40)})" if finish else "reported an error in its answer"
    return _error(kind, said, provider, secrets, otherwise, said.status or None, _in_its_words(said, quotations))


def is_error(top: codec.Object) -> bool:
    """True if an object under status 200 is an error, in one of the forms without ``event: error``."""
    return detection.is_error(top)


def garbage(body: bytes, *, provider: str, secrets: tuple[str, ...] = (), sent: Quotable | None = None) -> GatewayError:
    """Return the error of an answer with status 200 that no client could read.  The client gets no part of it, unless
    it is a list of errors.
    """
    start = body[:256].lstrip()
    if start[:1] == b"[" and complaint.read(body).message:
        return stream_failure(body, provider=provider, secrets=secrets, sent=sent)
    if not start:
        what = "an empty body"
    elif start[:1] == b"<":
        what = "a web page"
    else:
        what = "something that is no chat completion"
    return GatewayError(errors.UPSTREAM_GARBAGE, f"{provider} answered with {what}.", upstream_status=200)


def error_object(error: GatewayError) -> dict[str, str | None]:
    """Return the four keys of every error.  For a stream that could not be continued, the reason is added."""
    four = {"message": error.message, "type": error.kind.type, "param": error.param, "code": error.kind.code}
    return {**four, "not_continued": error.not_continued} if error.not_continued else four


def error_body(error: GatewayError) -> bytes:
    """The body of an error answer."""
    return codec.encode({"error": error_object(error)})


def error_event(error: GatewayError, ident: str) -> bytes:
    """Return the event that ends a stream which has begun and cannot be completed.  No ``[DONE]`` follows it.

    ``error`` is the only member, and first in the data: go-openai looks for exactly these bytes.
    @ai-sdk/openai and Open WebUI see no error in a chunk that has choices.
    """
    return sse.encode(codec.encode({"error": {**error_object(error), "request_id": ident}}))


def _error(
    kind: Kind,
    said: Complaint,
    provider: str,
    secrets: tuple[str, ...],
    otherwise: str,
    status: int | None,
    retry_after: float | None,
) -> GatewayError:
    param = one_line(scrub(said.param, secrets), _LONGEST_PARAM) if said.param else None
    return GatewayError(
        kind,
        _sentence(kind, said, provider, secrets, otherwise),
        param=param or None,
        retry_after=retry_after,
        upstream_status=status,
        fields=said.fields,
    )


def _with_our_fields(said: Complaint, kind: Kind, evidence: Evidence) -> Complaint:
    """Add those of the gateway's own fields that the error's words name."""
    if kind not in _OF_A_FIELD:
        return said
    named = {field for spelled, field in _SPELLINGS.items() if evidence.names(spelled)}
    return said._replace(fields=said.fields | named)


def _in_its_words(said: Complaint, quotations: Quotations) -> float | None:
    """Return the seconds until a retry from the body's words, unless they quote the caller."""
    if said.retry_s is not None:
        return said.retry_s
    found = limits.in_words(said.message)
    if found is None or quotations.hold(said.message[found[1] : found[2]]):
        return None
    return found[0]


def _sentence(kind: Kind, said: Complaint, provider: str, secrets: tuple[str, ...], otherwise: str) -> str:
    """Return the client's message.  Only for a mistake of the client, the upstream's words are passed on."""
    if kind is errors.UPSTREAM_AUTH:
        # The upstream's own words would tell the client that *its* key is wrong.
        return f"{provider} refused the credentials that this gateway has for it."
    message = one_line(scrub(said.message, secrets))
    if not message:
        return f"{provider} {otherwise}."
    return message if kind.side is errors.Side.CLIENT else f"{provider}: {message}"
