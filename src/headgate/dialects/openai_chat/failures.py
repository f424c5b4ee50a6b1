"""What went wrong, in both directions: an upstream's error in any shape → GatewayError → the client's error object.

Error bodies of real servers are alike in nothing: ``error`` is an object, a string, or missing; the text is under
``message``, ``detail``, ``msg``; codes are strings, integers, or digits in a string; one provider wraps another's
answer as a string.  What the client reads is always the same four keys, with secrets taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Raw

from headgate import errors
from headgate.dialects.openai_chat import limits
from headgate.dialects.openai_chat.shapes import one_line
from headgate.errors import GatewayError, Kind
from headgate.wire import codec, sse
from headgate.wire.codec import Object

_CONTEXT = re.compile(
    r"context.?(length|window|size)|maximum context|max context|prompt (is )?too long|input (is )?too long"
    r"|too many (input )?tokens|reduce the length|exceeds? the (maximum|max) number of tokens|input token count",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content.?(filter|policy|management)|data_?inspection|responsibleai|moderation|safety (system|policy)",
    re.IGNORECASE,
)
_NAMED_MODEL = (
    r"model_not_found|model_decommissioned|deploymentnotfound|(no such|unknown|invalid)[ _]model(?! param)"
    r"|not a valid model|model (id|identifier|name) is invalid|^model: |models/\S+ is not found"
)
_NO_MODEL = re.compile(  # where the status says already that something is missing
    r"\b(model|deployment)s?\b[^.]{0,160}?\b(not (be )?found|no(t| longer)? (exist|support|available)|does not exist"
    r"|invalid|deprecated|removed|unknown|decommissioned)|" + _NAMED_MODEL,
    re.IGNORECASE,
)
_NO_MODEL_400 = re.compile(  # where it may be anything: the verb stands by the name, and no "does not support" it is
    r"\b(model|deployment)\b(\s+\S+){0,5}?\s+(not (be )?found|not exist|(not|no longer) (available|supported)\b"
    r"|been (deprecated|removed|decommissioned))|" + _NAMED_MODEL,
    re.IGNORECASE,
)
_BAD_KEY = re.compile(r"api.?key (is )?(not valid|invalid|expired)|invalid.?(api.?)?key|unauthorized", re.IGNORECASE)
_LIMITED = re.compile(r"rate.?limit|too many requests|quota|throttl|resource_?exhausted", re.IGNORECASE)
_BUSY = re.compile(r"overloaded|unavailable|at capacity|over capacity|try again later|busy", re.IGNORECASE)
_LATE = re.compile(r"timed? ?out|timeout|deadline", re.IGNORECASE)


_WITH_A_TIME = (402, 408, 425, 429, 500, 502, 503, 529)  # statuses whose Retry-After, or the like, means something


class Complaint(NamedTuple):
    """What an upstream's error says: ``status`` only where the body itself names one."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int = 0


def failure(
    status: int,
    headers: Mapping[bytes, bytes],
    body: bytes,
    *,
    provider: str,
    secrets: tuple[str, ...] = (),
    now: float = 0.0,
) -> GatewayError:
    """The error that an upstream's non-200 answer is.

    ``headers`` have lower-case names; ``now`` is Unix seconds, for a Retry-After that is a date.
    """
    complaint = _complaint(body)
    kind = _by_status(status, complaint)
    return GatewayError(
        kind,
        _sentence(kind, complaint, provider, secrets, f"answered with status {status}"),
        param=one_line(complaint.param, 100) if complaint.param else None,
        retry_after=limits.retry_after(headers, body, now) if status in _WITH_A_TIME else None,
        upstream_status=status,
    )


def _is_status(code: str) -> bool:
    return len(code) == 3 and code.isascii() and code.isdigit()  # "²" is a digit too, and no number


