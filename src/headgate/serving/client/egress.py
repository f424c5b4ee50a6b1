"""The response of one call: its head, its events, its end.

Owns the sent part of it, and whether its client is still there; knows no framing.  It makes no decisions.  The content
comes from the exchange and the relay.  It goes to the ``sink``: the client's connection, or the keeper of a kept
stream.  All bytes are sent at the end of the turn in which they came.  So a response ends only when its receipt is
on record (see ``turn``).
"""

from __future__ import annotations

from typing import Protocol

from headgate.errors import ClientGone
from headgate.serving.loop.wheel import Wheel


class ByteSource(Protocol):
    """The origin of a stream's bytes; it pauses for a slow client."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Owner(Protocol):
    """The worker of this client: a call's Fiber, or the kept call that the client reads."""

    def throw(self, error: BaseException) -> bool:
        """Raise ClientGone in it when the client leaves."""


class ResponseSink(Protocol):
    """The receiver of a response.  Each method that sends returns the number of bytes of body that go to a client."""

    wheel: Wheel

    @property
    def paused(self) -> bool:
        """True while the client is slow."""

    def report_to(self, egress: Egress) -> None:
        """Tell ``egress`` from now on when the client leaves or is slow."""

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes) -> int: ...
    def empty(self, status: int, fields: bytes) -> None: ...
    def begin(self, fields: bytes) -> None: ...
    def send(self, events: bytes) -> int: ...

    def end(self, events: bytes, *, whole: bool) -> int:
        """Send the last events and the end.  ``whole``: the stream is complete and has not failed."""

    def cut(self) -> None: ...


class Egress:
    """One response.  Exactly one of: ``answer``; ``empty``; or ``begin``, then ``send`` any number of times, then
    ``end``, ``fail`` or ``cut``.
    """

    committed = False  # a head has been written: the status is fixed
    gone = False
    deserted = False  # the call goes on without a client
    over = False
    bytes_out = 0
    wrote_at = 0.0  # the wheel's now at the last write: keep-alive comments go by it
    owner: Owner | None = None  # notified when the client leaves
    source: ByteSource | None = None  # notified when the client is slow

    def __init__(self, sink: ResponseSink) -> None:
        self.sink = sink

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes = b"application/json") -> None:
        """Send a whole response.  ``fields`` are further header lines, each with its CRLF."""
        if self.gone or self.over:
            return
        self.committed = self.over = True
        self.bytes_out += self.sink.answer(status, fields, body, content_type)

    def empty(self, status: int, fields: bytes) -> None:
        """Send a response without a body (204, 304)."""
        if self.gone or self.over:
            return
        self.committed = self.over = True
        self.sink.empty(status, fields)

    def begin(self, fields: bytes) -> None:
        """Commit a stream: status 200 and its head, sent with the first event."""
        self.committed = True
        if not self.gone:
            self.sink.begin(fields)

    def send(self, events: bytes) -> None:
        """Send whole events, as the bridge made them."""
        if self.gone:
            return
        sink = self.sink
        self.wrote_at = sink.wheel.now
        self.bytes_out += sink.send(events)

    def end(self, events: bytes) -> None:
        """Send the last events and the end of the body."""
        self._end(events, whole=True)

    def fail(self, events: bytes) -> None:
        """Send the event with the reason for the end, and the end of the body."""
        self._end(events, whole=False)

    def _end(self, events: bytes, *, whole: bool) -> None:
        if self.gone or self.over:
            return
        self.over = True
        self.bytes_out += self.sink.end(events, whole=whole)

    def cut(self) -> None:
        """End the connection without ending the body, so that the client sees the failure."""
        if not self.gone and not self.over:
            self.over = True
            self.sink.cut()

    @property
    def paused(self) -> bool:
        return self.sink.paused

    def divert(self, sink: ResponseSink) -> Egress:
        """Send this response to ``sink`` from now on.  Returns an Egress of its own for the client that had it."""
        client = Egress(self.sink)
        self.sink.report_to(client)
        self.sink = sink
        sink.report_to(self)
        return client

    def leave(self) -> None:
        """Notify the owner that the client is gone (called by the sink)."""
        if self.over or self.gone:
            return
        self.gone = True
        if self.owner is not None:
            self.owner.throw(ClientGone())
