"""Every way in which a call can fail, and what may be done about it.

::

    GatewayError(kind, message)
    ├── side     who caused it:       CLIENT | GATEWAY | UPSTREAM
    ├── retry    what may be tried:   NEVER | SAME | ACCOUNT | TARGET
    └── kind     status, type, code   as the client reads them (one row of the table below)

    ClientGone   nobody is left to tell; not a GatewayError, so no ``except`` for those answers it

A foreign error (an OSError, a parser's complaint, an upstream's status) becomes a GatewayError once, where it is
first seen, and is rendered once, by the client's dialect.  This file renders nothing and knows no wire.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Side(Enum):
    """Who caused the failure: decides whose health it counts against."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Retry(Enum):
    """What the next attempt may be, if there is one."""

    NEVER = "never"
    SAME = "same target once"
    ACCOUNT = "next account"
    TARGET = "next target"


class Kind(NamedTuple):
    """One row of the error table: what the client reads, and who is to blame."""

    status: int
    type: str
    code: str
    side: Side = Side.CLIENT
    retry: Retry = Retry.NEVER


# fmt: off
_BAD, _AUTH, _PERM = "invalid_request_error", "authentication_error", "permission_error"
_UP, _AWAY, _LATE = "upstream_error", "service_unavailable_error", "timeout_error"

