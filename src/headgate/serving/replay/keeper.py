"""Answers that are given again: of calls that outlast the connection they came in on, and of the response cache.

Owns the choice of kept calls, their time and memory, and their look-up: by stream id, and by Idempotency-Key.  Several
clients may read one.  A kept call's ``KeptStream`` is the sink of its Egress, so the call does not know the difference.
Other calls pay a comparison in the exchange, and none per event.
"""

from __future__ import annotations

import hmac
import time

from headgate.dialects.base import Client
from headgate.errors import IDEMPOTENCY_MISMATCH, STREAM_EXPIRED, STREAM_NOT_FOUND, GatewayError
from headgate.model import Call, Limits, Plan
from headgate.model.bounded import Bounded
from headgate.policy import on_disconnect
from headgate.policy.auth import Digester
from headgate.serving.call.receipt import Receipt
from headgate.serving.client.egress import Egress
from headgate.serving.loop.wheel import Wheel
from headgate.serving.replay.answers import AnswerCache
from headgate.serving.replay.ring import EventMemory, Ring
from headgate.serving.replay.stream import KeptStream
from headgate.wire.http import Request

WEIGHT = 3 << 10  # memory of a kept call beside its events; measured: 2.3 KB
MOST_REMEMBERED = 20_000  # ids of streams that are gone: their clients read "expired", not "unknown"
_UNKNOWN = "there is no such stream for this key: it was not resumable, or the gateway has been restarted since"
REPLAYED = b"x-headgate-idempotent-replay: true\r\n"


