"""The header lines of our responses: what is ours to say beside the body."""

from __future__ import annotations

import math
import time

from headgate.errors import (
    BUDGET_EXCEEDED,
    NO_PROVIDER_KEY,
    OVER_ITS_LIMIT,
    QUOTA_SPENT,
    TOO_MANY_AT_ONCE,
    TOO_MANY_REQUESTS,
    TOO_MANY_TODAY,
    TOO_MANY_TOKENS,
    UPSTREAM_AUTH,
    UPSTREAM_DENIED,
    UPSTREAM_HOLLOW,
    UPSTREAM_MODEL_DENIED,
    UPSTREAM_TOO_LARGE,
    UPSTREAM_UNPAID,
    GatewayError,
)
from headgate.model import SeamRecord
from headgate.serving.call.running import RunningCall
from headgate.wire.http import visible

_monotonic = time.monotonic
_TIMING = (
    b"Server-Timing: auth;dur=%.3f, route;dur=%.3f, queue;dur=%.3f, connect;dur=%.3f, ttfb;dur=%.3f, "
    b"gateway;dur=%.3f\r\n"
)
_POOLED = (
    b"Server-Timing: auth;dur=%.3f, route;dur=%.3f, queue;dur=0, connect;dur=0, ttfb;dur=%.3f, gateway;dur=%.3f\r\n"
)


def of_answer(receipt: RunningCall) -> bytes:
    """A whole answer's, and (with the stream's id) a stream's."""
    return b"x-request-id: %b\r\nx-headgate-requested-model: %b\r\nx-headgate-provider: %b\r\n%b%b%b" % (
        (receipt.label or receipt.client_id).encode(),
        visible(receipt.requested),
        receipt.target.target.provider.name.encode() if receipt.target is not None else b"-",
        b"x-headgate-attempts: 1\r\n"
        if receipt.number == 1 and not receipt.fell_back and receipt.cache is None
        else _of_route(receipt),
        receipt.fields,
        timing(receipt) if receipt.holding is None else timing(receipt) + receipt.holding.fields(),
    )


def _of_route(receipt: RunningCall) -> bytes:
    """Of a call that its first choice did not serve at once: how many attempts there were, and who should have.  Of one
    that uses the response cache: how.
    """
    out = b"x-headgate-attempts: %d\r\n" % receipt.number
    if receipt.cache is not None:
        out += b"x-headgate-cache: %b\r\n" % receipt.cache.status.encode()
    first = receipt.meant
    if first is None or not receipt.fell_back:
        return out
    return out + b"x-headgate-fallback-from: %b\r\n" % visible(first.name)


def seam_comment(seam: SeamRecord) -> bytes:
    """The comment that marks where another attempt goes on."""
    return b": continued after %d characters by %b\n\n" % (seam.after, visible(seam.target))


def of_stream(receipt: RunningCall) -> bytes:
    return b"x-headgate-stream-id: %b\r\n%b" % (receipt.client_id.encode(), of_answer(receipt))


def of_error(error: GatewayError, receipt: RunningCall) -> bytes:
    """An error's: which call failed, which target was asked last, and when the client may come again."""
    out = b"x-request-id: %b\r\n" % (receipt.label or receipt.client_id).encode()
    if receipt.requested:
        out += b"x-headgate-requested-model: %b\r\n" % visible(receipt.requested)
    if receipt.attempts:
        last = receipt.attempts[-1]
        target = (last.provider.encode(), visible(last.model), len(receipt.attempts))
        out += b"x-headgate-provider: %b\r\nx-headgate-model: %b\r\nx-headgate-attempts: %d\r\n" % target
        if len(receipt.attempts) > 1 and error.retry_after is None and error.kind not in HOPELESS:
            out += b"x-should-retry: false\r\n"  # what a retry can do has been done here
    if receipt.holding is not None:
        out += receipt.holding.fields()
    return out + receipt.fields + of_refusal(error) + timing(receipt)


# What a retry within minutes cannot mend, although its status invites one.  Our own limits: where no wait helps.
HOPELESS = frozenset(
    (
        NO_PROVIDER_KEY, UPSTREAM_AUTH, UPSTREAM_DENIED, UPSTREAM_MODEL_DENIED, UPSTREAM_UNPAID, QUOTA_SPENT,
        OVER_ITS_LIMIT, UPSTREAM_TOO_LARGE, UPSTREAM_HOLLOW, BUDGET_EXCEEDED, TOO_MANY_REQUESTS, TOO_MANY_TODAY,
        TOO_MANY_TOKENS, TOO_MANY_AT_ONCE,
    )
)  # fmt: skip
PATIENCE_S = 60.0  # the SDKs do not wait longer than that: they ask again at once


def of_refusal(error: GatewayError) -> bytes:
    """What an error's kind asks for, whoever answers it."""
    out = b""
    if error.kind.status == 401:
        out += b"WWW-Authenticate: Bearer\r\n"  # RFC 9110 §15.5.2: a 401 must have a challenge
    if error.retry_after is not None:
        out += b"Retry-After: %d\r\nretry-after-ms: %d\r\n" % (
            math.ceil(error.retry_after),
            round(error.retry_after * 1000),
        )
        if error.retry_after > PATIENCE_S:
            out += b"x-should-retry: false\r\n"
    elif error.kind in HOPELESS:
        out += b"x-should-retry: false\r\n"  # the SDKs' own retries would meet the same
    return out


def timing(receipt: RunningCall) -> bytes:
    """Server-Timing (W3C): the phases that have happened, in milliseconds.

    ``gateway`` is what was neither waiting for a connection nor for the provider.
    """
    received, authed, routed, asked = receipt.received, receipt.authed, receipt.routed, receipt.asked
    total = (_monotonic() - received) * 1e3
    if not routed:
        queue = receipt.waited * 1e3
        fields = b"Server-Timing: queue;dur=%.3f, gateway;dur=%.3f\r\n" % (queue, total - queue)
        return fields if queue else b"Server-Timing: gateway;dur=%.3f\r\n" % total
    queued, connected, head = receipt.queued, receipt.connected, receipt.head
    if head and connected - asked < 0.0005:  # a pooled connection: nothing to wait for
        ttfb = (head - connected) * 1e3
        return _POOLED % ((authed - received) * 1e3, (routed - authed) * 1e3, ttfb, total - ttfb)
    queue = (queued - asked) * 1e3 if queued else 0.0
    connect = (connected - queued) * 1e3 if connected else 0.0
    ttfb = (head - connected) * 1e3 if head else 0.0
    return _TIMING % (
        (authed - received) * 1e3, (routed - authed) * 1e3, queue, connect, ttfb, total - queue - connect - ttfb,
    )  # fmt: skip
