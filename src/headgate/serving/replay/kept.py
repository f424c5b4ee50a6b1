"""Calls that outlast the connection they came in on: their output is kept, and several clients may read it.

Owns the kept calls, their readers, their time and memory, and their end without readers.  A call
writes to a ``Kept`` as to any Egress and does not know the difference; nothing here knows where an answer comes from.
Other calls only pass ``Replay.keep``: they pay one comparison, and none per event.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import cast

from headgate.dialects.base import Client
from headgate.errors import (
    DRAINING,
    IDEMPOTENCY_MISMATCH,
    OVERLOADED,
    STREAM_EXPIRED,
    STREAM_NOT_FOUND,
    STREAM_STOPPED,
    ClientGone,
    GatewayError,
)
from headgate.model import NO_OPTIONS, Call, Limits, Plan
from headgate.model.bounded import Bounded
from headgate.policy import on_disconnect
from headgate.policy.auth import Digester
from headgate.policy.on_disconnect import Conduct
from headgate.serving.call import response_headers
from headgate.serving.call.receipt import Receipt
from headgate.serving.client.egress import Egress
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.replay.ring import Memory, Ring
from headgate.wire.http import Request

WEIGHT = 3 << 10  # what a kept call takes beside its events; measured: 2.3 KB
MOST_READERS = 64  # of one call
PIECE = 64 << 10  # of missed events: as much as fills a reader's connection buffer
MOST_REMEMBERED = 20_000  # ids of streams that are gone: their clients read "expired", not "unknown"
_UNKNOWN = "there is no such stream for this key: it was not resumable, or the gateway has been restarted since"
CUT_SHORT = "this gateway is shutting down and could wait for the end of this answer no longer; ask again"
REPLAYED = b"x-headgate-idempotent-replay: true\r\n"


class Reader:
    """One client that reads a kept call, and the number of the last event that it has been sent."""

    __slots__ = ("_fields", "_kept", "at", "egress")

    def __init__(self, kept: Kept, egress: Egress, at: int = 0, fields: bytes = b"") -> None:
        self._kept = kept
        self._fields = fields  # of its head, beside the call's
        self.egress = egress
        self.at = at
        egress.owner = self
        egress.source = self

    def begin(self, fields: bytes) -> None:
        self.egress.begin(fields + self._fields)

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes) -> None:
        self.egress.answer(status, fields + self._fields, body, content_type)

    def take(self, events: bytes, before: int, last: int) -> None:
        """Events behind ``before`` up to ``last``: now, where it has all before them and can be sent more."""
        if self.at == before and (self._kept.held or not self.egress.paused):
            self.at = last
            self.egress.send(events)

    def tell(self, error: GatewayError, ident: str) -> None:
        """Ends its response with ``error``."""
        if self.egress.committed:
            self.egress.end(self._kept.api.error_event(error, ident))
        else:
            self.answer(
                error.kind.status,
                response_headers.of_refusal(error),
                self._kept.api.error_body(error),
                b"application/json",
            )

    # --------------------------------------------------------------- called by its Egress

    def pause(self) -> None:
        self._kept.balance()

    def resume(self) -> None:
        self._kept.catch_up(self)
        self._kept.balance()

    @property
    def behind(self) -> bool:
        """It cannot be sent more, or has not been sent all."""
        ring = self._kept.ring
        return self.egress.paused or (ring is not None and self.at < ring.last)

    def throw(self, error: BaseException) -> bool:
        self._kept.leave_out(self)
        return True


class Kept(Egress):
    """A call's output while it is kept.  It is made from the Egress that the call has been given, so that the call
    goes on with it.  The client becomes the first reader, with an Egress of its own.

    While it runs, ``due`` is its end without readers; after its end, ``due`` is the time to forget it.
    """

    # Set in ``become``, which is all the making there is.
    api: Client  # which its client speaks
    id: str
    client_id: str
    grant: str
    ring: Ring | None
    key: bytes | None
    fingerprint: bytes
    readers: list[Reader]
    held = False  # the upstream waits for the call's own client
    whole: tuple[bytes, bytes] | None = None  # the head's fields and the body of an answer that is no stream
    weight = 0  # of the memory that kept calls may take
    due = NEVER
    slot = -1

    def become(
        self, replay: Replay, receipt: Receipt, conduct: Conduct, ring: Ring | None, url: bytes, client: Egress
    ) -> None:
        self._replay = replay
        self._wheel = replay.wheel
        self.id = receipt.id
        self.client_id = receipt.client_id
        self.grant = receipt.grant.id if receipt.grant is not None else ""
        self.ring = ring
        self.key = None
        self._grace = conduct.grace
        self._tokens = conduct.tokens
        self._drains = conduct.drains
        self._fields = url
        self._client: Reader | None = Reader(self, client)
        self.readers = [self._client]
        self.balance()

    # --------------------------------------------------------------- written by the call

    def begin(self, fields: bytes) -> None:
        self.committed = True
        self._fields = fields + self._fields
        for reader in self.readers:
            reader.begin(self._fields)

    def send(self, events: bytes) -> None:
        self.wrote_at = self._wheel.now
        events, before = self._number(events)
        last = self.ring.last if self.ring is not None else 0
        for reader in self.readers:
            reader.take(events, before, last)
        if not self.readers and events[:1] != b":":  # a comment is none of the answer's tokens
            self._tokens -= events.count(b"\n\n")
            if self._tokens < 0:
                self._wheel.set(self, self._wheel.now)

    def _number(self, events: bytes) -> tuple[bytes, int]:
        """The events as they are to be sent, kept where this stream's are, and the number before theirs."""
        ring = self.ring
        before = ring.last if ring is not None else 0
        if ring is not None:
            if events[:1] != b":":
                events = ring.add(events)
            else:  # a comment is no event: without a number, and not kept
                # …nor a block of its own: behind a first id openai-python takes a block without data for an event
                events = events[:-1]
        if self.readers:
            self.bytes_out += len(events)
        return events, before

    def end(self, events: bytes) -> None:
        self._end(events, whole=True)

    def fail(self, events: bytes) -> None:
        self._end(events, whole=False)

    def _end(self, events: bytes, *, whole: bool) -> None:
        if self.over:
            return
        self.over = True
        events, before = self._number(events)
        readers, self.readers = self.readers, []
        for reader in readers:
            if reader.at == before:
                reader.egress.end(events)
            else:
                self.readers.append(reader)  # ended when it has caught up
        self._finish(reusable=whole)

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes = b"application/json") -> None:
        if self.over:
            return
        self.committed = self.over = True
        self.bytes_out += len(body)
        readers, self.readers = self.readers, []
        for reader in readers:
            reader.answer(status, fields, body, content_type)
        if status == 200 and self.key is not None and self._replay.memory.take(len(body)):
            self.whole = fields, body
        self.ring = None
        self._finish(reusable=self.whole is not None)

    def cut(self) -> None:
        if not self.over:
            self.over = True
            readers, self.readers = self.readers, []
            for reader in readers:
                reader.egress.cut()
            self._replay.forget(self)

    @property
    def paused(self) -> bool:
        return self.held

    def _finish(self, *, reusable: bool) -> None:
        """End the call's output.  A failed answer is not given to a repeat, because a new call may do better."""
        self.owner = self._client = None  # with its connection and its request's body
        if not reusable:
            self._replay.release_key(self)
        if self.ring is None and self.whole is None:
            self._replay.forget(self)
            return
        self._replay.outlive(self)

    # --------------------------------------------------------------- its readers

    def follow(self, egress: Egress, after: int, fields: bytes = b"") -> None:
        """Add a reader: it gets all events after the number ``after``, and the later ones.  Raises GatewayError."""
        if len(self.readers) >= MOST_READERS:
            raise GatewayError(OVERLOADED, "this stream has as many readers as it may have; close one", retry_after=1)
        ring = self.ring
        if ring is not None and after + 1 < ring.first:
            raise GatewayError(STREAM_EXPIRED, f"the events of this stream before {ring.first} are no longer kept")
        reader = Reader(self, egress, after, fields)
        self.readers.append(reader)
        self.deserted = False
        if not self.over:
            self._wheel.drop(self)
        self.balance()
        if self.whole is not None:
            self.readers.remove(reader)
            reader.answer(200, *self.whole, b"application/json")
        elif self.committed:
            reader.begin(self._fields)
            self.catch_up(reader)

    def catch_up(self, reader: Reader) -> None:
        """Send it the events that it has missed, piece by piece as it takes them, and the end if that is known."""
        ring = self.ring
        if ring is None or reader not in self.readers or not self.committed or reader.egress.paused:
            return
        missed = ring.since(reader.at, PIECE)
        if missed is None:
            self._lose(reader)
            return
        events, reader.at = missed
        if reader.at < ring.last:
            reader.egress.send(events)
            # It is written at the end of this turn, and only then it is known whether the client takes more.
            asyncio.get_running_loop().call_soon(self.catch_up, reader)
            return
        if self.over:
            self.readers.remove(reader)
            reader.egress.end(events)
        elif events:
            reader.egress.send(events)
        self.balance()

    def _lose(self, reader: Reader) -> None:
        """It was slower than the ring is long."""
        self.readers.remove(reader)
        reader.tell(GatewayError(STREAM_EXPIRED, "read too slowly: the next events are no longer kept"), self.client_id)
        self._see_who_is_left()

    def leave_out(self, reader: Reader) -> None:
        """A reader's client has gone."""
        if reader in self.readers:
            self.readers.remove(reader)
        if reader is self._client:
            self._client = None
        self._see_who_is_left()

    def _see_who_is_left(self) -> None:
        self.balance()
        if self.over or self.readers:
            return
        # Before its head no client knows a stream's id: only a client with a key could come back.
        self.deserted = self.key is None and (self.ring is None or not self.committed)
        if self._grace > 0 and (not self.deserted or self._drains):
            self._wheel.set(self, self._wheel.now + self._grace)
        else:
            self.stop(GatewayError(STREAM_STOPPED, "its client left"))

    def balance(self) -> None:
        """The upstream waits for the call's own client while that is the only reader.  It never waits for others:
        their bound is the ring.
        """
        readers = self.readers
        held = len(readers) == 1 and readers[0] is self._client and readers[0].behind
        if held != self.held:
            self.held = held
            if self.source is not None:
                if held:
                    self.source.pause()
                else:
                    self.source.resume()

    # --------------------------------------------------------------- its end before its end

    def stop(self, error: GatewayError) -> None:
        """End the call as its client's leaving does; remaining readers get ``error``."""
        if self.over:
            return
        self.gone = self.over = True
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.throw(ClientGone())  # the receipt is closed, the upstream aborted
        self._dismiss(error)

    def close(self) -> None:
        """End the call with the process: like any other call if it has a reader."""
        error = GatewayError(DRAINING, CUT_SHORT, retry_after=1)
        if not self.readers:
            self.stop(error)
            return
        if self.owner is not None:
            self.owner.throw(error)
        self._dismiss(error)  # those who have yet to catch up

    def _dismiss(self, error: GatewayError) -> None:
        readers, self.readers = self.readers, []
        for reader in readers:
            reader.tell(error, self.client_id)
        self._replay.forget(self)

    def expire(self, now: float) -> None:
        """The wheel: no client came back in time, or it has been kept for long enough."""
        error = GatewayError(STREAM_EXPIRED, "this stream is no longer kept")
        if self.over:
            self._dismiss(error)
        else:
            self.stop(error)


