"""The client's side of one call: its head, its events, its end.

Owns the order and framing of the bytes written for one request, and knows whether the client is still there.  It
makes no decisions: the content comes from the exchange and the relay.  All bytes are sent at the end of the turn in
which they came.  So a response ends only when its receipt is on record (see ``turn``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headgate.errors import ClientGone
from headgate.wire.http import LAST_CHUNK, Request, chunk, status_line

if TYPE_CHECKING:
    from headgate.serving.client.connection import Connection

JOIN_BELOW = 16 << 10
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"X-Accel-Buffering: no\r\n"
)


class Source(Protocol):
    """The origin of a stream's bytes; it pauses for a slow client."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Owner(Protocol):
    """The worker of this client: a call's Fiber, or the kept call that the client reads."""

    def throw(self, error: BaseException) -> bool:
        """Raise ClientGone in it when the client leaves."""


class Egress:
    """One response.  Exactly one of: ``answer``; or ``begin``, then ``send`` any number of times, then ``end``,
    ``fail`` or ``cut``.
    """

    committed = False  # a head has been written: the status is fixed
    gone = False
    deserted = False  # the call goes on without a client
    over = False
    bytes_out = 0
    wrote_at = 0.0  # the wheel's now at the last write: keep-alive comments go by it
    owner: Owner | None = None  # notified when the client leaves
    source: Source | None = None  # notified when the client is slow

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self.request = request
        self._chunked = request.version != "1.0"

    def answer(self, status: int, fields: bytes, body: bytes, content_type: bytes = b"application/json") -> None:
        """A whole response.  ``fields`` are further header lines, each with its CRLF."""
        if self.gone or self.over:
            return
        connection = self._connection
        head = b"%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
            status_line(status), content_type, len(body), fields, connection.common_fields(self.request),
        )  # fmt: skip
        if self.request.method == b"HEAD":
            body = b""
        self.committed = self.over = True
        self.bytes_out += len(body)
        if len(body) < JOIN_BELOW:
            connection.write(head + body)
        else:  # joining a head and a large body costs more than parsing it did
            connection.write(head)
            connection.write(body)
        connection.ended()

    def empty(self, status: int, fields: bytes) -> None:
        """A response that has no body (204, 304)."""
        if self.gone or self.over:
            return
        self.committed = self.over = True
        self._connection.write(status_line(status) + fields + self._connection.common_fields(self.request) + b"\r\n")
        self._connection.ended()

    def begin(self, fields: bytes) -> None:
        """Commits a stream: status 200 and its head, sent with the first event."""
        self.committed = True
        if self.gone:
            return
        connection = self._connection
        framing = b"Transfer-Encoding: chunked\r\n" if self._chunked else b""
        if not self._chunked:  # HTTP/1.0: the body ends with the connection
            connection.close_after_response()
        connection.write(b"".join((STREAM_HEAD, framing, fields, connection.common_fields(self.request), b"\r\n")))

    def send(self, events: bytes) -> None:
        """Whole events, as the bridge made them."""
        if self.gone:
            return
        connection = self._connection
        self.wrote_at = connection.wheel.now
        self.bytes_out += len(events)
        connection.write(chunk(events) if self._chunked else events)

    def end(self, events: bytes) -> None:
        """The last events and the end of the body."""
        if self.gone or self.over:
            return
        self.over = True
        self.bytes_out += len(events)
        self._connection.write(chunk(events) + LAST_CHUNK if self._chunked else events)
        self._connection.ended()

    def fail(self, events: bytes) -> None:
        """Send the event with the reason for the end, and the end of the body."""
        self.end(events)

    def cut(self) -> None:
        """Ends the connection without ending the body: the client can tell."""
        if not self.gone and not self.over:
            self.over = True
            self._connection.transport.abort()

    @property
    def paused(self) -> bool:
        return self._connection.paused

    def hand_over(self) -> Egress:
        """Return a new Egress that continues the client's response; this one has no client any more."""
        connection = self._connection
        client = Egress(connection, self.request)
        connection.respond_with(client)
        del self._connection, self.request
        return client

    def leave(self) -> None:
        """Notify the owner that the client is gone (called by the connection)."""
        if self.over or self.gone:
            return
        self.gone = True
        if self.owner is not None:
            self.owner.throw(ClientGone())
