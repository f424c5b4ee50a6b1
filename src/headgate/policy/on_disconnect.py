"""Decide what happens to a call when its client leaves, and whether a request repeats an earlier one.

Pure: options and headers in, decisions out.  ``serving.replay`` keeps the calls.
"""

from __future__ import annotations

import hashlib
from math import inf
from typing import NamedTuple

from headgate.errors import INVALID_VALUE, GatewayError
from headgate.model import Alias, Options
from headgate.wire.http import Request

GRACE_S = 60.0  # for a call that is kept without a stated time
LONGEST_KEY = 255


class OnDisconnect(NamedTuple):
    """``resumable``: its events are numbered and kept.  When its last client has left it goes on for ``grace``
    seconds, or until it has streamed ``tokens`` more.
    """

    resumable: bool = False
    grace: float = 0.0
    tokens: float = inf

    @property
    def drains(self) -> bool:
        return self.grace > 0 and self.tokens < inf


def decide(options: Options, alias: Alias, *, stream: bool, keyed: bool) -> OnDisconnect:
    """Decide for one call.  The request's options override its alias.  ``keyed``: it has an Idempotency-Key."""
    requested_s = options.resumable_s
    seconds = alias.resumable_s if requested_s is None else requested_s
    resumable = seconds > 0 or (keyed and requested_s is None)
    leaving = options.on_disconnect or (None if requested_s else alias.on_disconnect)
    if leaving is None or (leaving == "cancel" and resumable and options.on_disconnect is None):
        leaving = "detach"  # it is kept for clients that leave and return
    if leaving == "drain":
        return OnDisconnect((resumable or keyed) and stream, alias.drain_s, alias.drain_tokens)
    if leaving == "detach" and (stream or keyed):
        grace = GRACE_S if requested_s is None and not seconds else seconds
        return OnDisconnect(stream and (keyed or grace > 0), grace)
    return OnDisconnect(keyed and stream)


def idempotency_key(request: Request) -> bytes:
    """The request's Idempotency-Key.  Raises GatewayError (400)."""
    key = request.headers[b"idempotency-key"].strip()
    if not 0 < len(key) <= LONGEST_KEY or not key.isascii() or not key.decode("ascii").isprintable():
        raise GatewayError(
            INVALID_VALUE, f"must be 1 to {LONGEST_KEY} printable ASCII characters.", param="Idempotency-Key"
        )
    return key


def fingerprint(request: Request) -> bytes:
    """Return the SHA-256 of a request's path, query and body.  Repeats have the same fingerprint."""
    digest = hashlib.sha256(b"%b?%b\0" % (request.path, request.query))
    digest.update(request.body)
    return digest.digest()


def event_number(ident: str, last_event_id: bytes) -> int:
    """Return the number in ``<stream>.<number>``, which EventSource sends back.  Raises GatewayError (400)."""
    stream, _, number = last_event_id.decode("latin-1").strip().rpartition(".")
    if stream != ident:
        raise GatewayError(INVALID_VALUE, f"is not the id of an event of {ident}.", param="Last-Event-ID")
    return count(number, "Last-Event-ID")


def count(text: str, param: str) -> int:
    """A number of events.  Raises GatewayError (400)."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise GatewayError(INVALID_VALUE, "must be the number of the last event that you have.", param=param)
    return int(text)