class Replay:
    """All kept calls of this process: by stream id, and by Idempotency-Key."""

    def __init__(self, wheel: Wheel, limits: Limits, digester: Digester, public_url: str = "") -> None:
        self.wheel = wheel
        self.memory = Memory(limits.replay_max)
        self._limits = limits
        self._digester = digester
        self._public = public_url.rstrip("/").encode()
        self._streams: dict[str, Kept] = {}
        self._keyed: dict[tuple[str, bytes], Kept] = {}
        self._running: set[Kept] = set()
        self._gone: Bounded[str, str] = Bounded(MOST_REMEMBERED)  # stream id → its owner's grant id

    # --------------------------------------------------------------- for the exchange

    def repeat(self, request: Request, grant: str, egress: Egress) -> bool:
        """True if this call (it has an Idempotency-Key) has been made before: then ``egress`` gets that call's answer.

        Raises GatewayError: 400, 409, and 410 where the answer is no longer kept whole.
        """
        key = on_disconnect.idempotency_key(request)
        kept = self._keyed.get((grant, key))
        if kept is None:
            return False
        if not hmac.compare_digest(kept.fingerprint, on_disconnect.fingerprint(request)):
            raise GatewayError(
                IDEMPOTENCY_MISMATCH,
                "this Idempotency-Key has been used for another request; take a new one for each",
                param="Idempotency-Key",
            )
        if kept.over and kept.ring is None and kept.whole is None:
            raise GatewayError(STREAM_EXPIRED, "the answer of this Idempotency-Key is no longer kept")
        kept.follow(egress, 0, REPLAYED)
        return True

    def keep(self, request: Request, api: Client, call: Call, plan: Plan, receipt: Receipt, egress: Egress) -> None:
        """Keeps the call that begins with ``egress``, if it or its alias asks for that."""
        alias = plan.alias
        keyed = b"idempotency-key" in request.headers
        if not keyed and call.options is NO_OPTIONS and not alias.resumable_s and alias.on_disconnect == "cancel":
            return
        conduct = on_disconnect.conduct(call.options, alias, stream=call.stream, keyed=keyed)
        stored = (keyed or conduct.resumable) and self.memory.take(WEIGHT)
        if not (stored or conduct.drains):  # not requested, or no room for it: a call like any other
            return
        client = egress.hand_over()
        egress.__class__ = Kept
        kept = cast(Kept, egress)
        ring, url = None, b""
        if stored and conduct.resumable:
            ring = Ring(receipt.client_id, self._limits.replay_per_stream, self.memory)
            total = max(attempt.target.timeouts.total for attempt in plan.attempts)  # any target that will serve it
            until = int(receipt.at / 1e9 + total + self._limits.replay_ttl)
            url = self._url(request.path.removesuffix(api.path.encode()), receipt, until)
            self._streams[receipt.id] = kept
        kept.api = api
        kept.become(self, receipt, conduct, ring, url, client)
        self._running.add(kept)
        if stored:
            kept.weight = WEIGHT
        if stored and keyed:
            kept.key = on_disconnect.idempotency_key(request)
            kept.fingerprint = on_disconnect.fingerprint(request)
            self._keyed[kept.grant, kept.key] = kept

    def close(self) -> None:
        """The process ends, and with it all that is kept."""
        for kept in {*self._running, *self._streams.values()}:
            kept.close()

    # --------------------------------------------------------------- for the streams endpoint

    def find(self, ident: str, grant: str | None) -> Kept:
        """The stream of this bare id, if ``grant`` is its owner's (None: a signature vouches for the asker).

        Raises GatewayError: 410 where it was there, 404.
        """
        kept = self._streams.get(ident)
        owner = kept.grant if kept is not None else self._gone.get(ident)
        if owner is not None and grant in (None, owner):
            if kept is not None:
                return kept
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
        # A NUL cannot stand in a token, so no digest of a token is ever a signature.
        return self._digester(b"stream\0%b\0%b" % (ident.encode(), expires.encode())).hex().encode()

    def _url(self, prefix: bytes, receipt: Receipt, until: int) -> bytes:
        return b"x-headgate-stream-url: %b%b/streams/%b?expires=%d&signature=%b\r\n" % (
            self._public, prefix, receipt.client_id.encode(), until, self._sign(receipt.id, str(until)),
        )  # fmt: skip

    # --------------------------------------------------------------- called by kept calls

    def outlive(self, kept: Kept) -> None:
        """The call has ended: its answer stays for a while."""
        self._running.discard(kept)
        seconds = self._limits.replay_ttl if kept.key is None else self._limits.idempotency_ttl
        self.wheel.set(kept, self.wheel.now + seconds)

    def release_key(self, kept: Kept) -> None:
        """Forget the key: the next request with it is executed as a new call."""
        if kept.key is not None:
            self._keyed.pop((kept.grant, kept.key), None)
            kept.key = None

    def forget(self, kept: Kept) -> None:
        """Drop all that is kept of it.  A second call has no effect."""
        self.wheel.drop(kept)
        self._running.discard(kept)
        self.release_key(kept)
        self.memory.used -= kept.weight
        kept.weight = 0
        if kept.whole is not None:
            self.memory.used -= len(kept.whole[1])
            kept.whole = None
        if kept.ring is not None:
            kept.ring.clear()
        if self._streams.pop(kept.id, None) is not None:
            self._gone.put(kept.id, kept.grant)

    def gauges(self) -> dict[str, float]:
        return {"streams_kept": len(self._streams), "replay_bytes": self.memory.used}
