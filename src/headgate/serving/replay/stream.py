"""One kept call: it receives the output in place of a client, and any number of clients may read it.

Owns the readers of a kept call, its time, and its end without readers.  Implements ``egress.ResponseSink``: the call
writes to its Egress as usual.  Does not know the source of an answer.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from headgate.dialects.base import Client
from headgate.errors import DRAINING, OVERLOADED, STREAM_EXPIRED, STREAM_STOPPED, ClientGone, GatewayError
from headgate.policy.on_disconnect import OnDisconnect
from headgate.serving.call import response_headers
from headgate.serving.call.receipt import Receipt
from headgate.serving.client.egress import Egress
from headgate.serving.loop.wheel import NEVER, Wheel
from headgate.serving.replay.ring import EventMemory, Ring

MOST_READERS = 64  # of one call
PIECE = 64 << 10  # bytes of missed events at a time: a reader's connection buffer
CUT_SHORT = "this gateway is shutting down and could wait for the end of this answer no longer; ask again"


class Reader:
    """One client that reads a kept call, and the number of the last event sent to it."""

    __slots__ = ("_fields", "_stream", "at", "egress")

    def __init__(self, stream: KeptStream, egress: Egress, at: int = 0, fields: bytes = b"") -> None:
        self._stream = stream
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
        if self.at == before and (self._stream.held or not self.egress.paused):
            self.at = last
            self.egress.send(events)

    def tell(self, error: GatewayError, ident: str) -> None:
        """Ends its response with ``error``."""
        if self.egress.committed:
            self.egress.end(self._stream.api.error_event(error, ident))
        else:
            self.answer(
                error.kind.status,
                response_headers.of_refusal(error),
                self._stream.api.error_body(error),
                b"application/json",
            )

    # --------------------------------------------------------------- called by its Egress

    def pause(self) -> None:
        self._stream.balance()

    def resume(self) -> None:
        self._stream.catch_up(self)
        self._stream.balance()

    @property
    def behind(self) -> bool:
        """It cannot be sent more, or has not been sent all."""
        ring = self._stream.ring
        return self.egress.paused or (ring is not None and self.at < ring.last)

    def throw(self, error: BaseException) -> bool:
        self._stream.leave_out(self)
        return True


class Keeper(Protocol):
    """The table of all kept calls, as one of them needs it."""

    wheel: Wheel
    memory: EventMemory

    def outlive(self, stream: KeptStream) -> None:
        """Keep the answer of a call that has ended."""

    def release_key(self, stream: KeptStream) -> None:
        """Execute the next request with this key as a new call."""

    def forget(self, stream: KeptStream) -> None:
        """Drop all of it.  May be called again."""


class KeptStream:
    """A call's output while it is kept.  The client that made the call is the first reader.

    While it runs, ``due`` is its end without readers; after its end, ``due`` is the time to forget it.
    """

    held = False  # the upstream waits for the call's own client
    whole: tuple[bytes, bytes] | None = None  # the head's fields and the body of an answer that is no stream
    key: bytes | None = None
    fingerprint = b""
    weight = 0  # of the memory that kept calls may take
    due = NEVER
    slot = -1

    def __init__(
        self, keeper: Keeper, api: Client, receipt: Receipt, wish: OnDisconnect, ring: Ring | None, url: bytes,
        egress: Egress,
    ) -> None:  # fmt: skip
        self._keeper = keeper
        self.wheel = keeper.wheel
        self.api = api  # which its client speaks
        self.id = receipt.id
        self.client_id = receipt.client_id
        self.grant = receipt.grant.id if receipt.grant is not None else ""
        self.ring = ring
        self._grace = wish.grace
        self._tokens = wish.tokens
        self._drains = wish.drains
        self._fields = url
        self._call = egress
        self._client: Reader | None = Reader(self, egress.divert(self))
        self.readers = [self._client]
        self.balance()

    @property
    def over(self) -> bool:
        """True if the call has ended."""
        return self._call.over

    def report_to(self, egress: Egress) -> None:
        """See ``egress.ResponseSink``."""
        self._call = egress

    # --------------------------------------------------------------- written by the call

    def begin(self, fields: bytes) -> None:
        self._fields = fields + self._fields
        for reader in self.readers:
            reader.begin(self._fields)

    def send(self, events: bytes) -> int:
        events, before = self._number(events)
        last = self.ring.last if self.ring is not None else 0
        for reader in self.readers:
            reader.take(events, before, last)
        if self.readers:
            return len(events)
        if events[:1] != b":":  # a comment is none of the answer's tokens
            self._tokens -= events.count(b"\n\n")
            if self._tokens < 0:
                self.wheel.set(self, self.wheel.now)
        return 0

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
        return events, before

    def end(self, events: bytes, *, whole: bool) -> int:
        events, before = self._number(events)
        readers, self.readers = self.readers, []
        for reader in readers:
            if reader.at == before:
                reader.egress.end(events)
            else:
                self.readers.append(reader)  # ended when it has caught up
        self._finish(reusable=whole)
        return len(events) if readers else 0

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes) -> int:
        readers, self.readers = self.readers, []
        for reader in readers:
            reader.answer(status, fields, body, content_type)
        if status == 200 and self.key is not None and self._keeper.memory.take(len(body)):
            self.whole = fields, body
        self.ring = None
        self._finish(reusable=self.whole is not None)
        return len(body)

    def empty(self, status: int, fields: bytes) -> None:
        self.answer(status, fields, b"", b"application/json")  # no call is answered so

    def cut(self) -> None:
        readers, self.readers = self.readers, []
        for reader in readers:
            reader.egress.cut()
        self._keeper.forget(self)

    @property
    def paused(self) -> bool:
        return self.held

    def _finish(self, *, reusable: bool) -> None:
        """End the call's output.  A failed answer is not given to a repeat, because a new call may do better."""
        self._call.owner = self._client = None  # with its connection and its request's body
        if not reusable:
            self._keeper.release_key(self)
        if self.ring is None and self.whole is None:
            self._keeper.forget(self)
            return
        self._keeper.outlive(self)

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
        self._call.deserted = False
        if not self.over:
            self.wheel.drop(self)
        self.balance()
        if self.whole is not None:
            self.readers.remove(reader)
            reader.answer(200, *self.whole, b"application/json")
        elif self._call.committed:
            reader.begin(self._fields)
            self.catch_up(reader)

    def catch_up(self, reader: Reader) -> None:
        """Send it the events that it has missed, piece by piece as it takes them, and the end if that is known."""
        ring = self.ring
        if ring is None or reader not in self.readers or not self._call.committed or reader.egress.paused:
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
        self._call.deserted = self.key is None and (self.ring is None or not self._call.committed)
        if self._grace > 0 and (not self._call.deserted or self._drains):
            self.wheel.set(self, self.wheel.now + self._grace)
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
            source = self._call.source
            if source is not None:
                if held:
                    source.pause()
                else:
                    source.resume()

    # --------------------------------------------------------------- its end before its end

    def stop(self, error: GatewayError) -> None:
        """End the call as its client's leaving does; remaining readers get ``error``."""
        call = self._call
        if call.over:
            return
        call.gone = call.over = True
        owner, call.owner = call.owner, None
        if owner is not None:
            owner.throw(ClientGone())  # the receipt is closed, the upstream aborted
        self._dismiss(error)

    def close(self) -> None:
        """End the call with the process: like any other call if it has a reader."""
        error = GatewayError(DRAINING, CUT_SHORT, retry_after=1)
        if not self.readers:
            self.stop(error)
            return
        if self._call.owner is not None:
            self._call.owner.throw(error)
        self._dismiss(error)  # those who have yet to catch up

    def _dismiss(self, error: GatewayError) -> None:
        readers, self.readers = self.readers, []
        for reader in readers:
            reader.tell(error, self.client_id)
        self._keeper.forget(self)

    def expire(self, now: float) -> None:
        """The wheel: no client came back in time, or it has been kept for long enough."""
        error = GatewayError(STREAM_EXPIRED, "this stream is no longer kept")
        if self.over:
            self._dismiss(error)
        else:
            self.stop(error)