class ReplayKeeper:
    """All kept calls of this process: by stream id, and by Idempotency-Key."""

    def __init__(self, wheel: Wheel, limits: Limits, digester: Digester, public_url: str = "") -> None:
        self.wheel = wheel
        self.memory = EventMemory(limits.replay_max)
        self.answers = AnswerCache(wheel, limits.cache_max)
        self._limits = limits
        self._digester = digester
        self._public = public_url.rstrip("/").encode()
        self._streams: dict[str, KeptStream] = {}
        self._keyed: dict[tuple[str, bytes], KeptStream] = {}
        self._running: set[KeptStream] = set()
        self._expired: Bounded[str, str] = Bounded(MOST_REMEMBERED)  # stream id → its owner's grant id

    # --------------------------------------------------------------- for the exchange

    def repeat(self, request: Request, grant: str, egress: Egress) -> bool:
        """Return true if this call's Idempotency-Key was used before.  Then ``egress`` gets that call's answer.

        Raises GatewayError: 400 for an invalid key, 409 for another request with this key, 410 if the answer is no
        longer kept whole.
        """
        key = on_disconnect.idempotency_key(request)
        stream = self._keyed.get((grant, key))
        if stream is None:
            return False
        if not hmac.compare_digest(stream.fingerprint, on_disconnect.fingerprint(request)):
            raise GatewayError(
                IDEMPOTENCY_MISMATCH,
                "this Idempotency-Key has been used for another request; take a new one for each",
                param="Idempotency-Key",
            )
        if stream.over and stream.ring is None and stream.whole is None:
            raise GatewayError(STREAM_EXPIRED, "the answer of this Idempotency-Key is no longer kept")
        stream.follow(egress, 0, REPLAYED)
        return True

    def keep(self, request: Request, api: Client, call: Call, plan: Plan, receipt: Receipt, egress: Egress) -> None:
        """Keep the call that begins with ``egress``, if it or its alias asks for that, and is not kept yet."""
        alias = plan.alias
        keyed = b"idempotency-key" in request.headers
        if isinstance(egress.sink, KeptStream):  # since it began to wait in a queue
            return
        wish = on_disconnect.decide(call.options, alias, stream=call.stream, keyed=keyed)
        stored = (keyed or wish.resumable) and self.memory.take(WEIGHT)
        if not (stored or wish.drains):  # not requested, or no room for it: a call like any other
            return
        ring, url = None, b""
        if stored and wish.resumable:
            ring = Ring(receipt.client_id, self._limits.replay_per_stream, self.memory)
            total = max(attempt.target.timeouts.total for attempt in plan.attempts)  # any target that will serve it
            until = int(receipt.at / 1e9 + total + self._limits.replay_ttl)
            path = api.path.encode()
            prefix = request.path.removesuffix(path) if request.path.endswith(path) else b"/v1"
            url = b"x-headgate-stream-url: %b\r\n" % self._url(prefix, receipt, until)
        stream = KeptStream(self, api, receipt, wish, ring, url, egress)
        if ring is not None:
            self._streams[receipt.id] = stream
        self._running.add(stream)
        if stored:
            stream.weight = WEIGHT
        if stored and keyed:
            stream.key = on_disconnect.idempotency_key(request)
            stream.fingerprint = on_disconnect.fingerprint(request)
            self._keyed[stream.grant, stream.key] = stream

    def close(self) -> None:
        """End all kept calls, at the end of the process."""
        for stream in {*self._running, *self._streams.values()}:
            stream.close()

    # --------------------------------------------------------------- for the streams endpoint

    def find(self, ident: str, grant: str | None) -> KeptStream:
        """Return the stream of this bare id, if ``grant`` is its owner's (None: a signature vouches for the asker).

        Raises GatewayError: 410 if it is no longer kept, 404 for another id.
        """
        stream = self._streams.get(ident)
        owner = stream.grant if stream is not None else self._expired.get(ident)
        if owner is not None and grant in (None, owner):
            if stream is not None:
                return stream
            raise GatewayError(STREAM_EXPIRED, "this stream is no longer kept; ask again with a new call")
        raise GatewayError(STREAM_NOT_FOUND, _UNKNOWN)

    def vouches(self, ident: str, expires: str, signature: str) -> bool:
        """True if the gateway has signed the link.  Raises GatewayError (410) if it is too old."""
        if not hmac.compare_digest(self._sign(ident, expires), signature.encode()):
            return False
        if int(expires) <= time.time():
            raise GatewayError(STREAM_EXPIRED, "this link has expired")
        return True

    def _sign(self, ident: str, expires: str) -> bytes:
        # A token contains no NUL, so no digest of a token is a signature.
        return self._digester(b"stream\0%b\0%b" % (ident.encode(), expires.encode())).hex().encode()

    def _url(self, prefix: bytes, receipt: Receipt, until: int) -> bytes:
        return b"%b%b/streams/%b?expires=%d&signature=%b" % (
            self._public, prefix, receipt.client_id.encode(), until, self._sign(receipt.id, str(until)),
        )  # fmt: skip

    # --------------------------------------------------------------- called by kept calls

    def outlive(self, stream: KeptStream) -> None:
        """Keep the answer of an ended call for a while."""
        self._running.discard(stream)
        seconds = self._limits.replay_ttl if stream.key is None else self._limits.idempotency_ttl
        self.wheel.set(stream, self.wheel.now + seconds)

    def release_key(self, stream: KeptStream) -> None:
        """Forget the key: the next request with it is executed as a new call."""
        if stream.key is not None:
            self._keyed.pop((stream.grant, stream.key), None)
            stream.key = None

    def forget(self, stream: KeptStream) -> None:
        """Drop the stream and its events.  A second call has no effect."""
        self.wheel.drop(stream)
        self._running.discard(stream)
        self.release_key(stream)
        self.memory.used -= stream.weight
        stream.weight = 0
        if stream.whole is not None:
            self.memory.used -= len(stream.whole[1])
            stream.whole = None
        if stream.ring is not None:
            stream.ring.clear()
        if self._streams.pop(stream.id, None) is not None:
            self._expired.put(stream.id, stream.grant)

    def gauges(self) -> dict[str, float]:
        kept = {"streams_kept": len(self._streams), "replay_bytes": self.memory.used}
        return {**kept, **self.answers.gauges()}