def stream_failure(data: bytes, *, provider: str, secrets: tuple[str, ...] = ()) -> GatewayError:
    """The error that stands inside a stream or an answer with status 200.  ``data`` is the JSON or text of it."""
    complaint = _complaint(data)
    status = complaint.status or (int(complaint.code) if _is_status(complaint.code) else 0)
    kind = _by_status(status, complaint) if 400 <= status < 600 else _by_words(complaint, errors.UPSTREAM_ERROR_EVENT)
    if kind in (errors.UPSTREAM_FAILED, errors.UPSTREAM_GARBAGE):
        kind = errors.UPSTREAM_ERROR_EVENT
    return GatewayError(
        kind,
        _sentence(kind, complaint, provider, secrets, "reported an error in its answer"),
        param=one_line(complaint.param, 100) if complaint.param else None,
        upstream_status=status or None,
        retry_after=limits.retry_after({}, data, 0.0),  # its own words: there are no headers of it
    )


def garbage(body: bytes, *, provider: str) -> GatewayError:
    """The error that an answer with status 200 is which no client could read.  Nothing of it goes to the client."""
    start = body[:256].lstrip()
    if not start:
        what = "an empty body"
    elif start[:1] == b"<":
        what = "a web page"
    else:
        what = "something that is no chat completion"
    return GatewayError(errors.UPSTREAM_GARBAGE, f"{provider} answered with {what}.", upstream_status=200)


def error_object(error: GatewayError) -> dict[str, str | None]:
    """The four keys that every error of ours has."""
    return {"message": error.message, "type": error.kind.type, "param": error.param, "code": error.kind.code}


def error_body(error: GatewayError) -> bytes:
    """The body of an error answer."""
    return codec.encode({"error": error_object(error)})


def error_event(error: GatewayError, ident: str) -> bytes:
    """The event that ends a stream which has begun and cannot be completed.  No ``[DONE]`` follows it.

    ``error`` is the only member, and first in the data: go-openai looks for exactly these bytes, and
    @ai-sdk/openai and Open WebUI see no error in a chunk that has choices.
    """
    return sse.encode(codec.encode({"error": {**error_object(error), "request_id": ident}}))


# ------------------------------------------------------------------------------------- secrets

_KEY_LIKE = re.compile(
    r"\b(?:sk|pk|rk|hg|ngk|gsk|xai|pplx|hf|r8|nvapi|fw|tgp|csk|key)[-_][A-Za-z0-9_\-*.]{4,}"
    r"|\bAIza[A-Za-z0-9_\-]{10,}|\bAKIA[A-Z0-9]{8,}|\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-.]+"
    r"|(?<=bearer )[^\s\"',;]+"
    r"|(?<=basic )[A-Za-z0-9+/=]{8,}"
    r"|(?:(?<=key=)|(?<=token=)|(?<=secret=)|(?<=key: )|(?<=key:)|(?<=token: )|(?<=secret: )|(?<=provided: ))"
    r"[^\s\"'&,;)]+"
    r"|(?<=key )[\"'`(<]?(?=[A-Za-z0-9+/_*\-]*[0-9*])[A-Za-z0-9+/_*\-]{12,}=*",
    re.IGNORECASE,
)


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """``text`` without ``secrets`` and without whatever looks like a key."""
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "[redacted]")
    return _KEY_LIKE.sub("[redacted]", text)


def _sentence(kind: Kind, complaint: Complaint, provider: str, secrets: tuple[str, ...], otherwise: str) -> str:
    """What the client reads.  Only a mistake of the client's own is passed on as the upstream put it."""
    if kind is errors.UPSTREAM_AUTH:
        # The upstream's own words would tell the client that *its* key is wrong.
        return f"{provider} refused the credentials that this gateway has for it."
    said = one_line(scrub(complaint.message, secrets))
    if not said:
        return f"{provider} {otherwise}."
    return said if kind.side is errors.Side.CLIENT else f"{provider}: {said}"


# ------------------------------------------------------------------------------------- reading


def _complaint(body: bytes) -> Complaint:
    try:
        top = codec.decode_object(codec.repair(body))
    except GatewayError:
        start = body[:2000].lstrip()
        if start[:1] in (b"<", b"{", b"["):
            return Complaint()
        text = codec.as_text(start)  # a bare JSON string
        return Complaint(text if text is not None else start.decode(errors="replace"))
    inner = codec.as_object(top.get("error"))
    if inner is None:
        outer = _read(top)
        said = codec.as_text(top.get("error"))
        return outer._replace(message=said) if said else outer
    wrapped = codec.as_object(inner.get("metadata"))
    if wrapped is not None:
        return _unwrap(_read(inner), codec.as_text(wrapped.get("raw")))
    return _read(inner)