# 400: the request cannot be understood or cannot be meant
BAD_FRAMING            = Kind(400, _BAD, "bad_request")
INVALID_JSON           = Kind(400, _BAD, "invalid_json")
INVALID_VALUE          = Kind(400, _BAD, "invalid_value")
NOT_YET_SUPPORTED      = Kind(400, _BAD, "unsupported_option")
CONTEXT_LENGTH         = Kind(400, _BAD, "context_length_exceeded")
CONTENT_FILTER         = Kind(400, _BAD, "content_filter")
HOOK_REFUSED           = Kind(400, _BAD, "hook_refused")
UPSTREAM_REFUSED       = Kind(400, _BAD, "upstream_rejected_request")
# 401, 403: who is asking, and may they
MISSING_KEY            = Kind(401, _AUTH, "missing_api_key")
TOKEN_FORMAT           = Kind(401, _AUTH, "invalid_token_format")
INVALID_KEY            = Kind(401, _AUTH, "invalid_api_key")
EXPIRED_KEY            = Kind(401, _AUTH, "expired_api_key")
MODEL_NOT_ALLOWED      = Kind(403, _PERM, "model_not_allowed")
SCOPE_MISSING          = Kind(403, _PERM, "scope_missing")
TIER_NOT_ALLOWED       = Kind(403, _PERM, "tier_not_allowed")
# 402, 429: the caller's own limits and budgets
BUDGET_EXCEEDED        = Kind(402, "billing_error", "budget_exceeded")
TOO_MANY_REQUESTS      = Kind(429, "rate_limit_error", "rate_limit_exceeded")
TOO_MANY_TODAY         = Kind(429, "rate_limit_error", "daily_rate_limit_exceeded")
TOO_MANY_TOKENS        = Kind(429, "rate_limit_error", "tokens_limit_exceeded")
TOO_MANY_AT_ONCE       = Kind(429, "rate_limit_error", "concurrency_limit_exceeded")
QUEUE_FULL             = Kind(429, "rate_limit_error", "queue_full")
# 404 … 431: the thing is not there, not like that, not that large, nothing may serve it
ROUTE_NOT_FOUND        = Kind(404, "not_found_error", "route_not_found")
MODEL_NOT_FOUND        = Kind(404, "not_found_error", "model_not_found")
PROMPT_NOT_FOUND       = Kind(404, "not_found_error", "prompt_not_found")
REQUEST_NOT_FOUND      = Kind(404, "not_found_error", "request_not_found")
STREAM_NOT_FOUND       = Kind(404, "not_found_error", "stream_not_found")
METHOD_NOT_ALLOWED     = Kind(405, _BAD, "method_not_allowed")
NO_WEBSOCKET           = Kind(426, _BAD, "websocket_not_supported")
REQUEST_TIMEOUT        = Kind(408, _LATE, "request_timeout")
IDEMPOTENCY_MISMATCH   = Kind(409, "conflict_error", "idempotency_mismatch")
STREAM_EXPIRED         = Kind(410, "gone_error", "stream_expired")
STREAM_STOPPED         = Kind(410, "gone_error", "stream_stopped")
PAYLOAD_TOO_LARGE      = Kind(413, "request_too_large", "payload_too_large")
UNSUPPORTED_ENCODING   = Kind(415, _BAD, "unsupported_content_encoding")
NO_QUALIFYING_MODEL    = Kind(422, _BAD, "no_qualifying_model")
HEAD_TOO_LARGE         = Kind(431, "request_too_large", "headers_too_large")
RATE_LIMITED           = Kind(429, "rate_limit_error", "rate_limit_exceeded", Side.UPSTREAM, Retry.ACCOUNT)
# 5xx of our own making
INTERNAL               = Kind(500, "api_error", "internal_error", Side.GATEWAY)
HOOK_FAILED            = Kind(500, "api_error", "hook_failed", Side.GATEWAY)
NO_PROVIDER_KEY        = Kind(503, _AWAY, "no_provider_key", Side.GATEWAY, Retry.TARGET)
DRAINING               = Kind(503, _AWAY, "draining", Side.GATEWAY)
OVERLOADED             = Kind(503, _AWAY, "overloaded", Side.GATEWAY)
JOURNAL_FULL           = Kind(503, _AWAY, "journal_full", Side.GATEWAY)
CONTROL_AWAY           = Kind(503, _AWAY, "control_unavailable", Side.GATEWAY)
POOL_FULL              = Kind(503, _AWAY, "upstream_pool_full", Side.GATEWAY, Retry.TARGET)
HTTP_VERSION           = Kind(505, _BAD, "http_version_not_supported")
# 5xx of an upstream's making
UPSTREAM_UNREACHABLE   = Kind(502, _UP, "upstream_unreachable", Side.UPSTREAM, Retry.SAME)
UPSTREAM_RESET         = Kind(502, _UP, "upstream_reset", Side.UPSTREAM, Retry.SAME)
UPSTREAM_FAILED        = Kind(502, _UP, "upstream_failed", Side.UPSTREAM, Retry.SAME)
UPSTREAM_GARBAGE       = Kind(502, _UP, "upstream_invalid_response", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_AUTH          = Kind(502, _UP, "upstream_auth_failed", Side.UPSTREAM, Retry.ACCOUNT)
UPSTREAM_DENIED        = Kind(502, _UP, "upstream_access_denied", Side.UPSTREAM, Retry.ACCOUNT)
UPSTREAM_MODEL_DENIED  = Kind(502, _UP, "upstream_model_denied", Side.UPSTREAM, Retry.ACCOUNT)
UPSTREAM_UNPAID        = Kind(502, _UP, "upstream_credit_exhausted", Side.UPSTREAM, Retry.ACCOUNT)
UPSTREAM_CUT           = Kind(502, _UP, "upstream_cut", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_DIVERGED      = Kind(502, _UP, "upstream_diverged", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_HOLLOW        = Kind(502, _UP, "upstream_hollow_answer", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_TOO_LARGE     = Kind(502, _UP, "upstream_answer_too_large", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_ERROR_EVENT   = Kind(502, _UP, "upstream_error", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_OVERLOADED    = Kind(503, _AWAY, "upstream_overloaded", Side.UPSTREAM, Retry.TARGET)
ALL_ATTEMPTS_FAILED    = Kind(502, _UP, "all_attempts_failed", Side.UPSTREAM)
UPSTREAM_TIMEOUT       = Kind(504, _LATE, "upstream_timeout", Side.UPSTREAM, Retry.TARGET)
# 4xx that an upstream said: of a model that another one may have, and of the request itself
UPSTREAM_MODEL_NOT_FOUND = Kind(404, "not_found_error", "model_not_found", Side.UPSTREAM, Retry.TARGET)
UPSTREAM_UNPROCESSABLE = Kind(422, _BAD, "upstream_rejected_request")
# …and of the account: its quota is spent; this one request is more than it may have at a time, or can pay for
QUOTA_SPENT            = Kind(429, "rate_limit_error", "upstream_quota_exhausted", Side.UPSTREAM, Retry.ACCOUNT)
OVER_ITS_LIMIT         = Kind(429, "rate_limit_error", "tokens_limit_exceeded", Side.UPSTREAM, Retry.ACCOUNT)
UNAFFORDABLE           = Kind(400, _BAD, "upstream_rejected_request", Side.CLIENT, Retry.ACCOUNT)
# fmt: on


class GatewayError(Exception):
    """A failure with one owner.

    ``message`` is for the client: what happened and what to do next, never a secret.
    ``param`` names the request field at fault.  ``retry_after`` is in seconds.
    ``upstream_status`` is the status that the upstream answered with, if it answered.
    ``fields`` are the request's fields that an upstream's refusal names.
    ``body``: the provider's own words, as a client of its API gets them; empty: the client's dialect writes its own.
    ``not_continued``: of a stream that broke after its client had seen some of it, why it could not go on.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        upstream_status: int | None = None,
        fields: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.upstream_status = upstream_status
        self.fields = fields
        self.not_continued = ""
        self.body = b""

    @property
    def side(self) -> Side:
        return self.kind.side

    @property
    def retry(self) -> Retry:
        return self.kind.retry


class LimitReached(GatewayError):
    """The refusal of a limit that gives way by itself: the call may wait for that, if its alias has a queue.

    ``keys`` name what it would wait for: a quota, a provider's connections, an account.  ``wait``: seconds until the
    limit admits the call; None: not known.  ``sooner``: the end of another call may bring that about earlier.
    ``reason``: the message without that time.
    """

    def __init__(
        self,
        kind: Kind,
        reason: str,
        *,
        keys: tuple[str, ...],
        wait: float | None,
        sooner: bool,
        retry_after: float | None = None,
        again: str = "",
    ) -> None:
        super().__init__(kind, reason + again, retry_after=wait if retry_after is None else retry_after)
        self.reason = reason
        self.keys = keys
        self.wait = wait
        self.sooner = sooner


class ClientGone(Exception):
    """The client closed its connection (FIN or RST): stop working for nobody."""