def _read(members: Object) -> Complaint:
    message = ""
    for key in ("message", "detail", "msg", "error_message", "title"):
        raw = members.get(key)
        if raw is not None:
            message = codec.as_text(raw) or _validation_text(raw)
        if message:
            break
    status = 0
    for key in ("status_code", "status", "code"):
        number = codec.as_integer(members.get(key))
        if number is not None and 100 <= number < 600:
            status = number
            break
    words = [codec.as_text(members.get(key)) or "" for key in ("type", "code", "status")]
    return Complaint(message, words[0], words[1] or words[2], codec.as_text(members.get("param")), status)


def _validation_text(raw: Raw) -> str:
    """FastAPI's ``detail: [{"loc": […], "msg": "…"}]``, and objects that hold the message one level down."""
    items = codec.as_objects(raw)
    if items is None:
        inner = codec.as_object(raw)
        return codec.as_text(inner.get("message")) or "" if inner else ""
    return "; ".join(codec.as_text(item.get("msg")) or "" for item in items[:5])


def _unwrap(outer: Complaint, raw: str | None) -> Complaint:
    """OpenRouter says "Provider returned error" and puts the provider's own body into ``metadata.raw``."""
    if not raw:
        return outer
    inner = _complaint(raw.encode())
    return outer._replace(message=inner.message or outer.message, code=inner.code or outer.code, param=inner.param)


# ------------------------------------------------------------------------------------- classes

_STATUSES = {
    401: errors.UPSTREAM_AUTH,
    402: errors.UPSTREAM_AUTH,
    403: errors.UPSTREAM_AUTH,
    408: errors.UPSTREAM_TIMEOUT,
    413: errors.PAYLOAD_TOO_LARGE,
    422: errors.UPSTREAM_UNPROCESSABLE,
    425: errors.UPSTREAM_OVERLOADED,
    429: errors.RATE_LIMITED,
    500: errors.UPSTREAM_FAILED,
    502: errors.UPSTREAM_FAILED,
    503: errors.UPSTREAM_OVERLOADED,
    504: errors.UPSTREAM_TIMEOUT,
    522: errors.UPSTREAM_TIMEOUT,
    524: errors.UPSTREAM_TIMEOUT,
    529: errors.UPSTREAM_OVERLOADED,
}


def _by_status(status: int, complaint: Complaint) -> Kind:
    words = f"{complaint.code} {complaint.type} {complaint.message}"
    if status in (400, 403, 413, 422, 451) and _FILTERED.search(words):
        return errors.CONTENT_FILTER
    if status in (400, 413, 422) and _CONTEXT.search(words):
        return errors.CONTEXT_LENGTH
    known = _STATUSES.get(status)
    if known is not None:
        return known
    no_model = _NO_MODEL_400 if status == 400 else _NO_MODEL
    if status in (400, 404, 410) and (no_model.search(words) or no_model.search(complaint.message)):
        return errors.UPSTREAM_MODEL_NOT_FOUND
    if status == 400 and _BAD_KEY.search(words):
        return errors.UPSTREAM_AUTH  # Google answers 400 to a wrong key
    if status in (404, 405, 407, 410) or status < 400:
        return errors.UPSTREAM_GARBAGE
    return errors.UPSTREAM_REFUSED if status < 500 else errors.UPSTREAM_FAILED


def _by_words(complaint: Complaint, otherwise: Kind) -> Kind:
    """The class of an error that came without a status."""
    words = f"{complaint.code} {complaint.type} {complaint.message}"
    for pattern, kind in (
        (_FILTERED, errors.CONTENT_FILTER),
        (_CONTEXT, errors.CONTEXT_LENGTH),
        (_LIMITED, errors.RATE_LIMITED),
        (_BAD_KEY, errors.UPSTREAM_AUTH),
        (_BUSY, errors.UPSTREAM_OVERLOADED),
        (_LATE, errors.UPSTREAM_TIMEOUT),
    ):
        if pattern.search(words):
            return kind
    return otherwise
